package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"sync"
	"syscall"
	"time"
)

// source is the FILE that gemel run was given. It is only the first manifest: what
// was applied since is the truth, and a file that says otherwise is told.
type source struct {
	path string // empty: there is none

	mu     sync.Mutex
	seen   mark
	digest string // of what the file held then; empty if it could not be read
}

// mark tells whether a file may have changed.
type mark struct {
	at    time.Time
	size  int64
	inode uint64
}

// differs reports whether the file holds another manifest than the one of that
// digest. It reads the file only when it looks changed. A file that cannot be read
// says nothing.
func (s *source) differs(digest string) bool {
	if s.path == "" {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := os.Stat(s.path)
	if err != nil {
		s.seen, s.digest = mark{}, ""
		return false
	}
	now := mark{at: st.ModTime(), size: st.Size()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		now.inode = sys.Ino
	}
	// A change within the grain of the file system's clock leaves no trace.
	if now != s.seen || time.Since(now.at) < time.Second {
		s.seen, s.digest = now, ""
		if b, err := os.ReadFile(s.path); err == nil {
			sum := sha256.Sum256(b)
			s.digest = hex.EncodeToString(sum[:])
		}
	}
	return s.digest != "" && s.digest != digest
}
