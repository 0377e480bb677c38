package mtls

import (
	"crypto/x509"
	"fmt"
	"hash/fnv"
	"time"
)

// Warnings begin so long before the end, that of a certificate also when a third of its
// life is left: it should have been renewed by then. An authority needs more: all parties
// have to get new certificates while both are trusted.
const (
	warnLeaf      = 30 * 24 * time.Hour
	warnAuthority = 180 * 24 * time.Hour
	term          = 365 * 24 * time.Hour // after which a key should be another one, however long its certificate is valid
)

// An Expiry is the end of a certificate.
type Expiry struct {
	Name  Name
	Until time.Time
	Left  time.Duration // negative: it is over
	Do    string        // what somebody should do
	By    string        // the number of the authority that signed it, or that it is; empty: it is not known
	Signs bool          // it is that of an authority
}

// Warn lists what ends soon, by the clock now: the own certificate, when renewal
// should have happened long ago, and authorities.
func (f *Files) Warn(now time.Time) ([]Expiry, error) {
	s, err := f.current()
	if err != nil {
		return nil, err
	}
	var out []Expiry
	if left := s.leaf.Leaf.NotAfter.Sub(now); left < soon(s.id, s.leaf.Leaf.NotAfter) {
		out = append(out, Expiry{Name: s.id.Name, Until: s.leaf.Leaf.NotAfter, Left: left, By: s.id.By,
			Do: "it should have renewed itself: see why it could not, and whether the clock of this machine is right"})
	}
	for _, der := range s.trust.Authorities {
		a, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading an authority: %w", err)
		}
		id, err := Identify(a)
		if err != nil {
			return nil, err
		}
		if left := a.NotAfter.Sub(now); left < warnAuthority {
			do := "make a new authority, let all trust it, renew all certificates, then take this one away"
			if len(s.trust.Authorities) > 1 {
				do = "take it away once no certificate is left that it signed"
			}
			out = append(out, Expiry{Name: id.Name, Until: a.NotAfter, Left: left, Do: do, By: id.By, Signs: true})
		}
	}
	return out, nil
}

// soon is how long before its end a certificate should have been renewed.
func soon(id Identity, until time.Time) time.Duration {
	return max(warnLeaf, min(until.Sub(id.Issued), term)/3)
}

// Due is when the own certificate should be renewed: after two thirds of its
// validity, or of a year if that is shorter, and up to a twentieth earlier by a
// hash of the name, so that not all come at once.
func (f *Files) Due() (time.Time, error) {
	s, err := f.current()
	if err != nil {
		return time.Time{}, err
	}
	return due(s.id, s.leaf.Leaf.NotAfter), nil
}

func due(id Identity, until time.Time) time.Time {
	life := min(until.Sub(id.Issued), term)
	h := fnv.New32a()
	h.Write([]byte(id.Name.String()))
	early := time.Duration(float64(life) / 20 * float64(h.Sum32()) / (1 << 32))
	return id.Issued.Add(life*2/3 - early)
}
