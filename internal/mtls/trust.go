package mtls

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Bounds of a Trust, so that no file or message of it is without one.
const (
	maxAuthorities = 8
	maxRecords     = 50_000
	generations    = 3 // keys of one party that are good at once
)

// A Trust is what the parties of one plane (nodes, store or agents) believe: whose
// signature counts, which certificates were given out, and which of them count no
// more. It is one value for the whole cluster: its keeper changes it with the
// methods below, each of which raises the version, and gives it to all.
type Trust struct {
	Cluster string    `json:"cluster"`
	Plane   string    `json:"plane"` // nodes, store or agents
	Version uint64    `json:"version"`
	Changed time.Time `json:"changed"` // by the clock of who changed it; certainly past
	// Authorities are all good at once, DER. While an authority is replaced there are
	// two: the new one is trusted everywhere before it signs anything.
	Authorities [][]byte `json:"authorities"`
	// Given are certificates that were given out and are not replaced. Those of
	// nodes are known ones: they do not stop counting by time alone.
	Given   []given      `json:"given,omitempty"`
	Revoked []Revocation `json:"revoked,omitempty"`
}

// given is a certificate that was given out.
type given struct {
	Name   Name      `json:"name"`
	Serial string    `json:"serial"` // hexadecimal
	Pin    string    `json:"pin"`
	Until  time.Time `json:"until"`
	By     string    `json:"by,omitempty"` // the number of the authority that signed it
}

// A Revocation takes back one certificate, or everything that a name was given
// until then.
type Revocation struct {
	Serial string    `json:"serial,omitempty"` // one certificate, hexadecimal
	Name   *Name     `json:"name,omitempty"`   // all that were issued to it at At or before
	At     time.Time `json:"at"`
	Why    string    `json:"why,omitempty"`
}

// plainTrust has no methods.
type plainTrust Trust

// UnmarshalJSON refuses what is not a whole and valid Trust.
func (t *Trust) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var p plainTrust
	if err := dec.Decode(&p); err != nil {
		return fmt.Errorf("reading whom to trust: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("reading whom to trust: there is something behind its end")
	}
	*t = Trust(p)
	return t.Check()
}

// Check finds what is wrong with a Trust.
func (t *Trust) Check() error {
	if len(t.Authorities) < 1 || len(t.Authorities) > maxAuthorities {
		return fmt.Errorf("whom to trust: %d authorities; 1 to %d are allowed", len(t.Authorities), maxAuthorities)
	}
	if len(t.Given) > maxRecords || len(t.Revoked) > maxRecords {
		return fmt.Errorf("whom to trust: %d certificates and %d revocations; at most %d each are allowed", len(t.Given), len(t.Revoked), maxRecords)
	}
	for _, der := range t.Authorities {
		if _, err := t.authority(der); err != nil {
			return fmt.Errorf("whom to trust: %w", err)
		}
	}
	for _, r := range t.Revoked {
		if (r.Serial == "") == (r.Name == nil) {
			return errors.New("whom to trust: a revocation has either a serial number or a name")
		}
	}
	return nil
}

// authority reads a certificate that is to be trusted.
func (t *Trust) authority(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: %w", err)
	}
	id, err := Identify(c)
	if err != nil {
		return nil, fmt.Errorf("reading an authority: %w", err)
	}
	if want := (Name{t.Cluster, authority, t.Plane}); id.Name != want {
		return nil, fmt.Errorf("the authority %v is not %v", id.Name, want)
	}
	if !c.IsCA || !c.BasicConstraintsValid || c.KeyUsage&x509.KeyUsageCertSign == 0 || !strong(c.PublicKey) {
		return nil, fmt.Errorf("%v is not the certificate of an authority", id.Name)
	}
	if err := c.CheckSignatureFrom(c); err != nil {
		return nil, fmt.Errorf("the authority %v is not signed by itself: %w", id.Name, err)
	}
	return c, nil
}

func (t *Trust) clone(at time.Time) *Trust {
	c := *t
	c.Authorities = slices.Clone(t.Authorities)
	c.Given = slices.Clone(t.Given)
	c.Revoked = slices.Clone(t.Revoked)
	c.Version++
	if at.After(c.Changed) {
		c.Changed = at.UTC().Truncate(time.Second)
	}
	return &c
}

// With adds an authority. One that is there already changes nothing.
func (t *Trust) With(a *x509.Certificate, at time.Time) (*Trust, error) {
	if slices.ContainsFunc(t.Authorities, func(b []byte) bool { return bytes.Equal(a.Raw, b) }) {
		return t, nil
	}
	c := t.clone(at)
	c.Authorities = append(c.Authorities, a.Raw)
	return c, c.Check()
}

// Without takes an authority away, by the pin of its key. Everything that it
// signed is refused from then on. The last one stays.
func (t *Trust) Without(pin string, at time.Time) (*Trust, error) {
	c := t.clone(at)
	c.Authorities = slices.DeleteFunc(c.Authorities, func(der []byte) bool {
		a, err := t.authority(der)
		if err != nil {
			return false
		}
		id, err := Identify(a)
		return err == nil && id.Pin == pin
	})
	switch len(c.Authorities) {
	case len(t.Authorities):
		return nil, fmt.Errorf("no authority with the key %.16s is trusted", pin)
	case 0:
		return nil, errors.New("this is the only authority that is trusted: without it nobody is. Add the new one first")
	}
	return c, nil
}

