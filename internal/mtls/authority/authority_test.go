package authority_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

func create(t *testing.T, role mtls.Role) *authority.Authority {
	t.Helper()
	a, err := authority.Create(filepath.Join(t.TempDir(), "authority.pem"), "c1", role, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func csrOf(t *testing.T, key crypto.Signer, template *x509.CertificateRequest) []byte {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	b, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func first(t *testing.T, chain []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(chain)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authority.pem")
	a, err := authority.Create(path, "c1", mtls.Node, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	b, err := authority.Open(path)
	if err != nil || b.Identity() != a.Identity() || !b.Certificate().Equal(a.Certificate()) {
		t.Errorf("%+v, %v; want %+v", b, err, a)
	}
	if want := mtls.Node.Authority("c1"); a.Identity().Name != want {
		t.Errorf("%v, want %v", a.Identity().Name, want)
	}
	if since := time.Since(a.Identity().Issued); since < 0 || since > time.Minute {
		t.Errorf("issued %v ago", since)
	}
	if _, err := authority.Create(path, "c1", mtls.Node, time.Now()); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over an authority: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.Open(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by all: %v", err)
	}
	// One that cannot be read is still one: it is not written over.
	if _, err := authority.Create(path, "c1", mtls.Node, time.Now()); err == nil {
		t.Error("written over an authority that others can read")
	}
	for _, c := range []struct {
		cluster string
		role    mtls.Role
	}{{"C1", mtls.Node}, {"", mtls.Node}, {"c1", "king"}, {"c1", ""}} {
		if _, err := authority.Create(filepath.Join(t.TempDir(), "a.pem"), c.cluster, c.role, time.Now()); err == nil {
			t.Errorf("made one for %q of %q", c.role, c.cluster)
		}
	}
	if _, err := authority.Create(filepath.Join(t.TempDir(), "a.pem"), "c1", mtls.Node, time.Unix(-1, 0)); err == nil {
		t.Error("made one before 1970")
	}
}

// TestRequestSaysNothing: names, uses and being an authority are not taken from it.
func TestRequestSaysNothing(t *testing.T) {
	a := create(t, mtls.Node)
	u, _ := url.Parse("gemel://c1/person/root")
	csr := csrOf(t, nil, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root", Organization: []string{"x"}}, URIs: []*url.URL{u}, DNSNames: []string{"*.example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 66)}, EmailAddresses: []string{"root@example.org"},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}},
	})
	now := time.Now()
	name := mtls.Name{Cluster: "c1", Role: mtls.Node, Name: "alpha"}
	chain, trust, err := a.Issue(csr, authority.Leaf{Name: name, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}, DNS: []string{"alpha.example.org"}}, a.Trust(now), now)
	if err != nil {
		t.Fatal(err)
	}
	c := first(t, chain)
	id, err := mtls.Identify(c)
	if err != nil || id.Name != name || id.Issued.Unix() != now.Unix() {
		t.Errorf("%+v, %v", id, err)
	}
	if c.IsCA || len(c.URIs) != 1 || len(c.EmailAddresses) > 0 || len(c.Subject.Organization) > 0 || c.Subject.CommonName != "node alpha" {
		t.Errorf("it says %v %v %v %v", c.IsCA, c.URIs, c.EmailAddresses, c.Subject)
	}
	if len(c.DNSNames) != 1 || c.DNSNames[0] != "alpha.example.org" || len(c.IPAddresses) != 2 {
		t.Errorf("it is for %v %v", c.DNSNames, c.IPAddresses)
	}
	if life := c.NotAfter.Sub(now); life < 364*24*time.Hour || life > 365*24*time.Hour || !c.NotBefore.Before(now.Add(-23*time.Hour)) {
		t.Errorf("valid %v to %v", c.NotBefore, c.NotAfter)
	}
	if len(trust.Given) != 1 || trust.Version != 2 {
		t.Errorf("%+v", trust)
	}
}

