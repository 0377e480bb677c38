// Package authority signs the certificates of a cluster. A cluster has three
// authorities, for nodes, for members of the store and for agents; see package
// mtls for the names and what each role is.
package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/secret"
)

const (
	lifetime   = 10 * 365 * 24 * time.Hour
	leafTime   = 365 * 24 * time.Hour
	backdate   = 24 * time.Hour
	maxRequest = 4 << 10
	maxSANs    = 64
	// silence is how long there may be no signature before the clock is doubted: each
	// node's certificates are renewed within a year.
	silence = 2 * 365 * 24 * time.Hour
)

// An Authority is a key that signs.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	id   mtls.Identity
}

// A Leaf is what a certificate is to say. The request has no part in it.
type Leaf struct {
	Name mtls.Name
	// For is how long it is valid; zero is a year. One of a peer is valid as long as
	// its authority, whatever is asked for: decision 0161.
	For time.Duration
	// IPs and DNS are for those who go by them: browsers at a node, and etcd, which
	// demands that a peer comes from one of its own addresses.
	IPs []netip.Addr
	DNS []string
}

// Create makes the authority that vouches for a role in a cluster, and writes its
// key and certificate to a file. One that is there is not touched.
func Create(path, cluster string, role mtls.Role, now time.Time) (*Authority, error) {
	name := role.Authority(cluster)
	if err := name.Check(); err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("making an authority: %s is there already; everything that it signed would be refused", path)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	number, err := serial(now)
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{CommonName: "gemel " + name.Name + " " + cluster},
		URIs:         []*url.URL{uri(name)},
		NotBefore:    time.Unix(0, 0), // decision 0161
		NotAfter:     now.Add(lifetime),
		IsCA:         true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("making an authority: %w", err)
	}
	b := append(block("PRIVATE KEY", private), block("CERTIFICATE", der)...)
	a, err := Parse(b)
	if err != nil {
		return nil, err
	}
	return a, secret.Write(path, b)
}

// Open reads the file of an authority.
func Open(path string) (*Authority, error) {
	b, err := secret.Read(path)
	if err != nil {
		return nil, err
	}
	a, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return a, nil
}

// Parse reads what is in the file of an authority: its key and its certificate.
func Parse(b []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("reading an authority: there is a certificate, but not that of an authority with a key of ECDSA")
	}
	id, err := mtls.Identify(pair.Leaf)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: %w", err)
	}
	return &Authority{pair.Leaf, key, id}, nil
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func uri(n mtls.Name) *url.URL {
	return &url.URL{Scheme: "gemel", Host: n.Cluster, Path: "/" + string(n.Role) + "/" + n.Name}
}

// serial draws a number that is unique without a count: 48 bits of the instant,
// which package mtls reads, and 80 random ones.
func serial(now time.Time) (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b[6:]); err != nil {
		return nil, err
	}
	s := now.Unix()
	if s <= 0 || s >= 1<<47 {
		return nil, fmt.Errorf("the clock of this machine says %v: set it", now.UTC())
	}
	for i := range 6 {
		b[i] = byte(s >> (40 - 8*i))
	}
	return new(big.Int).SetBytes(b), nil
}

// Identity is the name of the authority and the pin of its key.
func (a *Authority) Identity() mtls.Identity { return a.id }

// Certificate is the authority's own.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// Trust is the first one of a new cluster: this authority and nobody known.
func (a *Authority) Trust(now time.Time) *mtls.Trust {
	return &mtls.Trust{
		Cluster: a.id.Name.Cluster, Plane: a.id.Name.Name, Version: 1, Changed: now.UTC().Truncate(time.Second),
		Authorities: [][]byte{a.cert.Raw},
	}
}

// Check finds what is wrong with a request for a certificate: it has to be signed
// by the key that it asks for, which has to be a strong one. It returns the pin
// of that key.
func Check(csr []byte) (pin string, err error) {
	r, err := request(csr)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(r.PublicKey)
	if err != nil {
		return "", fmt.Errorf("reading a request for a certificate: %w", err)
	}
	return pinOf(der), nil
}

func request(csr []byte) (*x509.CertificateRequest, error) {
	if len(csr) > maxRequest {
		return nil, fmt.Errorf("a request for a certificate of %d bytes; at most %d are allowed", len(csr), maxRequest)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("reading a request for a certificate: %w", err)
	}
	switch k := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return nil, fmt.Errorf("a request for a certificate with a key of %s; P-256 is the weakest that is allowed", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("a request for a certificate with a key of %v; ECDSA from P-256 on and Ed25519 are allowed", r.PublicKeyAlgorithm)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("a request for a certificate is not signed by its own key: %w", err)
	}
	return r, nil
}

