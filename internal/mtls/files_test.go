package mtls_test

import (
	"crypto/tls"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/need"
)

// rush makes connections from one party to another all the time, both directions,
// until it is stopped, and counts them.
type rush struct {
	t    *testing.T
	n    atomic.Int64
	made chan struct{} // one was made; full if nobody waits
	stop chan struct{}
	wg   sync.WaitGroup
}

func newRush(t *testing.T, a, b *mtls.Files, an, bn mtls.Name) *rush {
	r := &rush{t: t, made: make(chan struct{}, 1), stop: make(chan struct{})}
	for _, x := range []struct {
		server, client *mtls.Files
		name           mtls.Name
	}{{a, b, an}, {b, a, bn}} {
		server, client := serverOf(t, x.server, true, mtls.Node), clientOf(t, x.client, x.name)
		r.wg.Go(func() {
			for {
				select {
				case <-r.stop:
					return
				default:
				}
				if o := meet(t, server, client, nil); o.server != nil || o.client != nil {
					t.Errorf("connection %d: %+v", r.n.Load(), o)
					return
				}
				r.n.Add(1)
				select {
				case r.made <- struct{}{}:
				default:
				}
			}
		})
	}
	return r
}

// more waits for some connections that began after now.
func (r *rush) more() {
	r.t.Helper()
	bound := time.After(30 * time.Second)
	for range 8 {
		select {
		case <-r.made:
		case <-bound:
			r.t.Fatalf("no more connections after %d", r.n.Load())
		}
		if r.t.Failed() {
			r.t.FailNow()
		}
	}
}

func (r *rush) end() {
	close(r.stop)
	r.wg.Wait()
}

