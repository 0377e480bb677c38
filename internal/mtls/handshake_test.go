package mtls_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

// wantRefused asserts that the server refused for that reason, and that the client
// was not served.
func wantRefused(t *testing.T, o outcome, want string) {
	t.Helper()
	if o.server == nil || !strings.Contains(o.server.Error(), want) {
		t.Errorf("the server says %v; want %q", o.server, want)
	}
	if o.client == nil {
		t.Error("the client was served")
	}
}

func TestHandshake(t *testing.T) {
	w := newWorld(t, "c1", mtls.Node)
	alpha := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	beta := w.party(authority.Leaf{Name: w.name(mtls.Node, "beta")})
	anna := w.party(authority.Leaf{Name: w.name(mtls.Person, "anna@example.org")})
	w.adopt(alpha, beta, anna)
	who := func(cs tls.ConnectionState) (mtls.Identity, error) { return alpha.Peer(cs, mtls.Node, mtls.Person) }
	nodes := func() *tls.Config { return serverOf(t, alpha, false, mtls.Node, mtls.Person) }
	toAlpha := w.name(mtls.Node, "alpha")

	t.Run("let in", func(t *testing.T) {
		for _, f := range []*mtls.Files{beta, anna} {
			o := meet(t, nodes(), clientOf(t, f, toAlpha), who)
			id, _ := f.Identity()
			if o.server != nil || o.client != nil || o.id != id || id.Name.Name == "" {
				t.Errorf("%+v, want %v", o, id)
			}
		}
		if said := w.told(); len(said) > 0 {
			t.Errorf("doubts about good certificates: %q", said)
		}
	})
	t.Run("without a certificate", func(t *testing.T) {
		pin := w.a.Identity().Pin
		c, err := toAlpha.Pinned(pin[:32], time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if o := meet(t, nodes(), c, who); o.server != nil || o.client != nil || o.id.Pin != "" {
			t.Errorf("%+v", o)
		}
		wantRefused(t, meet(t, serverOf(t, alpha, true, mtls.Node), c, who), "client didn't provide a certificate")
		other, _ := toAlpha.Pinned(strings.Repeat("0", 32), time.Now)
		if o := meet(t, nodes(), other, who); o.client == nil || !strings.Contains(o.client.Error(), "not of the cluster that was meant") {
			t.Errorf("another authority's pin: %v", o.client)
		}
	})
	t.Run("a role that has no business there", func(t *testing.T) {
		wantRefused(t, meet(t, serverOf(t, alpha, false, mtls.Node), clientOf(t, anna, toAlpha), who), "the role person has no business here")
	})
	t.Run("another server than meant", func(t *testing.T) {
		o := meet(t, nodes(), clientOf(t, beta, w.name(mtls.Node, "gamma")), who)
		if o.client == nil || !strings.Contains(o.client.Error(), "alpha answered where") {
			t.Errorf("%v", o.client)
		}
		if o := meet(t, nodes(), clientOf(t, beta, mtls.Name{Cluster: "c1", Role: mtls.Node}), who); o.client != nil {
			t.Errorf("any node: %v", o.client)
		}
	})
	t.Run("a person as the server", func(t *testing.T) {
		o := meet(t, serverOf(t, anna, false, mtls.Node), clientOf(t, beta, w.name(mtls.Person, "anna@example.org")), nil)
		if o.client == nil || !strings.Contains(o.client.Error(), "incompatible key usage") {
			t.Errorf("%v", o.client)
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		c := clientOf(t, beta, toAlpha)
		c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		wantRefused(t, meet(t, nodes(), c, who), "unsupported versions")
	})
	t.Run("another cluster", func(t *testing.T) {
		x := newWorld(t, "c2", mtls.Node)
		f := x.party(authority.Leaf{Name: x.name(mtls.Node, "beta")})
		c := clientOf(t, f, toAlpha)
		o := meet(t, nodes(), c, who)
		if o.client == nil || !strings.Contains(o.client.Error(), "is of another cluster") {
			t.Errorf("the client says %v", o.client)
		}
		c.VerifyConnection = nil
		wantRefused(t, meet(t, nodes(), c, who), "is of another cluster")
	})
	t.Run("another plane", func(t *testing.T) {
		x := newWorld(t, "c1", mtls.Agent)
		f := x.party(authority.Leaf{Name: x.name(mtls.Agent, "beta")})
		c := clientOf(t, f, x.name(mtls.Manager, "alpha"))
		c.VerifyConnection = nil
		wantRefused(t, meet(t, serverOf(t, alpha, false, mtls.Node, mtls.Agent), c, who), "does not vouch for the role agent")
	})
}

// TestPlanes: each plane for itself, the right caller and the right one called.
func TestPlanes(t *testing.T) {
	agents := newWorld(t, "c1", mtls.Agent)
	guest := agents.party(authority.Leaf{Name: agents.name(mtls.Agent, "web.guest-1")})
	other := agents.party(authority.Leaf{Name: agents.name(mtls.Agent, "web.guest-2")})
	manager := agents.party(authority.Leaf{Name: agents.name(mtls.Manager, "alpha")})
	agents.adopt(guest, other, manager)
	to := agents.name(mtls.Agent, "web.guest-1")
	server := serverOf(t, guest, true, mtls.Manager)
	if o := meet(t, server, clientOf(t, manager, to), nil); o.server != nil || o.client != nil {
		t.Errorf("a manager: %+v", o)
	}
	wantRefused(t, meet(t, server, clientOf(t, other, to), nil), "the role agent has no business here")
	nodes := newWorld(t, "c1", mtls.Node)
	c := clientOf(t, nodes.party(authority.Leaf{Name: nodes.name(mtls.Node, "alpha")}), to)
	c.VerifyConnection = nil
	wantRefused(t, meet(t, server, c, nil), "does not vouch for the role node")
	wantRefused(t, meet(t, serverOf(t, guest, true, mtls.Manager), func() *tls.Config {
		c, err := to.Pinned(agents.a.Identity().Pin, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}(), nil), "client didn't provide a certificate")
}

// BenchmarkHandshake is one connection with certificates both ways and one byte
// each; own is by these configurations, plain by Go's own rules.
func BenchmarkHandshake(b *testing.B) {
	dir := b.TempDir()
	w := &world{t: b, cluster: "c1", now: time.Now()}
	a, err := authority.Create(filepath.Join(dir, "authority.pem"), "c1", mtls.Node, w.now)
	if err != nil {
		b.Fatal(err)
	}
	f := &mtls.Files{Dir: dir}
	csr, err := f.Request()
	if err != nil {
		b.Fatal(err)
	}
	name := w.name(mtls.Node, "alpha")
	chain, trust, err := a.Issue(csr, authority.Leaf{Name: name, DNS: []string{"alpha"}}, a.Trust(w.now), w.now)
	if err != nil {
		b.Fatal(err)
	}
	if err := errors.Join(f.Adopt(trust), f.Install(chain)); err != nil {
		b.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "leaf.pem"), filepath.Join(dir, "leaf.pem"))
	if err != nil {
		b.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	plain := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "alpha", SessionTicketsDisabled: true,
	}
	for kind, c := range map[string][2]*tls.Config{
		"own": {serverOf(b, f, true, mtls.Node), clientOf(b, f, name)}, "plain": {plain, plain},
	} {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				if o := meet(b, c[0], c[1], nil); o.server != nil || o.client != nil {
					b.Fatalf("%+v", o)
				}
			}
		})
	}
}

