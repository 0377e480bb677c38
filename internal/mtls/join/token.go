package join

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"

	"gemel/internal/mtls"
)

// prefix begins every token, and tells what it is and which form it has.
const prefix = "gj1"

// alphabet has no letter that looks like another sign: no i, l, o and u.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

const (
	secretSize = 16
	pinSize    = 16
	maxLife    = 7 * 24 * time.Hour
	maxText    = 1024
)

// A Token lets one newcomer join once.
type Token struct {
	Cluster string
	Kind    mtls.Role // Node, Witness or Agent
	Name    string    // the one name that may join by it; empty: the newcomer chooses
	Expires time.Time // to the second
	Pin     string    // the first half of the pin of the authority of nodes
	secret  [secretSize]byte
}

// Mint makes a token, and the ticket by which the cluster will know it. nodes is
// the identity of the authority that signed the certificates of the nodes at
// which the newcomer will ask. A life of zero is an hour.
func Mint(nodes mtls.Identity, kind mtls.Role, name string, now time.Time, life time.Duration) (Token, Ticket, error) {
	if life == 0 {
		life = time.Hour
	}
	if life < time.Minute || life > maxLife {
		return Token{}, Ticket{}, fmt.Errorf("a token that is good for %v: one minute to seven days are allowed", life)
	}
	if len(nodes.Pin) != 64 || nodes.Name != mtls.Node.Authority(nodes.Name.Cluster) {
		return Token{}, Ticket{}, fmt.Errorf("making a token: %v is not the authority of the nodes", nodes.Name)
	}
	t := Token{
		Cluster: nodes.Name.Cluster, Kind: kind, Name: name, Pin: nodes.Pin[:2*pinSize],
		Expires: now.Add(life).UTC().Truncate(time.Second),
	}
	if err := t.check(); err != nil {
		return Token{}, Ticket{}, fmt.Errorf("making a token: %w", err)
	}
	if _, err := rand.Read(t.secret[:]); err != nil {
		return Token{}, Ticket{}, fmt.Errorf("making a token: %w", err)
	}
	return t, Ticket{
		ID: t.id(), Kind: kind, Name: name, Expires: t.Expires,
		Stored: hash(t.key("client")), Server: t.key("server"),
	}, nil
}

func (t Token) check() error {
	if kindCode(t.Kind) == 0 {
		return fmt.Errorf("nobody joins as %q; node, witness and agent are allowed", t.Kind)
	}
	n := mtls.Name{Cluster: t.Cluster, Role: t.Kind, Name: t.Name}
	if n.Name == "" {
		n.Name = "any"
	}
	return n.Check()
}

func kindCode(r mtls.Role) byte {
	switch r {
	case mtls.Node:
		return 1
	case mtls.Witness:
		return 2
	case mtls.Agent:
		return 3
	}
	return 0
}

// key derives what is used of the secret for one purpose.
func (t Token) key(purpose string) []byte {
	return mac(t.secret[:], []byte("gemel join "+purpose), []byte(t.Cluster), []byte(t.Kind), []byte(t.Name))
}

// id names the ticket without telling anything of the secret.
func (t Token) id() string { return hex.EncodeToString(t.key("id")[:8]) }

func hash(b []byte) []byte { s := sha256.Sum256(b); return s[:] }

// mac takes each part with its length, so that no two lists of parts are the same.
func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}

// String names the token without its secret, for logs.
func (t Token) String() string {
	return fmt.Sprintf("token %s for the role %s of %s", t.id(), t.Kind, t.Cluster)
}

// GoString is String: %#v shows no secret either.
func (t Token) GoString() string { return t.String() }

// Text is what is printed and typed: the secret is in it.
func (t Token) Text() string {
	b := []byte{kindCode(t.Kind)}
	b = binary.BigEndian.AppendUint32(b, uint32(t.Expires.Unix()))
	pin, _ := hex.DecodeString(t.Pin) // of its own making
	b = append(append(b, pin...), t.secret[:]...)
	b = append(append(b, byte(len(t.Cluster))), t.Cluster...)
	b = append(append(b, byte(len(t.Name))), t.Name...)
	b = binary.BigEndian.AppendUint32(b, sum(b))
	return prefix + encoding().EncodeToString(b)
}

func encoding() *base32.Encoding { return base32.NewEncoding(alphabet).WithPadding(base32.NoPadding) }

func sum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// ParseToken reads what Text wrote. Capital letters, spaces and dashes do not
// matter, and o, i and l are taken for 0 and 1.
func ParseToken(text string) (Token, error) {
	b, err := decode(text)
	if err != nil {
		return Token{}, err
	}
	t := Token{}
	kind := b[0]
	for _, r := range []mtls.Role{mtls.Node, mtls.Witness, mtls.Agent} {
		if kindCode(r) == kind {
			t.Kind = r
		}
	}
	t.Expires = time.Unix(int64(binary.BigEndian.Uint32(b[1:])), 0).UTC()
	b = b[5:]
	t.Pin, b = hex.EncodeToString(b[:pinSize]), b[pinSize:]
	t.secret, b = [secretSize]byte(b[:secretSize]), b[secretSize:]
	var ok [2]bool
	t.Cluster, b, ok[0] = text8(b)
	t.Name, b, ok[1] = text8(b)
	if !ok[0] || !ok[1] || len(b) > 0 {
		return Token{}, errors.New("this token was made by another version of gemel; make a new one with this version")
	}
	if err := t.check(); err != nil {
		return Token{}, fmt.Errorf("this token was made by another version of gemel: %w", err)
	}
	return t, nil
}

// text8 takes a text with its length off the front.
func text8(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 || len(b)-1 < int(b[0]) {
		return "", nil, false
	}
	end := 1 + int(b[0])
	return string(b[1:end]), b[end:], true
}

// decode returns what is between prefix and checksum, long enough for the fields
// of fixed size.
func decode(text string) ([]byte, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("this is no token: it has %d characters, at most %d are allowed", len(text), maxText)
	}
	clean := strings.NewReplacer(" ", "", "-", "", "\t", "", "\n", "", "\r", "").Replace(strings.ToLower(text))
	body, ok := strings.CutPrefix(clean, prefix)
	if !ok {
		return nil, fmt.Errorf("this is no token: one begins with %s; copy it whole from the output of the command that made it", prefix)
	}
	body = strings.NewReplacer("o", "0", "i", "1", "l", "1").Replace(body)
	if i := strings.IndexFunc(body, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }); i >= 0 {
		return nil, fmt.Errorf("the token is mistyped: %q cannot be in one (character %d); copy it again", []rune(body[i:])[0], len(prefix)+i+1)
	}
	b, err := encoding().DecodeString(body)
	if err != nil || encoding().EncodeToString(b) != body || len(b) < 1+4+pinSize+secretSize+1+1+4 {
		return nil, errors.New("the token is mistyped or not whole; copy it again")
	}
	b, check := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if sum(b) != check {
		return nil, errors.New("the token is mistyped: its check sum does not fit; copy it again")
	}
	return b, nil
}
