package join

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

// Bounds of the messages.
const (
	maxRequest = 64 << 10
	maxAnswer  = 16 << 20
	maxFacts   = 32 << 10
)

// The paths below that under which an Enroll is served.
const (
	joinPath  = "/join"
	renewPath = "/renew"
)

// A Request asks for certificates.
type Request struct {
	Kind mtls.Role `json:"kind"`           // Node, Witness or Agent
	Name string    `json:"name,omitempty"` // the name that is wished for
	// CSRs are requests for certificates (DER), one for each role, each with a key of
	// its own. What they say besides the key does not matter.
	CSRs map[mtls.Role][]byte `json:"csrs"`
	// Facts are for who admits: addresses, versions. They are claims.
	Facts json.RawMessage `json:"facts,omitempty"`
}

// An Answer is what a newcomer gets.
type Answer struct {
	Name         mtls.Name            `json:"name"`         // of its kind
	Certificates map[mtls.Role][]byte `json:"certificates"` // PEM, with the authority's behind
	// Trust is whom to trust, of each plane in which there is a certificate.
	Trust    map[string]*mtls.Trust `json:"trust"`
	Settings json.RawMessage        `json:"settings,omitempty"` // of the cluster, for the caller
}

// sealed is a message with the proof of who sent it. The proof is over the bytes
// of the body as they are.
type sealed struct {
	Ticket  string `json:"ticket,omitempty"`
	Body    []byte `json:"body,omitempty"`
	Proof   []byte `json:"proof,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// roles are the certificates that a kind of newcomer has.
func roles(kind mtls.Role) []mtls.Role {
	switch kind {
	case mtls.Node:
		return []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}
	case mtls.Witness:
		return []mtls.Role{mtls.Witness, mtls.Peer}
	case mtls.Agent:
		return []mtls.Role{mtls.Agent}
	}
	return nil
}

// check finds what is wrong with a request, and returns the pins of its keys. A
// newcomer needs the certificate of its kind; who renews may leave out any.
func (r *Request) check(renew bool) (pins map[mtls.Role]string, err error) {
	allowed := roles(r.Kind)
	if allowed == nil {
		return nil, fmt.Errorf("nobody joins as %q; node, witness and agent are allowed", r.Kind)
	}
	if len(r.Facts) > maxFacts {
		return nil, fmt.Errorf("the facts have %d bytes; at most %d are allowed", len(r.Facts), maxFacts)
	}
	if len(r.CSRs[r.Kind]) == 0 && !renew || len(r.CSRs) == 0 {
		return nil, fmt.Errorf("there is no request for the certificate of the role %s", r.Kind)
	}
	if len(r.CSRs) > len(allowed) {
		return nil, fmt.Errorf("%d certificates are asked for; the role %s has %v", len(r.CSRs), r.Kind, allowed)
	}
	pins = map[mtls.Role]string{}
	whose := map[string]mtls.Role{}
	for _, role := range allowed {
		csr, ok := r.CSRs[role]
		if !ok {
			continue
		}
		pin, err := authority.Check(csr)
		if err != nil {
			return nil, fmt.Errorf("for the role %s: %w", role, err)
		}
		if other, ok := whose[pin]; ok {
			return nil, fmt.Errorf("the roles %s and %s have the same key; each needs its own", other, role)
		}
		whose[pin], pins[role] = role, pin
	}
	if len(pins) != len(r.CSRs) {
		return nil, fmt.Errorf("a certificate is asked for that the role %s does not have; it has %v", r.Kind, allowed)
	}
	return pins, nil
}

// Ask makes the requests for certificates of a party: files has where the
// certificate of each role is to be.
func Ask(files map[mtls.Role]*mtls.Files) (map[mtls.Role][]byte, error) {
	out := map[mtls.Role][]byte{}
	for role, f := range files {
		csr, err := f.Request()
		if err != nil {
			return nil, err
		}
		out[role] = csr
	}
	return out, nil
}

// Install writes what an answer brought. It may be done again after it was
// interrupted.
func (a *Answer) Install(files map[mtls.Role]*mtls.Files) error {
	for role, f := range files {
		plane := role.Authority(a.Name.Cluster).Name
		t := a.Trust[plane]
		if t == nil || a.Certificates[role] == nil {
			return fmt.Errorf("the answer has no certificate for the role %s", role)
		}
		if err := f.Adopt(t); err != nil {
			return err
		}
		if err := f.Install(a.Certificates[role]); err != nil {
			return err
		}
	}
	return nil
}

// strict decodes one JSON value and nothing else.
func strict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("there is something behind its end")
	}
	return nil
}

// channel is what both ends of one TLS connection know and nobody else: someone
// who has one connection to each of them has two different ones.
func channel(cs *tls.ConnectionState) ([]byte, error) {
	if cs == nil || cs.Version < tls.VersionTLS13 || !cs.HandshakeComplete {
		return nil, errors.New("joining needs TLS 1.3")
	}
	return cs.ExportKeyingMaterial("EXPORTER-gemel-join-1", nil, 32)
}

// proof of the newcomer: its key, hidden by what only the cluster can make of
// the stored hash of the key. So who steals the tickets cannot join by them.
func proof(client, stored, channel, body []byte) []byte {
	return xor(client, mac(stored, []byte("newcomer"), channel, body))
}

// proven reports that a proof is one.
func proven(stored, channel, body, proof []byte) bool {
	if len(proof) != len(stored) || len(stored) == 0 {
		return false
	}
	client := xor(proof, mac(stored, []byte("newcomer"), channel, body))
	return equal(hash(client), stored)
}

// answered is the cluster's proof over its answer to that body.
func answered(server, channel, body, answer []byte) []byte {
	return mac(server, []byte("cluster"), channel, body, answer)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	for i := range a {
		out[i] = a[i] ^ b[i]
	}
	return out
}
