package mtls_test

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

const year = 365 * 24 * time.Hour

// TestClocks has the wall clock of one machine, alpha, be anything, and asks who is
// let in there and whom it lets in itself.
func TestClocks(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	start := w.now
	alpha := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	beta := w.party(authority.Leaf{Name: w.name(mtls.Node, "beta")})
	anna := w.party(authority.Leaf{Name: w.name(mtls.Person, "anna")})
	w.adopt(alpha, beta, anna)

	// late was renewed while alpha was off: alpha's list does not know its key.
	late := w.party(authority.Leaf{Name: w.name(mtls.Node, "late")})
	next := &world{t: t, a: w.a, trust: w.trust, cluster: w.cluster}
	next.renew(late, authority.Leaf{Name: w.name(mtls.Node, "late")}, start.Add(40*24*time.Hour))

	for _, c := range []struct {
		name               string
		now, floor         time.Time
		beta, late, people string // why it is refused; "": let in
		doubt              string
	}{
		{name: "right", now: start.Add(time.Minute), late: ""},
		{name: "1970", now: time.Unix(0, 0), doubt: "one of the two clocks is wrong"},
		{name: "a year back", now: start.Add(-year), doubt: "one of the two clocks is wrong"},
		{name: "two days back", now: start.Add(-48 * time.Hour), doubt: "one of the two clocks is wrong"},
		{name: "an hour back", now: start.Add(-time.Hour)},
		{name: "stands where it was when it was switched off", now: start.Add(time.Minute)},
		{name: "ten years on", now: start.Add(10 * year), late: "set the clock", people: "set the clock", doubt: "accepted because its key is known"},
		{name: "2038", now: time.Unix(1<<31, 0), late: "set the clock", people: "set the clock", doubt: "accepted because its key is known"},
		{name: "1970, with a record of two years on", now: time.Unix(0, 0), floor: start.Add(2 * year), people: "expired at", doubt: "one of the two clocks is wrong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.told()
			here := &mtls.Files{Dir: alpha.Dir, Tell: alpha.Tell, Now: func() time.Time { return c.now }, Floor: func() time.Time { return c.floor }}
			server := serverOf(t, here, true, mtls.Node, mtls.Person)
			for _, x := range []struct {
				who  *mtls.Files
				name mtls.Name
				want string
			}{{beta, w.name(mtls.Node, "beta"), c.beta}, {late, w.name(mtls.Node, "late"), c.late}, {anna, mtls.Name{}, c.people}} {
				o := meet(t, server, clientOf(t, x.who, w.name(mtls.Node, "alpha")), nil)
				if x.want != "" {
					wantRefused(t, o, x.want)
				} else if o.server != nil || o.client != nil {
					t.Errorf("%v comes in: %+v", x.name, o)
				}
				if x.name == (mtls.Name{}) {
					continue
				}
				// and the other way round
				o = meet(t, serverOf(t, x.who, true, mtls.Node), clientOf(t, here, x.name), nil)
				if (o.client == nil) != (x.want == "") || o.client != nil && !strings.Contains(o.client.Error(), x.want) {
					t.Errorf("%v is called: %v, want %q", x.name, o.client, x.want)
				}
			}
			said := strings.Join(w.told(), "\n")
			if c.doubt != "" && !strings.Contains(said, c.doubt) || c.doubt == "" && strings.Contains(said, "accepted because") {
				t.Errorf("told: %q, want %q", said, c.doubt)
			}
		})
	}
}

