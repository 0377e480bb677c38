package roll

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/places"
	"gemel/internal/secret"
	"gemel/internal/store"
)

// The files of a Home.
const (
	rollFile    = "roll.json"
	keyFile     = "heartbeat.key"
	seedFile    = "seed.json"   // what is to be in the store as soon as there is one
	joiningFile = "joining"     // this machine has no vote in the store yet
	askedFile   = "asked.json"  // what a newcomer was told, until it is in
	caFile      = "voters.pem"  // who vouches for the other voters
	crlFile     = "revoked.crl" // and which of them count no more
	signersDir  = "authority"   // keys that sign; only nodes have them
)

// A Home is where a machine keeps what it is to its cluster.
type Home struct {
	Data string // the data directory; the rest is in its directory cluster
	Node string // node.yaml
}

// HomeOf is the Home of an instance. node.yaml is in the data directory, and for the
// usual instance in /etc/gemel.
func HomeOf(p places.Places) Home {
	if p.Data == "/var/lib/gemel" {
		return Home{p.Data, "/etc/gemel/node.yaml"}
	}
	return Home{p.Data, filepath.Join(p.Data, "node.yaml")}
}

func (h Home) dir() string            { return filepath.Join(h.Data, "cluster") }
func (h Home) at(name string) string  { return filepath.Join(h.dir(), name) }
func (h Home) signer(p string) string { return filepath.Join(h.dir(), signersDir, p+".pem") }

// StoreDir is where the member of the store has its data.
func (h Home) StoreDir() string { return filepath.Join(h.Data, "store") }

// Files are the key and the certificate of this machine in a role.
func (h Home) Files(r mtls.Role) *mtls.Files { return &mtls.Files{Dir: h.at(string(r))} }

// TLS names the files by which members of the store know each other; the zero value
// if this machine has none.
func (h Home) TLS(cluster string) (store.TLS, error) {
	leaf := filepath.Join(h.at(string(mtls.Peer)), "leaf.pem")
	if _, err := os.Stat(leaf); errors.Is(err, fs.ErrNotExist) {
		return store.TLS{}, nil
	} else if err != nil {
		return store.TLS{}, fmt.Errorf("looking for this member's certificate: %w", err)
	}
	return store.TLS{Cert: leaf, Key: leaf, CA: h.at(caFile), CRL: h.at(crlFile), Role: "gemel://" + cluster + "/" + string(mtls.Peer) + "/"}, nil
}

// Identity reads who this node is; nil if it is of no cluster.
func (h Home) Identity() (*manifest.Identity, error) {
	b, err := os.ReadFile(h.Node)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading who this node is: %w", err)
	}
	return config.ParseNode(h.Node, b)
}

// Joining reports whether this machine's member of the store has no vote yet.
func (h Home) Joining() bool {
	_, err := os.Stat(h.at(joiningFile))
	return err == nil
}

// Made reports whether init or join made this machine a part of a cluster.
func (h Home) Made() bool {
	_, err := os.Stat(h.at(rollFile))
	return err == nil
}

// Read returns the copy of the roll that is on this machine. The error is
// fs.ErrNotExist if there is none.
func (h Home) Read() (Roll, error) {
	b, err := secret.Read(h.at(rollFile))
	if err != nil {
		return Roll{}, err
	}
	return parse(b)
}

// make makes the directories.
func (h Home) make(roles ...mtls.Role) error {
	dirs := []string{h.dir(), h.at(signersDir)}
	for _, r := range roles {
		dirs = append(dirs, h.at(string(r)))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("making room for the cluster's keys: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(h.Node), 0o755); err != nil {
		return fmt.Errorf("making room for node.yaml: %w", err)
	}
	return nil
}

// write puts a roll on the disk, and the node.yaml that follows from it. node.yaml
// comes last: with it the machine is a node.
func (h Home) write(r Roll, me ha.Node) error {
	old, err := h.identity()
	if err != nil {
		return err
	}
	return writeAs(h, r, me, old)
}

// writeAs is write, on a machine that was, or is to have what is its own of, old; nil: it
// was nothing.
func writeAs(h Home, r Roll, me ha.Node, old *manifest.Identity) error {
	id, err := r.Identity(me, old)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("writing who is in the cluster: %w", err)
	}
	if err := secret.Write(h.at(rollFile), b); err != nil {
		return err
	}
	if b, err = config.EncodeNode(id); err != nil {
		return err
	}
	return secret.Write(h.Node, append([]byte("# Who this machine is in its cluster. gemel init and gemel join write it; see gemel help or docs/node.md.\n"), b...))
}

// identity is the node.yaml that is there; nil: none.
func (h Home) identity() (*manifest.Identity, error) {
	b, err := os.ReadFile(h.Node)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading who this machine is: %w", err)
	}
	return config.ParseNode(h.Node, b)
}

// adopt puts whom to trust on the disk, in each plane in which this machine has a
// certificate.
func (h Home) adopt(trust map[string]*mtls.Trust, crl []byte) error {
	for _, role := range []mtls.Role{mtls.Node, mtls.Witness, mtls.Peer, mtls.Manager} {
		if _, err := os.Stat(h.at(string(role))); err != nil {
			continue
		}
		t := trust[role.Authority("x").Name]
		if t == nil {
			continue
		}
		f := h.Files(role)
		if old, err := f.Trust(); err == nil && old.Version >= t.Version {
			continue
		}
		if err := f.Adopt(t); err != nil {
			return err
		}
	}
	if t := trust[mtls.Peer.Authority("x").Name]; t != nil {
		if err := secret.Write(h.at(caFile), t.PEM()); err != nil {
			return err
		}
	}
	if crl != nil {
		return secret.Write(h.at(crlFile), crl)
	}
	return nil
}

// planes are the three kinds of authorities, by the role that each vouches for first.
func planes() []mtls.Role { return []mtls.Role{mtls.Node, mtls.Peer, mtls.Agent} }

// open opens the authority that vouches for a role.
func (h Home) open(r mtls.Role, cluster string) (*authority.Authority, error) {
	a, err := authority.Open(h.signer(r.Authority(cluster).Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this machine has no key that signs for the role %s: ask at another node", r)
	}
	return a, err
}