// Issue signs a certificate for the key of a request (DER), and says in it what l
// says and nothing that the request says. It returns PEM with the authority's
// certificate behind it, and notes the certificate in the Trust, which has to be
// given to all parties.
func (a *Authority) Issue(csr []byte, l Leaf, t *mtls.Trust, now time.Time) ([]byte, *mtls.Trust, error) {
	r, err := request(csr)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) ([]byte, *mtls.Trust, error) {
		return nil, nil, fmt.Errorf("signing a certificate for %v: %w", l.Name, err)
	}
	if err := a.may(l, t, now); err != nil {
		return fail(err)
	}
	template, err := a.template(l, now)
	if err != nil {
		return fail(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, r.PublicKey, a.key)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return fail(err)
	}
	if r := t.Reason(cert); r != nil {
		return fail(fmt.Errorf("all certificates of this name up to %v are revoked, and the clock of this machine says %v", r.At.UTC(), now.UTC()))
	}
	if t, err = t.Give(cert, now); err != nil {
		return fail(err)
	}
	return append(block("CERTIFICATE", der), block("CERTIFICATE", a.cert.Raw)...), t, nil
}

// may finds what forbids a signature.
func (a *Authority) may(l Leaf, t *mtls.Trust, now time.Time) error {
	if err := l.Name.Check(); err != nil {
		return err
	}
	if l.Name.Role.Authority(l.Name.Cluster) != a.id.Name {
		return fmt.Errorf("%v vouches for no %s of cluster %s", a.id.Name, l.Name.Role, l.Name.Cluster)
	}
	if len(l.IPs)+len(l.DNS) > maxSANs {
		return fmt.Errorf("%d addresses and host names; at most %d are allowed", len(l.IPs)+len(l.DNS), maxSANs)
	}
	trusted := false
	for _, der := range t.Authorities {
		trusted = trusted || string(der) == string(a.cert.Raw)
	}
	if !trusted {
		return errors.New("this authority is not trusted (yet, or any more): add it to those that are, give that to all parties, and sign then")
	}
	if now.Before(t.Changed.Add(-backdate)) || now.Before(a.id.Issued.Add(-backdate)) {
		return fmt.Errorf("the clock of this machine says %v, but something was signed at %v already: set the clock", now.UTC(), t.Changed.UTC())
	}
	if now.Sub(t.Changed) > silence {
		return fmt.Errorf("the clock of this machine says %v, but nothing was signed since %v, and certificates are renewed more often than that: "+
			"set the clock; if it is right, say so by a new date of the trust", now.UTC(), t.Changed.UTC())
	}
	if !now.Before(a.cert.NotAfter) {
		return fmt.Errorf("this authority expired at %v, and the clock of this machine says %v: set the clock, or make a new authority", a.cert.NotAfter, now.UTC())
	}
	return nil
}

func (a *Authority) template(l Leaf, now time.Time) (*x509.Certificate, error) {
	number, err := serial(now)
	if err != nil {
		return nil, err
	}
	life := l.For
	if life == 0 {
		life = leafTime
	}
	if life < time.Minute {
		return nil, fmt.Errorf("valid for %v; a minute is the shortest", life)
	}
	c := &x509.Certificate{
		SerialNumber: number,
		Subject:      pkix.Name{CommonName: string(l.Name.Role) + " " + clip(l.Name.Name)},
		URIs:         []*url.URL{uri(l.Name)},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},

		BasicConstraintsValid: true,
	}
	if l.Name.Role != mtls.Person {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if l.Name.Role == mtls.Peer {
		c.NotBefore, c.NotAfter = a.cert.NotBefore, a.cert.NotAfter
	}
	if c.NotAfter.After(a.cert.NotAfter) {
		c.NotAfter = a.cert.NotAfter
	}
	for _, ip := range l.IPs {
		if !ip.IsValid() || ip.Zone() != "" {
			return nil, fmt.Errorf("the address %v: an IPv4 or IPv6 address without an interface is needed", ip)
		}
		c.IPAddresses = append(c.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	for _, host := range l.DNS {
		if !hostName(host) {
			return nil, fmt.Errorf("the host name %q: letters, digits, dots and dashes are allowed, and no wildcard", host)
		}
		c.DNSNames = append(c.DNSNames, host)
	}
	return c, nil
}

// clip makes a name fit into a common name, which nobody here reads.
func clip(s string) string { return s[:min(len(s), 48)] }

func hostName(s string) bool {
	if s == "" || len(s) > 253 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-') {
			return false
		}
	}
	return true
}

// CRL lists the revoked serial numbers as etcd reads them (DER), also if there are
// none: etcd refuses everybody if the file is missing.
func (a *Authority) CRL(t *mtls.Trust, now time.Time) ([]byte, error) {
	list := &x509.RevocationList{
		Number: new(big.Int).SetUint64(t.Version), ThisUpdate: now, NextUpdate: a.cert.NotAfter,
	}
	for _, r := range t.Revoked {
		if n, ok := new(big.Int).SetString(r.Serial, 16); ok && r.Serial != "" {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
				x509.RevocationListEntry{SerialNumber: n, RevocationTime: r.At})
		}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		return nil, fmt.Errorf("making the list of what %v revoked: %w", a.id.Name, err)
	}
	return der, nil
}

func pinOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
