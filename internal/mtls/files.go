package mtls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"gemel/internal/secret"
)

// The names of the files.
const (
	leafFile  = "leaf.pem"
	nextFile  = "next.key" // the key of a certificate that was asked for
	trustFile = "trust.json"
)

// Files is what a party has of its own: its key, its certificate, and whom it
// trusts. The fields are set before the first use; the methods may be called by
// several goroutines.
type Files struct {
	Dir string // of mode 0700; one for each plane
	// Now is the wall clock. Nil: time.Now.
	Now func() time.Time
	// Floor is an instant that should have passed, such as that of the newest record
	// on the disk; a clock before it is doubted. Nil: only what the files say.
	Floor func() time.Time
	// Tell is given what somebody should hear of: a file that cannot be used, an
	// expired certificate that was accepted, a wrong clock. Once an hour for each.
	// It is called within handshakes, must not block, and must not call back. Nil:
	// nobody hears.
	Tell func(text string)

	write sync.Mutex // held over a change of the files, so that an older one cannot come last

	mu   sync.Mutex
	have *state
	bad  map[string]stamped   // files that were refused, so that it is told once
	told map[string]time.Time // what was told, and when
}

// state is what was in force at one instant; it is never changed.
type state struct {
	leaf       *tls.Certificate // nil: not joined yet
	id         Identity
	trust      *Trust
	pool       *x509.CertPool
	leafStamp  stamped
	trustStamp stamped
}

// Load reads the files for the first time. Whatever is wrong with them is an
// error: nobody is trusted by default. It is called by whatever needs it.
func (f *Files) Load() error {
	_, err := f.current()
	return err
}

// current is what is in force now. Files that were replaced are read; one that
// cannot be used leaves in force what was.
func (f *Files) current() (*state, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := state{}
	if f.have != nil {
		s = *f.have
	}
	if err := f.refresh(trustFile, &s.trustStamp, s.trust != nil, func(b []byte) error { return s.readTrust(b) }); err != nil {
		return nil, err
	}
	if err := f.refresh(leafFile, &s.leafStamp, s.leaf != nil, func(b []byte) error { return s.readLeaf(b, f.judge(&s)) }); err != nil {
		return nil, err
	}
	f.have = &s
	return &s, nil
}

// refresh reads a file if it is another one than before.
func (f *Files) refresh(name string, last *stamped, have bool, read func([]byte) error) error {
	path := filepath.Join(f.Dir, name)
	now, err := stampOf(path)
	if err == nil && have && now == *last {
		return nil
	}
	var b []byte
	if err == nil {
		b, err = secret.Read(path)
	}
	if err == nil {
		err = read(b)
	}
	if err == nil {
		*last = now
		delete(f.bad, name)
		return nil
	}
	err = fmt.Errorf("%s: %w", path, err)
	if !have {
		return err
	}
	if was, told := f.bad[name]; !told || was != now {
		if f.bad == nil {
			f.bad = map[string]stamped{}
		}
		f.bad[name] = now
		f.tell(err.Error() + ". What was read before stays in force")
	}
	return nil
}

func (s *state) readTrust(b []byte) error {
	t := &Trust{}
	if err := json.Unmarshal(b, t); err != nil {
		return err
	}
	if s.trust != nil && (t.Cluster != s.trust.Cluster || t.Plane != s.trust.Plane) {
		return fmt.Errorf("it is for the %s of cluster %s; in force is the one for the %s of %s", t.Plane, t.Cluster, s.trust.Plane, s.trust.Cluster)
	}
	if s.trust != nil && t.Version < s.trust.Version {
		return fmt.Errorf("its version is %d, which is older than %d, which is in force: what was revoked since would be good again", t.Version, s.trust.Version)
	}
	j, err := newJudge(t, time.Time{}, time.Time{})
	if err != nil {
		return err
	}
	s.trust, s.pool = t, j.pool
	return nil
}

func (s *state) readLeaf(b []byte, j *judge) error {
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return fmt.Errorf("reading key and certificate: %w", err)
	}
	id, err := j.own(&cert)
	if err != nil {
		return err
	}
	if s.leaf != nil && id.Name != s.id.Name {
		return fmt.Errorf("it is the certificate of %v; this is %v", id.Name, s.id.Name)
	}
	s.leaf, s.id = &cert, id
	return nil
}

// own judges a certificate of one's own. Its time does not matter: an expired one
// is still the best that there is.
func (j *judge) own(cert *tls.Certificate) (Identity, error) {
	c := *j
	c.now, c.floor = cert.Leaf.NotAfter, time.Time{}
	t := *j.trust
	t.Revoked = nil
	c.trust = &t
	id, _, err := c.verdict([]*x509.Certificate{cert.Leaf}, x509.ExtKeyUsageAny)
	return id, err
}