// Give notes a certificate as given out. Of a node, witness, peer or manager three
// keys are good at once; older ones are revoked by this.
func (t *Trust) Give(cert *x509.Certificate, at time.Time) (*Trust, error) {
	id, err := Identify(cert)
	if err != nil {
		return nil, fmt.Errorf("noting a certificate: %w", err)
	}
	if id.Name.Cluster != t.Cluster || id.Name.Role.plane() != t.Plane {
		return nil, fmt.Errorf("noting a certificate: %v does not belong to the %s of cluster %s", id.Name, t.Plane, t.Cluster)
	}
	c := t.clone(at)
	now := given{id.Name, serial(cert), id.Pin, cert.NotAfter.UTC(), id.By}
	c.Given = slices.DeleteFunc(c.Given, func(g given) bool {
		return g == now || g.Name == now.Name && g.Until.Before(at) && g.Pin != now.Pin
	})
	c.Given = append(c.Given, now)
	if r := id.Name.Role; r != Person && r != Agent {
		c.retire(id.Name, at)
	}
	return c, c.Check()
}

// retire revokes what is older than the last few keys of a party.
func (t *Trust) retire(name Name, at time.Time) {
	var pins []string
	for _, g := range slices.Backward(t.Given) {
		if g.Name == name && !slices.Contains(pins, g.Pin) {
			pins = append(pins, g.Pin)
		}
	}
	if len(pins) <= generations {
		return
	}
	old := pins[generations:]
	t.Given = slices.DeleteFunc(t.Given, func(g given) bool {
		if g.Name != name || !slices.Contains(old, g.Pin) {
			return false
		}
		t.Revoked = append(t.Revoked, Revocation{Serial: g.Serial, At: at.UTC().Truncate(time.Second), Why: "replaced"})
		return true
	})
}

// Revoke takes certificates back: that with a serial number, or all that a name
// was given until now. A name may be given new ones from the next second on.
func (t *Trust) Revoke(r Revocation) (*Trust, error) {
	if r.At.IsZero() {
		return nil, errors.New("revoking a certificate: at which instant?")
	}
	if r.Serial != "" {
		n, ok := new(big.Int).SetString(strings.ReplaceAll(r.Serial, ":", ""), 16)
		if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
			return nil, fmt.Errorf("revoking a certificate: the serial number %.60q is not a hexadecimal one", r.Serial)
		}
		r.Serial = fmt.Sprintf("%032x", n)
	}
	c := t.clone(r.At)
	r.At = r.At.UTC().Truncate(time.Second)
	// A certificate from a clock that ran ahead must not survive its own name.
	if r.Name != nil {
		for _, g := range c.Given {
			if g.Name == *r.Name {
				c.Revoked = append(c.Revoked, Revocation{Serial: g.Serial, At: r.At, Why: r.Why})
			}
		}
	}
	c.Revoked = append(c.Revoked, r)
	c.Given = slices.DeleteFunc(c.Given, func(g given) bool {
		return r.Name != nil && g.Name == *r.Name || r.Serial != "" && g.Serial == r.Serial
	})
	return c, c.Check()
}

// Retime says that it is at now, whatever the clocks said by which the Trust was
// changed before: an operator's word after one of them was wrong by far. Nothing that
// was revoked becomes good by it.
func (t *Trust) Retime(at time.Time) *Trust {
	c := t.clone(at)
	c.Changed = at.UTC().Truncate(time.Second)
	for i, r := range c.Revoked {
		if r.At.After(at) { // its certificates are revoked by their numbers as well
			c.Revoked[i].At = c.Changed
		}
	}
	return c
}

// Reason finds the revocation of a certificate, nil if there is none.
func (t *Trust) Reason(cert *x509.Certificate) *Revocation {
	id, err := Identify(cert)
	if err != nil {
		return nil // it passes nowhere
	}
	number := serial(cert)
	for i, r := range t.Revoked {
		if r.Serial == number && number != "" || r.Name != nil && *r.Name == id.Name && !id.Issued.After(r.At) {
			return &t.Revoked[i]
		}
	}
	return nil
}

// known reports that a certificate is among those that were given out.
func (t *Trust) known(id Identity) bool {
	return slices.ContainsFunc(t.Given, func(g given) bool { return g.Name == id.Name && g.Pin == id.Pin })
}

// List lists the authorities and what they gave out. Do is empty where nothing is wrong.
func (t *Trust) List(now time.Time) ([]Expiry, error) {
	var out []Expiry
	add := func(e Expiry, soon time.Duration) {
		e.Left = e.Until.Sub(now)
		switch {
		case e.Left <= 0:
			e.Do = "it has expired"
		case e.Left < soon:
			e.Do = "it ends soon"
		}
		out = append(out, e)
	}
	for _, der := range t.Authorities {
		a, err := t.authority(der)
		if err != nil {
			return nil, err
		}
		id, err := Identify(a)
		if err != nil {
			return nil, err
		}
		add(Expiry{Name: id.Name, Until: a.NotAfter, By: id.By, Signs: true}, warnAuthority)
	}
	for _, g := range t.Given {
		add(Expiry{Name: g.Name, Until: g.Until, By: g.By}, warnLeaf)
	}
	return out, nil
}

// PEM is the authorities as other programs read them, etcd's TrustedCAFile.
func (t *Trust) PEM() []byte {
	var out []byte
	for _, der := range t.Authorities {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}

// serial is the number of a certificate as Trust has it.
func serial(c *x509.Certificate) string {
	if c.SerialNumber == nil {
		return ""
	}
	return fmt.Sprintf("%032x", c.SerialNumber)
}