func TestWhatIsNotSigned(t *testing.T) {
	a := create(t, mtls.Node)
	now := time.Now()
	good := csrOf(t, nil, &x509.CertificateRequest{})
	bent := slices.Clone(good)
	bent[len(bent)-1] ^= 1
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	alpha := mtls.Name{Cluster: "c1", Role: mtls.Node, Name: "alpha"}
	with := func(change func(*authority.Leaf)) authority.Leaf {
		l := authority.Leaf{Name: alpha}
		change(&l)
		return l
	}
	other := create(t, mtls.Node)
	for _, c := range []struct {
		name  string
		csr   []byte
		leaf  authority.Leaf
		trust *mtls.Trust
		at    time.Time
		want  string
	}{
		{"good", good, authority.Leaf{Name: alpha}, nil, now, ""},
		{"Ed25519", csrOf(t, ed, &x509.CertificateRequest{}), authority.Leaf{Name: alpha}, nil, now, ""},
		{"bent", bent, authority.Leaf{Name: alpha}, nil, now, "not signed by its own key"},
		{"none", nil, authority.Leaf{Name: alpha}, nil, now, "reading a request"},
		{"large", make([]byte, 5000), authority.Leaf{Name: alpha}, nil, now, "5000 bytes"},
		{"RSA", csrOf(t, small, &x509.CertificateRequest{}), authority.Leaf{Name: alpha}, nil, now, "key of RSA"},
		{"P-224", csrOf(t, p224, &x509.CertificateRequest{}), authority.Leaf{Name: alpha}, nil, now, "P-256 is the weakest"},
		{"another plane", good, with(func(l *authority.Leaf) { l.Name.Role = mtls.Peer }), nil, now, "vouches for no peer"},
		{"an authority", good, with(func(l *authority.Leaf) { l.Name = mtls.Node.Authority("c1") }), nil, now, "vouches for no authority"},
		{"another cluster", good, with(func(l *authority.Leaf) { l.Name.Cluster = "c2" }), nil, now, "vouches for no node of cluster c2"},
		{"wildcard", good, with(func(l *authority.Leaf) { l.Name.Name = "*" }), nil, now, "first a letter or digit"},
		{"wildcard DNS", good, with(func(l *authority.Leaf) { l.DNS = []string{"*.example.org"} }), nil, now, "no wildcard"},
		{"zone", good, with(func(l *authority.Leaf) { l.IPs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }), nil, now, "without an interface"},
		{"many addresses", good, with(func(l *authority.Leaf) { l.IPs = make([]netip.Addr, 65) }), nil, now, "at most 64"},
		{"a second", good, with(func(l *authority.Leaf) { l.For = time.Second }), nil, now, "a minute is the shortest"},
		{"not trusted", good, authority.Leaf{Name: alpha}, other.Trust(now), now, "not trusted (yet"},
		{"over", good, authority.Leaf{Name: alpha}, a.Trust(now.Add(10 * 365 * 24 * time.Hour)), now.Add(11 * 365 * 24 * time.Hour), "this authority expired"},
		{"clock far back", good, authority.Leaf{Name: alpha}, nil, time.Unix(1000, 0), "set the clock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			trust := c.trust
			if trust == nil {
				trust = a.Trust(now)
			}
			_, _, err := a.Issue(c.csr, c.leaf, trust, c.at)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestPeerAsEtcdSeesIt judges a peer by the rules of the standard library alone, as
// etcd does: one file for key and certificate, the authorities as PEM, the address
// of the other side, the list of revoked numbers.
func TestPeerAsEtcdSeesIt(t *testing.T) {
	a := create(t, mtls.Peer)
	now := time.Now()
	f := &mtls.Files{Dir: t.TempDir()}
	csr, err := f.Request()
	if err != nil {
		t.Fatal(err)
	}
	chain, trust, err := a.Issue(csr, authority.Leaf{
		Name: mtls.Name{Cluster: "c1", Role: mtls.Peer, Name: "alpha"}, IPs: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}, a.Trust(now), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Adopt(trust); err != nil {
		t.Fatal(err)
	}
	if err := f.Install(chain); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.Dir, "leaf.pem")
	pair, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(trust.PEM()) {
		t.Fatal("no authority")
	}
	for _, at := range []time.Time{time.Unix(1, 0), now, now.Add(9 * 365 * 24 * time.Hour)} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
				t.Errorf("at %v: %v", at, err)
			}
		}
	}
	for ip, ok := range map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "192.0.2.2": false} {
		if err := pair.Leaf.VerifyHostname(ip); (err == nil) != ok {
			t.Errorf("%s: %v", ip, err)
		}
	}
	name := mtls.Name{Cluster: "c1", Role: mtls.Peer, Name: "alpha"}
	revoked, err := trust.Revoke(mtls.Revocation{Name: &name, At: now})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		trust *mtls.Trust
		n     int
	}{{trust, 0}, {revoked, 1}} {
		der, err := a.CRL(c.trust, now)
		if err != nil {
			t.Fatal(err)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil || len(list.RevokedCertificateEntries) != c.n {
			t.Fatalf("%+v, %v; want %d", list, err, c.n)
		}
		if err := list.CheckSignatureFrom(a.Certificate()); err != nil {
			t.Error(err)
		}
		if c.n == 1 && list.RevokedCertificateEntries[0].SerialNumber.Cmp(pair.Leaf.SerialNumber) != 0 {
			t.Error("another number is revoked")
		}
	}
}