// TestRotation renews leaves and the authority itself while connections are made.
func TestRotation(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	an, bn := w.name(mtls.Node, "alpha"), w.name(mtls.Node, "beta")
	alpha, beta := w.party(authority.Leaf{Name: an}), w.party(authority.Leaf{Name: bn})
	w.adopt(alpha, beta)
	r := newRush(t, alpha, beta, an, bn)
	r.more()
	first, _ := alpha.Identity()
	for range 5 {
		w.renew(alpha, authority.Leaf{Name: an}, time.Now())
		w.adopt(beta)
		r.more()
		w.renew(beta, authority.Leaf{Name: bn}, time.Now())
		w.adopt(alpha)
		r.more()
	}
	if now, _ := alpha.Identity(); now.Pin == first.Pin {
		t.Error("the key is the same after five renewals")
	}

	// The new authority is trusted by all before it signs, and signs nothing before.
	old := w.a
	next, err := authority.Create(filepath.Join(t.TempDir(), "next.pem"), "c1", mtls.Node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	csr, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := next.Issue(csr, authority.Leaf{Name: an}, w.trust, time.Now()); err == nil || !strings.Contains(err.Error(), "not trusted (yet") {
		t.Errorf("signed by an authority that nobody knows: %v", err)
	}
	if w.trust, err = w.trust.With(next.Certificate(), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*mtls.Files{alpha, beta} {
		w.adopt(f)
		r.more()
	}
	w.a = next
	w.renew(alpha, authority.Leaf{Name: an}, time.Now())
	r.more()
	w.renew(beta, authority.Leaf{Name: bn}, time.Now())
	w.adopt(alpha)
	r.more()
	if w.trust, err = w.trust.Without(old.Identity().Pin, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*mtls.Files{alpha, beta} {
		w.adopt(f)
		r.more()
	}
	if _, err := w.trust.Without(next.Identity().Pin, time.Now()); err == nil {
		t.Error("the last authority was taken away")
	}
	r.end()
	if said := w.told(); len(said) > 0 {
		t.Errorf("%q", said)
	}
	w.a = old
	x := newWorld(t, "c1", mtls.Node)
	x.a, x.trust = old, old.Trust(w.now)
	gone := x.party(authority.Leaf{Name: bn})
	c := clientOf(t, gone, an)
	c.VerifyConnection = nil
	wantRefused(t, meet(t, serverOf(t, alpha, true, mtls.Node), c, nil), "unknown authority")
}

func TestRevocation(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	an, bn := w.name(mtls.Node, "alpha"), w.name(mtls.Node, "beta")
	alpha, beta := w.party(authority.Leaf{Name: an}), w.party(authority.Leaf{Name: bn})
	w.adopt(alpha, beta)
	server, client := serverOf(t, alpha, true, mtls.Node), clientOf(t, beta, an)

	// An open stream sees it as well.
	o := meet(t, server, client, func(cs tls.ConnectionState) (mtls.Identity, error) {
		id, err := alpha.Peer(cs, mtls.Node)
		if err != nil {
			return id, err
		}
		w.trust, err = w.trust.Revoke(mtls.Revocation{Name: &bn, At: w.now, Why: "stolen"})
		if err != nil {
			return id, err
		}
		if err := alpha.Adopt(w.trust); err != nil {
			return id, err
		}
		return alpha.Peer(cs, mtls.Node)
	})
	if o.server == nil || !strings.Contains(o.server.Error(), "was revoked at") || !strings.Contains(o.server.Error(), "(stolen)") {
		t.Errorf("%v", o.server)
	}
	wantRefused(t, meet(t, server, client, nil), "was revoked at")

	// In the same second nothing new is signed that would be refused at once.
	csr, err := beta.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.a.Issue(csr, authority.Leaf{Name: bn}, w.trust, w.now); err == nil || !strings.Contains(err.Error(), "are revoked") {
		t.Errorf("%v", err)
	}
	w.renew(beta, authority.Leaf{Name: bn}, w.now.Add(2*time.Second))
	w.adopt(alpha)
	if o := meet(t, server, client, nil); o.server != nil {
		t.Errorf("a new certificate of the same name: %v", o.server)
	}
	leaf := leafOf(t, beta)
	if w.trust, err = w.trust.Revoke(mtls.Revocation{Serial: leaf.SerialNumber.Text(16), At: w.now}); err != nil {
		t.Fatal(err)
	}
	w.adopt(alpha)
	wantRefused(t, meet(t, server, client, nil), "was revoked at")
	crl, err := w.a.CRL(w.trust, w.now)
	if err != nil || len(crl) == 0 {
		t.Error(err)
	}
}

// TestReplacedKeys: the fourth key of a node takes back its first.
func TestReplacedKeys(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	an, bn := w.name(mtls.Node, "alpha"), w.name(mtls.Node, "beta")
	alpha, beta := w.party(authority.Leaf{Name: an}), w.party(authority.Leaf{Name: bn})
	old := &mtls.Files{Dir: t.TempDir()}
	if err := os.CopyFS(old.Dir, os.DirFS(beta.Dir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"leaf.pem", "trust.json"} {
		if err := os.Chmod(filepath.Join(old.Dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.adopt(alpha, old)
	server, client := serverOf(t, alpha, true, mtls.Node), clientOf(t, old, an)
	for i := range 3 {
		if o := meet(t, server, client, nil); o.server != nil {
			t.Fatalf("after %d renewals: %v", i, o.server)
		}
		w.renew(beta, authority.Leaf{Name: bn}, time.Now())
		w.adopt(alpha)
	}
	wantRefused(t, meet(t, server, client, nil), "(replaced)")
}

// TestFilesThatAreNoGood puts everything in the place of good files that can be
// there: what was in force stays so, and somebody is told once. At a first start
// nothing is used.
func TestFilesThatAreNoGood(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	an, bn := w.name(mtls.Node, "alpha"), w.name(mtls.Node, "beta")
	beta := w.party(authority.Leaf{Name: bn})
	alpha := w.party(authority.Leaf{Name: an})
	w.adopt(beta)
	other := newWorld(t, "c2", mtls.Node)
	stranger := other.party(authority.Leaf{Name: other.name(mtls.Node, "alpha")})
	read := func(f *mtls.Files, name string) []byte {
		b, err := os.ReadFile(filepath.Join(f.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	leaf, trust := read(alpha, "leaf.pem"), read(alpha, "trust.json")
	older := strings.Replace(string(trust), `"version": `, `"version": 0`, 1)
	older = strings.Replace(older, `"version": 03`, `"version": 1`, 1)
	for _, c := range []struct {
		name, file string
		content    []byte
		mode       fs.FileMode
		want       string
		fresh      bool // good at a first start
	}{
		{"half a leaf", "leaf.pem", leaf[:len(leaf)/3], 0o600, "reading key and certificate", false},
		{"the key alone", "leaf.pem", leaf[:strings.Index(string(leaf), "-----BEGIN CERT")], 0o600, "reading key and certificate", false},
		{"an empty leaf", "leaf.pem", nil, 0o600, "reading key and certificate", false},
		{"somebody else's leaf", "leaf.pem", read(beta, "leaf.pem"), 0o600, "it is the certificate of gemel://c1/node/beta", true},
		{"another cluster's leaf", "leaf.pem", read(stranger, "leaf.pem"), 0o600, "is of another cluster", false},
		{"a key that others can read", "leaf.pem", leaf, 0o640, "mode 0640 lets others read or write it", false},
		{"half a trust", "trust.json", trust[:len(trust)-20], 0o600, "", false},
		{"an empty trust", "trust.json", nil, 0o600, "", false},
		{"no authority", "trust.json", []byte(`{"cluster":"c1","plane":"nodes","version":99,"changed":"2026-01-01T00:00:00Z","authorities":[]}`), 0o600, "0 authorities", false},
		{"another cluster's trust", "trust.json", read(stranger, "trust.json"), 0o600, "c2", false},
		{"an older trust", "trust.json", []byte(older), 0o600, "older than", true},
		{"two trusts", "trust.json", append(append([]byte{}, trust...), trust...), 0o600, "", false},
		{"a key that is not known", "trust.json", []byte(strings.Replace(string(trust), `"plane"`, `"revokedd": [], "plane"`, 1)), 0o600, "unknown field", false},
		{"a trust that others can write", "trust.json", trust, 0o666, "mode 0666", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &mtls.Files{Dir: t.TempDir(), Tell: alpha.Tell}
			put := func(name string, b []byte, mode fs.FileMode) {
				path := filepath.Join(f.Dir, name)
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, mode); err != nil {
					t.Fatal(err)
				}
			}
			put("leaf.pem", leaf, 0o600)
			put("trust.json", trust, 0o600)
			w.told()
			server := serverOf(t, f, true, mtls.Node)
			before, _ := f.Identity()
			put(c.file, c.content, c.mode)
			for range 2 {
				if o := meet(t, server, clientOf(t, beta, an), nil); o.server != nil || o.client != nil {
					t.Errorf("%+v", o)
				}
			}
			if after, err := f.Identity(); err != nil || after != before {
				t.Errorf("now it is %v, %v", after, err)
			}
			if said := w.told(); len(said) != 1 || !strings.Contains(said[0], c.want) || !strings.Contains(said[0], "stays in force") {
				t.Errorf("told %q, want %q", said, c.want)
			}
			fresh := &mtls.Files{Dir: f.Dir}
			if err := fresh.Load(); (err == nil) != c.fresh || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("at a first start: %v", err)
			}
			// and it is seen when it is whole again
			put(c.file, map[string][]byte{"leaf.pem": leaf, "trust.json": trust}[c.file], 0o600)
			if err := f.Load(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("removed", func(t *testing.T) {
		if err := alpha.Load(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"leaf.pem", "trust.json"} {
			if err := os.Remove(filepath.Join(alpha.Dir, name)); err != nil {
				t.Fatal(err)
			}
			if o := meet(t, serverOf(t, alpha, true, mtls.Node), clientOf(t, beta, an), nil); o.server != nil {
				t.Errorf("without %s: %v", name, o.server)
			}
		}
		if err := (&mtls.Files{Dir: alpha.Dir}).Load(); err == nil {
			t.Error("loaded from nothing")
		}
	})
}

func TestInstallRefuses(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	alpha := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	before := leafOf(t, alpha)
	csr, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(w *world, csr []byte, name string) []byte {
		chain, _, err := w.a.Issue(csr, authority.Leaf{Name: w.name(mtls.Node, name)}, w.trust, w.now)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	foreign, err := w.files().Request()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chain []byte
		want  string
	}{
		"another name":      {issue(w, csr, "beta"), "this is gemel://c1/node/alpha"},
		"another key":       {issue(w, foreign, "alpha"), "private key does not match"},
		"another authority": {issue(newWorld(t, "c1", mtls.Node), csr, "alpha"), "unknown authority"},
		"nothing":           {nil, "failed to find"},
	} {
		if err := alpha.Install(c.chain); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if after := leafOf(t, alpha); !after.Equal(before) {
		t.Error("the certificate is another one")
	}
	// The key of the request is the same until it is installed, and another one after.
	again, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	p1, _ := authority.Check(csr)
	p2, _ := authority.Check(again)
	if p1 != p2 || p1 == "" {
		t.Errorf("keys %s and %s", p1, p2)
	}
	key, err := os.ReadFile(filepath.Join(alpha.Dir, "next.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := alpha.Install(issue(w, again, "alpha")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(alpha.Dir, "next.key"), key, 0o600); err != nil { // as if interrupted before its removal
		t.Fatal(err)
	}
	third, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	if p3, _ := authority.Check(third); p3 == p1 {
		t.Error("a renewal with the key that is in force")
	}
	// A key that others could read is not used.
	if err := os.Chmod(filepath.Join(alpha.Dir, "next.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	fourth, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	p3, _ := authority.Check(third)
	if p4, _ := authority.Check(fourth); p4 == p3 {
		t.Error("a key that others could read is used")
	}
}

// TestFullDisk: a write that fails leaves all as it was, for the running party and
// for the next start.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	w := newWorld(t, "c1", mtls.Node)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=700"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	alpha := w.files()
	alpha.Dir = dir
	an := w.name(mtls.Node, "alpha")
	w.renew(alpha, authority.Leaf{Name: an}, w.now)
	csr, err := alpha.Request()
	if err != nil {
		t.Fatal(err)
	}
	before, err := alpha.Identity()
	if err != nil {
		t.Fatal(err)
	}
	chain, trust, err := w.a.Issue(csr, authority.Leaf{Name: an}, w.trust, w.now)
	if err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(dir, "fill")
	if err := os.WriteFile(fill, make([]byte, 128<<10), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if err := alpha.Install(chain); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("installed on a full disk: %v", err)
	}
	if err := alpha.Adopt(trust); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("adopted on a full disk: %v", err)
	}
	for _, f := range []*mtls.Files{alpha, {Dir: dir}} {
		if after, err := f.Identity(); err != nil || after != before {
			t.Errorf("%v, %v; want %v", after, err, before)
		}
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	if err := alpha.Install(chain); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

func TestTrustRoundTrip(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	name := w.name(mtls.Person, "anna")
	trust, err := w.trust.Revoke(mtls.Revocation{Name: &name, At: w.now.Add(5 * year)}) // a clock that ran ahead
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(trust)
	if err != nil {
		t.Fatal(err)
	}
	var back mtls.Trust
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	csr, err := w.files().Request()
	if err != nil {
		t.Fatal(err)
	}
	now := w.now.Add(time.Hour)
	if _, _, err := w.a.Issue(csr, authority.Leaf{Name: name}, &back, now); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("signed before the last change: %v", err)
	}
	if _, _, err := w.a.Issue(csr, authority.Leaf{Name: name}, w.trust, w.now.Add(3*year)); err == nil || !strings.Contains(err.Error(), "set the clock") {
		t.Errorf("signed three years after the last change: %v", err)
	}
	right := back.Retime(now.Add(-time.Minute))
	if _, _, err := w.a.Issue(csr, authority.Leaf{Name: name}, right, now); err != nil {
		t.Errorf("after an operator said what time it is: %v", err)
	}
}

// TestAdoptAtOnce: of several that come at once the newest is on the disk at the end.
func TestAdoptAtOnce(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	f := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	all := []*mtls.Trust{w.trust}
	for range 20 {
		all = append(all, all[len(all)-1].Retime(w.now))
	}
	var wg sync.WaitGroup
	for _, x := range all {
		wg.Go(func() { _ = f.Adopt(x) }) // the older ones may be refused
	}
	wg.Wait()
	got, err := (&mtls.Files{Dir: f.Dir}).Trust()
	if want := all[len(all)-1].Version; err != nil || got.Version != want {
		t.Errorf("version %d, %v; want %d", got.Version, err, want)
	}
}
