package mtls_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

// world is a plane of a cluster with an authority.
type world struct {
	t       testing.TB
	a       *authority.Authority
	trust   *mtls.Trust
	cluster string
	now     time.Time
	mu      sync.Mutex
	said    []string
}

func newWorld(t *testing.T, cluster string, role mtls.Role) *world {
	t.Helper()
	w := &world{t: t, cluster: cluster, now: time.Now()}
	a, err := authority.Create(filepath.Join(t.TempDir(), "authority.pem"), cluster, role, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.a, w.trust = a, a.Trust(w.now)
	return w
}

func (w *world) name(role mtls.Role, name string) mtls.Name {
	return mtls.Name{Cluster: w.cluster, Role: role, Name: name}
}

// files makes the directory of a party that has no certificate yet.
func (w *world) files() *mtls.Files {
	return &mtls.Files{Dir: w.t.TempDir(), Tell: func(s string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.said = append(w.said, s)
	}}
}

func (w *world) told() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	said := w.said
	w.said = nil
	return said
}

// party makes the files of one with a certificate.
func (w *world) party(l authority.Leaf) *mtls.Files {
	w.t.Helper()
	f := w.files()
	w.renew(f, l, w.now)
	return f
}

// renew gives a party a new certificate, and it alone the Trust.
func (w *world) renew(f *mtls.Files, l authority.Leaf, at time.Time) {
	w.t.Helper()
	csr, err := f.Request()
	if err != nil {
		w.t.Fatal(err)
	}
	chain, trust, err := w.a.Issue(csr, l, w.trust, at)
	if err != nil {
		w.t.Fatal(err)
	}
	w.trust = trust
	if err := f.Adopt(trust); err != nil {
		w.t.Fatal(err)
	}
	if err := f.Install(chain); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) adopt(files ...*mtls.Files) {
	w.t.Helper()
	for _, f := range files {
		if err := f.Adopt(w.trust); err != nil {
			w.t.Fatal(err)
		}
	}
}

// outcome is how a connection went at both ends.
type outcome struct {
	server, client error
	id             mtls.Identity // of the client, as the server has it; zero: it gave none
}

// meet makes one connection over loopback and passes one byte each way, which in
// TLS 1.3 is what tells the client that it was let in.
func meet(t testing.TB, server, client *tls.Config, who func(tls.ConnectionState) (mtls.Identity, error)) outcome {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	defer l.Close()
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			out.server = err
			return
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
		conn := tls.Server(raw, server)
		if out.server = conn.Handshake(); out.server != nil {
			return
		}
		if who != nil && len(conn.ConnectionState().PeerCertificates) > 0 {
			out.id, out.server = who(conn.ConnectionState())
		}
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil && out.server == nil {
			out.server = err
			return
		}
		_, _ = conn.Write([]byte("x"))
		_ = conn.CloseWrite()
	}()
	out.client = call(l.Addr().String(), client)
	<-done
	return out
}

func call(address string, config *tls.Config) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

func serverOf(t testing.TB, f *mtls.Files, need bool, roles ...mtls.Role) *tls.Config {
	t.Helper()
	c, err := f.Server(nil, need, roles...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func clientOf(t testing.TB, f *mtls.Files, server mtls.Name) *tls.Config {
	t.Helper()
	c, err := f.Client(nil, server)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// forged is a certificate that no authority of ours would sign, though its key did.
func (w *world) forged(dir string, key crypto.Signer, change func(c *x509.Certificate)) tls.Certificate {
	w.t.Helper()
	b, err := os.ReadFile(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serialAt(time.Now()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{link(w.name(mtls.Node, "beta").String())}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	change(c)
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			w.t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der, pair.Certificate[0]}, PrivateKey: key}
}

func serialAt(at time.Time) *big.Int {
	n := new(big.Int).Lsh(big.NewInt(at.Unix()), 80)
	return n.Add(n, big.NewInt(time.Now().UnixNano()))
}

func link(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

// leafOf reads the certificate in a directory.
func leafOf(t *testing.T, f *mtls.Files) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.Dir, "leaf.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			t.Fatal("no certificate in leaf.pem")
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
}