// judge makes the judge of a state at this moment.
func (f *Files) judge(s *state) *judge {
	j := &judge{trust: s.trust, pool: s.pool, now: f.now(), floor: s.trust.Changed}
	if s.leaf != nil {
		j.floor = later(j.floor, s.id.Issued)
	}
	if f.Floor != nil {
		j.floor = later(j.floor, f.Floor())
	}
	return j
}

func (f *Files) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

// tell says something at most once an hour; f.mu is held.
func (f *Files) tell(text string) { f.tellAs(text, text) }

func (f *Files) tellAs(key, text string) {
	if f.Tell == nil {
		return
	}
	now := time.Now() // its monotonic part: a wall clock that steps does not silence this
	if at, ok := f.told[key]; ok && now.Sub(at) < time.Hour {
		return
	}
	if f.told == nil || len(f.told) > 1000 {
		f.told = map[string]time.Time{}
	}
	f.told[key] = now
	f.Tell(text)
}

// Identity is who this party is.
func (f *Files) Identity() (Identity, error) {
	s, err := f.current()
	if err != nil {
		return Identity{}, err
	}
	return s.id, nil
}

// Trust is whom this party trusts. It is not to be written to.
func (f *Files) Trust() (*Trust, error) {
	f.mu.Lock()
	have := f.have
	f.mu.Unlock()
	if have == nil { // perhaps there is no certificate yet
		s := state{}
		b, err := secret.Read(filepath.Join(f.Dir, trustFile))
		if err == nil {
			err = s.readTrust(b)
		}
		return s.trust, err
	}
	s, err := f.current()
	if err != nil {
		return nil, err
	}
	return s.trust, nil
}

// Adopt makes a Trust the one that is in force, on the disk first. An older one
// than that is refused.
func (f *Files) Adopt(t *Trust) error {
	f.write.Lock()
	defer f.write.Unlock()
	if err := t.Check(); err != nil {
		return err
	}
	old, err := f.Trust()
	if err == nil {
		b, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("writing whom to trust: %w", err)
		}
		s := state{trust: old}
		if err := s.readTrust(b); err != nil {
			return fmt.Errorf("adopting whom to trust: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("adopting whom to trust: %w", err)
	}
	b, err := json.MarshalIndent(t, "", "\t")
	if err != nil {
		return fmt.Errorf("writing whom to trust: %w", err)
	}
	return secret.Write(filepath.Join(f.Dir, trustFile), b)
}

// Request asks for a certificate: it makes a new key, keeps it on the disk until
// Install, and returns the DER of a request that is signed by it. Asked again
// before Install it gives the same key, so that one whose answer was lost can ask
// once more.
func (f *Files) Request() ([]byte, error) {
	f.write.Lock()
	defer f.write.Unlock()
	key, err := f.nextKey()
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	return csr, nil
}

func (f *Files) nextKey() (crypto.Signer, error) {
	path := filepath.Join(f.Dir, nextFile)
	b, err := secret.Read(path)
	if err == nil {
		if key, err := parseKey(b); err == nil && !f.inUse(key) {
			return key, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		if err := secret.Remove(path); err != nil { // readable by others: not to be used
			return nil, err
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if b, err = keyPEM(key); err != nil {
		return nil, err
	}
	return key, secret.Write(path, b)
}

// inUse reports that a key is that of the certificate in force: what was asked for
// with it was installed, and only its removal was interrupted.
func (f *Files) inUse(key crypto.Signer) bool {
	b, err := os.ReadFile(filepath.Join(f.Dir, leafFile))
	if err != nil {
		return false
	}
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return false
	}
	pub, ok := key.Public().(*ecdsa.PublicKey)
	return ok && pub.Equal(cert.Leaf.PublicKey)
}

func keyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(b []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("there is no private key in it")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T, not of ECDSA", key)
	}
	return signer, nil
}

// Install puts a certificate in force that was asked for by Request: PEM, with
// that of its authority behind it. It has to be for the key that was asked with,
// be good by what is trusted here, and keep the name.
func (f *Files) Install(chain []byte) error {
	f.write.Lock()
	defer f.write.Unlock()
	path := filepath.Join(f.Dir, nextFile)
	key, err := secret.Read(path)
	if err != nil {
		return fmt.Errorf("installing a certificate: %w", err)
	}
	both := append(append([]byte{}, key...), chain...)
	t, err := f.Trust()
	if err != nil {
		return fmt.Errorf("installing a certificate: %w", err)
	}
	s := state{}
	if have, err := f.current(); err == nil { // else there is none yet, or one that this replaces
		s = *have
	}
	j, err := newJudge(t, f.now(), time.Time{})
	if err != nil {
		return fmt.Errorf("installing a certificate: %w", err)
	}
	if err := s.readLeaf(both, j); err != nil {
		return fmt.Errorf("installing a certificate: %w", err)
	}
	if err := secret.Write(filepath.Join(f.Dir, leafFile), both); err != nil {
		return err
	}
	return secret.Remove(path)
}
