package mtls

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// What a party may present: its certificate, and the authority's.
const (
	maxChain = 3
	maxCert  = 8 << 10
	leeway   = 24 * time.Hour // how far two clocks may be apart without a word
)

// A judge knows all that a verdict needs but the certificate.
type judge struct {
	trust *Trust
	pool  *x509.CertPool
	now   time.Time
	// floor is the latest instant at which something was signed or written, by the
	// clock of whoever did it. A clock before it disagrees with that one.
	floor time.Time
}

func newJudge(t *Trust, now, floor time.Time) (*judge, error) {
	pool := x509.NewCertPool()
	for _, der := range t.Authorities {
		a, err := t.authority(der)
		if err != nil {
			return nil, err
		}
		pool.AddCert(a)
		floor = later(floor, issued(a))
	}
	return &judge{t, pool, now, later(floor, t.Changed)}, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// verdict says who presented a chain, with a doubt that somebody should hear of,
// or why it is refused.
func (j *judge) verdict(chain []*x509.Certificate, use x509.ExtKeyUsage) (id Identity, doubt string, err error) {
	if len(chain) == 0 {
		return id, "", errors.New("no certificate was presented")
	}
	if len(chain) > maxChain {
		return id, "", fmt.Errorf("a chain of %d certificates was presented; at most %d are allowed", len(chain), maxChain)
	}
	leaf := chain[0]
	if len(leaf.Raw) > maxCert {
		return id, "", fmt.Errorf("a certificate of %d bytes was presented; at most %d are allowed", len(leaf.Raw), maxCert)
	}
	if id, err = Identify(leaf); err != nil {
		return id, "", err
	}
	if id.Name.Cluster != j.trust.Cluster {
		return id, "", fmt.Errorf("%v is of another cluster; this one is %s", id.Name, j.trust.Cluster)
	}
	if plane := id.Name.Role.plane(); plane != j.trust.Plane {
		return id, "", fmt.Errorf("%v: the authority for %s does not vouch for the role %s", id.Name, j.trust.Plane, id.Name.Role)
	}
	if leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return id, "", fmt.Errorf("the certificate of %v could sign others; only an authority's may", id.Name)
	}
	if !strong(leaf.PublicKey) {
		return id, "", fmt.Errorf("the key of %v is too weak or of another kind; ECDSA from P-256 on and Ed25519 are allowed", id.Name)
	}
	// The time is judged below. Authorities sign nothing that outlives them.
	_, err = leaf.Verify(x509.VerifyOptions{Roots: j.pool, CurrentTime: leaf.NotAfter, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return id, "", fmt.Errorf("the certificate of %v: %w", id.Name, err)
	}
	if r := j.trust.Reason(leaf); r != nil {
		return id, "", fmt.Errorf("the certificate of %v was revoked at %s%s", id.Name, stamp(r.At), because(r.Why))
	}
	doubt, err = j.timely(leaf, id)
	return id, doubt, err
}

// timely judges the validity of a certificate that is otherwise good, by decision
// 0161: a wrong clock must not take a cluster apart.
func (j *judge) timely(leaf *x509.Certificate, id Identity) (doubt string, err error) {
	at, role := j.now, id.Name.Role
	wrong := at.Before(j.floor.Add(-leeway))
	if wrong {
		// This clock is wrong, or the one was by which something was signed. People
		// have another way in; machines have none.
		doubt = fmt.Sprintf("the clock of this machine says %s, but something was signed at %s: one of the two clocks is wrong; set it. "+
			"Until then only people's certificates are judged strictly", stamp(j.now), stamp(j.floor))
		if role == Person {
			at = j.floor
		}
	}
	switch {
	case at.After(leaf.NotAfter):
		text := fmt.Sprintf("the certificate of %v expired at %s; the clock of this machine says %s", id.Name, stamp(leaf.NotAfter), stamp(j.now))
		if (role == Node || role == Witness) && j.trust.known(id) {
			return text + ". It is accepted because its key is known here; it must be renewed, or the clock set", nil
		}
		return "", errors.New(text + ". Renew the certificate, or set the clock")
	case wrong:
		return doubt, nil
	case at.Before(leaf.NotBefore):
		text := fmt.Sprintf("the certificate of %v is not valid before %s; the clock of this machine says %s: one of the two clocks is wrong",
			id.Name, stamp(leaf.NotBefore), stamp(j.now))
		if role == Person || role == Agent {
			return "", errors.New(text)
		}
		return text, nil
	}
	return "", nil
}

// strong reports that a public key is one of those that are allowed.
func strong(key any) bool {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize >= 256
	case ed25519.PublicKey:
		return true
	}
	return false
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func because(why string) string {
	if why == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", why)
}
