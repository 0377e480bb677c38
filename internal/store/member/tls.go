package member

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"gemel/internal/store"
)

// greet makes a connection that came in one of the other voter's.
//
// may says which voters there are.
func greet(ctx context.Context, t store.TLS, c net.Conn, may func(name string) bool) (net.Conn, error) {
	if t == (store.TLS{}) {
		return c, nil
	}
	conf, err := voter(t, x509.ExtKeyUsageClientAuth, may)
	if err != nil {
		return nil, err
	}
	conf.ClientAuth = tls.RequireAnyClientCert // who it is, is looked at in voter
	s := tls.Server(c, conf)
	return s, s.HandshakeContext(ctx)
}

// call makes a connection that went out one of the other voter's.
//
// name is the voter that is meant.
func call(ctx context.Context, t store.TLS, c net.Conn, name string) (net.Conn, error) {
	if t == (store.TLS{}) {
		return c, nil
	}
	conf, err := voter(t, x509.ExtKeyUsageServerAuth, func(n string) bool { return n == name })
	if err != nil {
		return nil, err
	}
	// A voter is known by its role, not by the address that it has on this network.
	conf.InsecureSkipVerify = true // it is verified in voter
	s := tls.Client(c, conf)
	return s, s.HandshakeContext(ctx)
}

// voter returns what both ends have in common. All files are read anew.
func voter(t store.TLS, use x509.ExtKeyUsage, may func(string) bool) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("our certificate for the other voters: %w", err)
	}
	authority, err := os.ReadFile(t.CA)
	if err != nil {
		return nil, fmt.Errorf("the authority of the voters: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("the authority of the voters: %s holds no certificate", t.CA)
	}
	list, err := revoked(t)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return admit(t, s.PeerCertificates, peerRule{roots, use, list, may})
		},
	}, nil
}

// peerRule is what the certificate of another voter is judged by.
type peerRule struct {
	roots   *x509.CertPool
	use     x509.ExtKeyUsage
	revoked *x509.RevocationList
	may     func(name string) bool
}

// admit says why the certificate of another voter is not taken, or nil.
func admit(t store.TLS, certs []*x509.Certificate, by peerRule) error {
	if len(certs) == 0 {
		return errors.New("it shows no certificate")
	}
	leaf, between := certs[0], x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: by.roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{by.use}})
	if err != nil {
		return err
	}
	var names []string
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	if !slices.ContainsFunc(names, func(n string) bool { return fits(t, n, by.may) }) {
		return fmt.Errorf("its certificate is for %q and not for %q, or for another voter than was meant", names, t.Role)
	}
	revoked := by.revoked
	if revoked == nil {
		return nil
	}
	for _, chain := range chains {
		if len(chain) > 1 && revoked.CheckSignatureFrom(chain[1]) == nil {
			for _, r := range revoked.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(leaf.SerialNumber) == 0 {
					return fmt.Errorf("its certificate %x was revoked", leaf.SerialNumber)
				}
			}
			return nil
		}
	}
	return fmt.Errorf("the list of revoked certificates %s is not of the authority that signed its certificate", t.CRL)
}

// fits reports whether a URI name is that of a voter who may be at the other end.
func fits(t store.TLS, uri string, may func(name string) bool) bool {
	if !strings.HasSuffix(t.Role, "/") {
		return uri == t.Role
	}
	name, ok := strings.CutPrefix(uri, t.Role)
	return ok && may(name)
}

// revoked reads the list of revoked certificates; nil: there is none.
func revoked(t store.TLS) (*x509.RevocationList, error) {
	if t.CRL == "" {
		return nil, nil
	}
	b, err := os.ReadFile(t.CRL)
	if err != nil {
		return nil, fmt.Errorf("the list of revoked certificates: %w", err)
	}
	if block, _ := pem.Decode(b); block != nil {
		b = block.Bytes
	}
	l, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, fmt.Errorf("the list of revoked certificates %s: %w", t.CRL, err)
	}
	return l, nil
}
