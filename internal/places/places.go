// Package places says where things live on this machine: the data directory, the
// run directory and the socket, for root and for a plain user, by flag, by
// environment and by default (DESIGN 10).
package places

import (
	"fmt"
	"os"
	"path/filepath"
)

// Places are the directories and the socket of one instance. Several instances
// live beside each other when all three differ.
type Places struct {
	Data   string // lives through reboots; 0700
	Run    string // may be lost with the boot
	Socket string // of the API
}

// Find fills in what is empty: from the environment (GEMEL_DATA_DIR,
// GEMEL_RUN_DIR, GEMEL_SOCKET), else for root /var/lib/gemel and /run/gemel, and
// for a plain user the XDG directories. The socket lies in the run directory.
func Find(given Places) (Places, error) {
	p := given
	pick := func(to *string, env string) {
		if *to == "" {
			*to = os.Getenv(env)
		}
	}
	pick(&p.Data, "GEMEL_DATA_DIR")
	pick(&p.Run, "GEMEL_RUN_DIR")
	pick(&p.Socket, "GEMEL_SOCKET")
	root := os.Geteuid() == 0
	if p.Data == "" {
		p.Data = "/var/lib/gemel"
		if !root {
			home, err := xdg("XDG_STATE_HOME", ".local/state")
			if err != nil {
				return Places{}, err
			}
			p.Data = filepath.Join(home, "gemel")
		}
	}
	if p.Run == "" {
		p.Run = "/run/gemel"
		if !root {
			p.Run = runtimeDir()
		}
	}
	for _, to := range []*string{&p.Data, &p.Run} {
		abs, err := filepath.Abs(*to)
		if err != nil {
			return Places{}, fmt.Errorf("finding %s: %w", *to, err)
		}
		*to = abs
	}
	if p.Socket == "" {
		p.Socket = filepath.Join(p.Run, "api.sock")
	}
	// The kernel's sockaddr_un has 108 bytes with the final zero; a longer path
	// fails late and without a word of why.
	if len(p.Socket) > 107 {
		return Places{}, fmt.Errorf("the socket path %s has %d bytes and the system allows 107: choose a shorter --socket or --run-dir", p.Socket, len(p.Socket))
	}
	return p, nil
}

func xdg(env, fallback string) (string, error) {
	if d := os.Getenv(env); filepath.IsAbs(d) {
		return d, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("there is neither %s nor a home directory: give --data-dir: %w", env, err)
	}
	return filepath.Join(home, fallback), nil
}

// runtimeDir is XDG_RUNTIME_DIR where a session manager made one, else a
// directory in /tmp that belongs to the user alone (checked by Make).
func runtimeDir() string {
	if d := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		return filepath.Join(d, "gemel")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("gemel-%d", os.Getuid()))
}

// Make makes the directories and refuses ones that somebody else could have put
// there or could write to.
func (p Places) Make() error {
	if err := own(p.Data, 0o700); err != nil {
		return err
	}
	// Programs of other users find their beat page and notify socket below the
	// run directory, so that they must be able to pass through it.
	if err := own(p.Run, 0o711); err != nil {
		return err
	}
	for _, d := range []string{"out", "notify", "beats"} {
		if err := own(filepath.Join(p.Run, d), 0o711); err != nil {
			return err
		}
	}
	// Programs watch it for what becomes of their groups.
	if err := own(filepath.Join(p.Run, "role"), 0o755); err != nil {
		return err
	}
	for _, d := range []string{"journal", "evidence", "log"} {
		if err := own(filepath.Join(p.Data, d), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// StoreSocket is where the member of the cluster's store on this machine is asked.
func (p Places) StoreSocket() string { return filepath.Join(p.Run, "store.sock") }
