package mtls

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	long := strings.Repeat("n", 253)
	for uri, want := range map[string]Name{
		"gemel://c1/node/alpha":                        {"c1", Node, "alpha"},
		"gemel://c1/witness/w":                         {"c1", Witness, "w"},
		"gemel://c1/person/anna@example.org":           {"c1", Person, "anna@example.org"},
		"gemel://0-0/agent/web.guest-1":                {"0-0", Agent, "web.guest-1"},
		"gemel://c1/manager/A_b":                       {"c1", Manager, "A_b"},
		"gemel://" + long[:63] + "/peer/" + long:       {long[:63], Peer, long},
		"gemel://c1/authority/store":                   {"c1", authority, "store"},
		"gemel://c1/authority/alpha":                   {},
		"gemel://c1/king/alpha":                        {},
		"gemel://c1/Node/alpha":                        {},
		"gemel://C1/node/alpha":                        {},
		"gemel://c1./node/alpha":                       {},
		"gemel://c1:5314/node/alpha":                   {},
		"gemel://root@c1/node/alpha":                   {},
		"gemel://-c1/node/alpha":                       {},
		"gemel:///node/alpha":                          {},
		"gemel://c1/node/":                             {},
		"gemel://c1/node":                              {},
		"gemel://c1//alpha":                            {},
		"gemel://c1/node/alpha/":                       {},
		"gemel://c1/node/alpha/x":                      {},
		"gemel://c1/node/../peer":                      {},
		"gemel://c1/node/..":                           {},
		"gemel://c1/node/*":                            {},
		"gemel://c1/node/al*":                          {},
		"gemel://c1/node/%61lpha":                      {},
		"gemel://c1/node/alpha?a=b":                    {},
		"gemel://c1/node/alpha#x":                      {},
		"gemel://c1/node/alpha\x00":                    {},
		"gemel://c1/node/alph\u0430":                   {}, // a Cyrillic letter
		"gemel://c1/node/ alpha":                       {},
		"GEMEL://c1/node/alpha":                        {},
		"gemel:c1/node/alpha":                          {},
		"spiffe://c1/node/alpha":                       {},
		"":                                             {},
		"gemel://c1/node/" + long + "n":                {},
		"gemel://" + long[:64] + "/node/alpha":         {},
		"gemel://c1/node/" + strings.Repeat("n", 9000): {},
	} {
		got, err := ParseName(uri)
		if got != want || (err == nil) != (want != Name{}) {
			t.Errorf("%.80q: %+v, %v", uri, got, err)
		}
	}
	type in struct{ N Name }
	b, err := json.Marshal(in{Name{"c1", Node, "alpha"}})
	if err != nil || string(b) != `{"N":"gemel://c1/node/alpha"}` {
		t.Errorf("%s, %v", b, err)
	}
	var back in
	if err := json.Unmarshal(b, &back); err != nil || back.N != (Name{"c1", Node, "alpha"}) {
		t.Errorf("%+v, %v", back, err)
	}
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"gemel://c1/node/alpha", "gemel://c1/person/anna@example.org", "gemel://c1/authority/nodes", "gemel://c1/node/%61"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			return
		}
		if n.String() != s {
			t.Errorf("%q is also written %q", s, n)
		}
		u, err := url.Parse(s)
		if err != nil || u.String() != s || u.Host != n.Cluster || u.User != nil {
			t.Errorf("%q is another one as a URL: %v, %v", s, u, err)
		}
	})
}

func FuzzTrust(f *testing.F) {
	f.Add([]byte(`{"cluster":"c1","plane":"nodes","version":1,"changed":"2026-01-01T00:00:00Z","authorities":["MIIB"]}`))
	f.Add([]byte(`{"revoked":[{"name":"gemel://c1/node/alpha","at":"2026-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var tr Trust
		if json.Unmarshal(b, &tr) == nil && tr.Check() != nil {
			t.Errorf("%q was read and is not valid", b)
		}
	})
}
