package mtls

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Role is what a party is to a cluster. One certificate has one role; no role
// includes another one.
type Role string

// The roles, and authority, which is that of who signs. What a person may do is
// in the access lists and not in the certificate, so that it can be changed at once.
const (
	Node    Role = "node"    // a machine of the cluster, towards its other nodes
	Witness Role = "witness" // a machine that only votes
	Person  Role = "person"  // somebody with the tool or a browser
	Peer    Role = "peer"    // a member of the store, towards the others
	Agent   Role = "agent"   // gemel-agent in a guest
	Manager Role = "manager" // a node, towards agents

	authority Role = "authority"
)

// scheme begins every name.
const scheme = "gemel://"

// plane is which authority vouches for a role: peers, agents and the rest have
// nothing in common, so that who holds a certificate of one kind is a stranger at
// the ports of the others before anybody looks at its role. Empty: no such role.
func (r Role) plane() string {
	switch r {
	case Node, Witness, Person:
		return "nodes"
	case Peer:
		return "store"
	case Agent, Manager:
		return "agents"
	}
	return ""
}

// Authority is the name of who vouches for a role in a cluster.
func (r Role) Authority(cluster string) Name { return Name{cluster, authority, r.plane()} }

// A Name is who a party is, as its certificate says in its one URI:
// gemel://CLUSTER/ROLE/NAME. Names are equal or not; there are no patterns.
type Name struct {
	Cluster string // the cluster's id: lower case letters, digits and dashes, at most 63
	Role    Role
	Name    string // letters, digits and . _ - @, at most 253, first a letter or digit
}

// String is the URI of the name.
func (n Name) String() string { return scheme + n.Cluster + "/" + string(n.Role) + "/" + n.Name }

// MarshalText is String.
func (n Name) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText is ParseName.
func (n *Name) UnmarshalText(b []byte) (err error) {
	*n, err = ParseName(string(b))
	return err
}

// Check finds what is wrong with a name.
func (n Name) Check() error {
	if !clusterID(n.Cluster) {
		return fmt.Errorf("the cluster's id %q: 1 to 63 lower case letters, digits and dashes are allowed, not a dash at either end", n.Cluster)
	}
	if n.Role.plane() == "" && n.Role != authority {
		return fmt.Errorf("there is no role %q; there are node, witness, person, peer, agent and manager", n.Role)
	}
	if n.Role == authority && n.Name != "nodes" && n.Name != "store" && n.Name != "agents" {
		return fmt.Errorf("there is no authority for %q; there are those for nodes, store and agents", n.Name)
	}
	if !partyName(n.Name) {
		return fmt.Errorf("the name %q: 1 to 253 letters, digits and . _ - @ are allowed, first a letter or digit", n.Name)
	}
	return nil
}

func clusterID(s string) bool {
	return len(s) >= 1 && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' &&
		strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func partyName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || strings.IndexByte("._-@", c) < 0) {
			return false
		}
	}
	return true
}

// ParseName reads the URI of a name. There is one way to write each: no escapes,
// no port, no user, no query.
func ParseName(uri string) (Name, error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	parts := strings.Split(rest, "/")
	if !ok || len(uri) > 512 || len(parts) != 3 {
		return Name{}, fmt.Errorf("the name %.80q is not gemel://CLUSTER/ROLE/NAME", uri)
	}
	n := Name{parts[0], Role(parts[1]), parts[2]}
	if err := n.Check(); err != nil {
		return Name{}, fmt.Errorf("the name %.80q: %w", uri, err)
	}
	return n, nil
}

// An Identity is what a certificate says of its holder. It is as true as the
// certificate: see Files.Peer.
type Identity struct {
	Name   Name
	Issued time.Time // to the second, as the authority's clock had it
	// Pin is the hash of the public key. It tells keys apart and is no secret.
	Pin string
	// By is the number of the authority that signed it, or that it is: 8 hexadecimal
	// digits that tell it from others, and prove nothing.
	By string
}

// Identify reads a certificate. It does not judge it.
func Identify(c *x509.Certificate) (Identity, error) {
	if len(c.URIs) != 1 {
		return Identity{}, fmt.Errorf("the certificate has %d URI names; exactly one is allowed", len(c.URIs))
	}
	name, err := ParseName(c.URIs[0].String())
	if err != nil {
		return Identity{}, err
	}
	if strings.ContainsRune(strings.Join(c.DNSNames, ""), '*') {
		return Identity{}, errors.New("the certificate has a wildcard among its DNS names; none is allowed")
	}
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	by := c.AuthorityKeyId
	if c.IsCA {
		by = c.SubjectKeyId
	}
	return Identity{name, issued(c), hex.EncodeToString(sum[:]), fmt.Sprintf("%x", by[:min(len(by), 4)])}, nil
}

// issued reads the instant of issue out of the serial number, whose highest 48
// of 128 bits it is. A peer's not-before is no such instant: decision 0161.
func issued(c *x509.Certificate) time.Time {
	if c.SerialNumber == nil || c.SerialNumber.Sign() <= 0 || c.SerialNumber.BitLen() > 127 {
		return time.Time{}
	}
	b := c.SerialNumber.FillBytes(make([]byte, 16))
	s := int64(0)
	for _, x := range b[:6] {
		s = s<<8 | int64(x)
	}
	return time.Unix(s, 0).UTC()
}