// TestForged has certificates that an authority would never sign, signed by it;
// and some that it did not sign.
func TestForged(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, "c1", mtls.Node)
	key := filepath.Join(dir, "authority.pem")
	a, err := authority.Create(key, "c1", mtls.Node, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.a, w.trust = a, a.Trust(w.now)
	alpha := w.party(authority.Leaf{Name: w.name(mtls.Node, "alpha")})
	server := serverOf(t, alpha, true, mtls.Node, mtls.Person, mtls.Agent)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uris := func(all ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, s := range all {
				c.URIs = append(c.URIs, link(s))
			}
		}
	}
	for _, c := range []struct {
		name   string
		key    crypto.Signer
		change func(*x509.Certificate)
		want   string
	}{
		{"as it should be", nil, func(*x509.Certificate) {}, ""},
		{"no URI", nil, uris(), "has 0 URI names"},
		{"common name only", nil, func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: "gemel://c1/node/beta"} }, "has 0 URI names"},
		{"two URIs", nil, uris("gemel://c1/node/beta", "gemel://c1/node/alpha"), "has 2 URI names"},
		{"a foreign URI as well", nil, uris("gemel://c1/node/beta", "spiffe://c1/beta"), "has 2 URI names"},
		{"another scheme", nil, uris("spiffe://c1/node/beta"), "is not gemel://"},
		{"another cluster", nil, uris("gemel://c2/node/beta"), "is of another cluster"},
		{"another plane", nil, uris("gemel://c1/agent/beta"), "does not vouch"},
		{"the authority's role", nil, uris("gemel://c1/authority/nodes"), "does not vouch"},
		{"wildcard", nil, uris("gemel://c1/node/*"), "first a letter or digit"},
		{"wildcard host", nil, uris("gemel://*/node/beta"), "the cluster's id"},
		{"escape", nil, uris("gemel://c1/node/b%65ta"), "letters, digits"},
		{"query", nil, uris("gemel://c1/node/beta?x=1"), "letters, digits"},
		{"port", nil, uris("gemel://c1:1/node/beta"), "the cluster's id"},
		{"upper case scheme", nil, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "GEMEL", Host: "c1", Path: "/node/beta"}} }, ""},
		{"wildcard DNS", nil, func(c *x509.Certificate) { c.DNSNames = []string{"*.example.org"} }, "wildcard"},
		{"an authority", nil, func(c *x509.Certificate) { c.IsCA = true }, "could sign others"},
		{"key usage of an authority", nil, func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }, "could sign others"},
		{"no basic constraints", nil, func(c *x509.Certificate) { c.BasicConstraintsValid = false }, "could sign others"},
		{"RSA", small, func(*x509.Certificate) {}, "too weak or of another kind"},
		{"P-224", p224, func(*x509.Certificate) {}, "too weak"},
		{"server only", nil, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "incompatible key usage"},
		{"expired, not known", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired at"},
		{"outlives the authority", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(11 * 365 * 24 * time.Hour) }, "expired"},
		{"not yet valid person", nil, func(c *x509.Certificate) {
			uris("gemel://c1/person/anna")(c)
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}, "not valid before"},
		{"10,000 names", nil, func(c *x509.Certificate) {
			for range 2000 {
				c.DNSNames = append(c.DNSNames, "a.example.org")
			}
		}, "at most 8192 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := clientOf(t, alpha, w.name(mtls.Node, "alpha"))
			cert := w.forged(key, c.key, c.change)
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
			o := meet(t, server, client, nil)
			if c.want != "" {
				wantRefused(t, o, c.want)
			} else if o.server != nil || o.client != nil {
				t.Errorf("%+v", o)
			}
			// And as a server, to a client that trusts the same authority.
			if c.want == "" || c.name == "server only" || c.name == "P-224" || strings.Contains(c.name, "person") {
				return
			}
			bad := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
			if o := meet(t, bad, clientOf(t, alpha, w.name(mtls.Node, "beta")), nil); o.client == nil || !strings.Contains(o.client.Error(), c.want) {
				t.Errorf("as a server: %v, want %q", o.client, c.want)
			}
		})
	}

	t.Run("signed by itself", func(t *testing.T) {
		self, err := authority.Create(filepath.Join(dir, "other.pem"), "c1", mtls.Node, w.now)
		if err != nil {
			t.Fatal(err)
		}
		x := &world{t: t, cluster: "c1", a: self, now: w.now, trust: self.Trust(w.now)}
		client := clientOf(t, x.party(authority.Leaf{Name: w.name(mtls.Node, "beta")}), w.name(mtls.Node, "alpha"))
		client.VerifyConnection = nil
		wantRefused(t, meet(t, server, client, nil), "unknown authority")
	})
	t.Run("signed by a leaf", func(t *testing.T) {
		client := clientOf(t, alpha, w.name(mtls.Node, "alpha"))
		cert := w.forged(filepath.Join(alpha.Dir, "leaf.pem"), nil, func(*x509.Certificate) {})
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		wantRefused(t, meet(t, server, client, nil), "unknown authority")
	})
	t.Run("a long chain", func(t *testing.T) {
		client := clientOf(t, alpha, w.name(mtls.Node, "alpha"))
		cert := w.forged(key, nil, func(*x509.Certificate) {})
		for range 20 {
			cert.Certificate = append(cert.Certificate, cert.Certificate[1])
		}
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		wantRefused(t, meet(t, server, client, nil), "at most 3 are allowed")
	})
	t.Run("somebody else's certificate", func(t *testing.T) {
		client := clientOf(t, alpha, w.name(mtls.Node, "alpha"))
		cert := w.forged(key, nil, func(*x509.Certificate) {})
		cert.PrivateKey = w.forged(key, nil, func(*x509.Certificate) {}).PrivateKey
		client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		wantRefused(t, meet(t, server, client, nil), "invalid signature")
	})
	t.Run("plain text", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			c, err := net.Dial("tcp", l.Addr().String())
			if err == nil {
				_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
				c.Close()
			}
		}()
		raw, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
		if err := tls.Server(raw, server).Handshake(); err == nil {
			t.Error("plain text was taken")
		}
	})
}