// TestExpiredNode: nodes that know each other go on with expired certificates,
// can renew by them, and everybody is told; once.
func TestExpiredNode(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	alpha := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha"), For: time.Minute})
	unknown := w.trust // before there was beta
	beta := w.party(authority.Leaf{Name: w.name(mtls.Node, "beta"), For: time.Minute})
	anna := w.party(authority.Leaf{Name: w.name(mtls.Person, "anna"), For: time.Minute})
	w.adopt(alpha, beta, anna)
	for _, f := range []*mtls.Files{alpha, beta, anna} {
		f.Now = func() time.Time { return w.now.Add(time.Hour) }
	}
	server := serverOf(t, alpha, true, mtls.Node, mtls.Person)
	for range 3 {
		if o := meet(t, server, clientOf(t, beta, w.name(mtls.Node, "alpha")), nil); o.server != nil || o.client != nil {
			t.Fatalf("%+v", o)
		}
	}
	if said := w.told(); len(said) != 2 { // one at each end
		t.Errorf("told %d times: %q", len(said), said)
	}
	wantRefused(t, meet(t, server, clientOf(t, anna, w.name(mtls.Node, "alpha")), nil), "gemel://c1/person/anna expired")

	t.Run("unless the key is not known", func(t *testing.T) {
		gamma := w.files()
		csr, err := gamma.Request()
		if err != nil {
			t.Fatal(err)
		}
		chain, trust, err := w.a.Issue(csr, authority.Leaf{Name: w.name(mtls.Node, "beta"), For: time.Minute}, unknown, w.now)
		if err != nil {
			t.Fatal(err)
		}
		if err := gamma.Adopt(trust); err != nil {
			t.Fatal(err)
		}
		if err := gamma.Install(chain); err != nil {
			t.Fatal(err)
		}
		c := clientOf(t, gamma, w.name(mtls.Node, "alpha"))
		wantRefused(t, meet(t, server, c, nil), "Renew the certificate, or set the clock")
	})
	t.Run("during a session", func(t *testing.T) {
		f := &mtls.Files{Dir: alpha.Dir}
		now := w.now
		f.Now = func() time.Time { return now }
		var judged []error
		o := meet(t, serverOf(t, f, true, mtls.Person), clientOf(t, &mtls.Files{Dir: anna.Dir}, w.name(mtls.Node, "alpha")), func(cs tls.ConnectionState) (mtls.Identity, error) {
			for range 2 {
				_, err := f.Peer(cs, mtls.Person)
				judged = append(judged, err)
				now = now.Add(time.Hour)
			}
			return mtls.Identity{}, nil
		})
		if o.server != nil || len(judged) != 2 || judged[0] != nil || judged[1] == nil {
			t.Errorf("%+v, judged %v", o, judged)
		}
	})
}

func TestWarnAndDue(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	names := map[time.Time]bool{}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		f := w.party(authority.Leaf{Name: w.name(mtls.Node, name)})
		leaf := leafOf(t, f)
		due, err := f.Due()
		if err != nil {
			t.Fatal(err)
		}
		if early, late := w.now.Add(year*2/3-year/20-time.Minute), w.now.Add(year*2/3); due.Before(early) || due.After(late) {
			t.Errorf("%s is due at %v, want %v to %v", name, due, early, late)
		}
		names[due] = true
		for _, c := range []struct {
			left time.Duration
			n    int
		}{{123 * 24 * time.Hour, 0}, {121 * 24 * time.Hour, 1}, {29 * 24 * time.Hour, 1}, {-time.Hour, 1}} {
			list, err := f.Warn(leaf.NotAfter.Add(-c.left))
			if err != nil || len(list) != c.n {
				t.Errorf("%v left: %v, %v", c.left, list, err)
			}
			if len(list) == 1 && (list[0].Name != w.name(mtls.Node, name) || list[0].Left != c.left || list[0].Do == "") {
				t.Errorf("%+v", list[0])
			}
		}
		list, err := f.Warn(w.a.Certificate().NotAfter.Add(-100 * 24 * time.Hour))
		if err != nil || len(list) != 2 || list[1].Name != mtls.Node.Authority("c1") || !strings.Contains(list[1].Do, "make a new authority") {
			t.Errorf("%v, %v", list, err)
		}
	}
	if len(names) != 3 {
		t.Error("all are due at once")
	}
	t.Run("a peer", func(t *testing.T) {
		w := newWorld(t, "c1", mtls.Peer)
		f := w.party(authority.Leaf{Name: w.name(mtls.Peer, "alpha")})
		if due, err := f.Due(); err != nil || due.After(w.now.Add(year)) {
			t.Errorf("due %v, %v: the key would be the same for ten years", due, err)
		}
		if leaf := leafOf(t, f); leaf.NotBefore.Unix() != 0 || !leaf.NotAfter.Equal(w.a.Certificate().NotAfter) {
			t.Errorf("valid %v to %v", leaf.NotBefore, leaf.NotAfter)
		}
	})
}
