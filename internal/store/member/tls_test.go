package member

import (
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/store"
)

// TestAdmit is who is taken for a voter.
func TestAdmit(t *testing.T) {
	dir := t.TempDir()
	ours, theirs := newAuthority(t, dir), newAuthority(t, t.TempDir())
	good := ours.issue("good", testRole)
	withdrawn := ours.issue("revoked", testRole)
	list := func(a *authority, serial int64) string {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}},
		}, a.cert, a.key)
		if err != nil {
			t.Fatal(err)
		}
		return a.file("crl.pem", "X509 CRL", der)
	}
	for _, c := range []struct {
		name, want string
		cert       store.TLS
		crl        string
	}{
		{name: "good", cert: good},
		{name: "other role", cert: ours.issue("agent", "gemel://test/agent"), want: "is for"},
		{name: "role with more", cert: ours.issue("more", testRole+"/x"), want: "is for"},
		{name: "role with less", cert: ours.issue("less", "gemel://test/"), want: "is for"},
		{name: "wildcard", cert: ours.issue("wild", "gemel://test/*"), want: "is for"},
		{name: "other authority", cert: theirs.issue("stranger", testRole), want: "unknown authority"},
		{name: "not on the list", cert: good, crl: list(ours, 3)},
		{name: "revoked", cert: withdrawn, crl: list(ours, 3), want: "was revoked"},
		{name: "list of another", cert: good, crl: list(theirs, 99), want: "is not of the authority"},
	} {
		role := good
		role.CRL = c.crl
		roots := x509.NewCertPool()
		roots.AddCert(ours.cert)
		list, err := revoked(role)
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			err = admit(role, load(t, c.cert), peerRule{roots, use, list, nil})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: want %q: %v", c.name, c.want, err)
			}
		}
	}
	if err := admit(good, nil, peerRule{}); err == nil {
		t.Error("nobody is taken")
	}
	named := good
	named.Role = "gemel://test/peer/"
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	for uri, want := range map[string]bool{"gemel://test/peer/b": true, "gemel://test/peer/c": false, "gemel://test/peer/": false,
		"gemel://test/node/b": false, "gemel://test/peer/b/b": false, "gemel://other/peer/b": false} {
		err := admit(named, load(t, ours.issue("named", uri)), peerRule{roots, x509.ExtKeyUsageClientAuth, nil, func(n string) bool { return n == "b" }})
		if (err == nil) != want {
			t.Errorf("voter b shows %s: %v", uri, err)
		}
	}
	bad := good
	bad.CRL = filepath.Join(dir, "nowhere")
	if _, err := voter(bad, x509.ExtKeyUsageClientAuth, nil); err == nil {
		t.Error("a list that cannot be read is none")
	}
}

func load(t *testing.T, f store.TLS) []*x509.Certificate {
	t.Helper()
	conf, err := voter(store.TLS{Cert: f.Cert, Key: f.Key, CA: f.CA}, x509.ExtKeyUsageClientAuth, nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(conf.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{leaf}
}
