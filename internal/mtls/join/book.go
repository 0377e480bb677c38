package join

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/secret"
)

// Bounds of the tickets.
const (
	maxFailures = 5                  // wrong proofs until a ticket is worthless
	maxTickets  = 1000               // in a FileBook
	kept        = 7 * 24 * time.Hour // after the end, to say why it is over
)

// A Ticket is what the cluster keeps of a token. Nobody can join by it.
type Ticket struct {
	ID      string    `json:"id"`
	Kind    mtls.Role `json:"kind"`
	Name    string    `json:"name,omitempty"`
	Expires time.Time `json:"expires"`
	Stored  []byte    `json:"stored"` // the hash of what the newcomer proves to have
	Server  []byte    `json:"server"` // by which the cluster proves itself

	Failures int       `json:"failures,omitempty"`
	Used     time.Time `json:"used,omitzero"`     // when the first one came with the right secret
	By       string    `json:"by,omitempty"`      // the pin of its key: only it may ask again
	ByName   string    `json:"by-name,omitempty"` // what it called itself
}

// A Book keeps tickets. One of a cluster keeps them in the store, so that a token
// is good at each node and used up at all.
type Book interface {
	// Add puts a ticket in.
	Add(ctx context.Context, t Ticket) error
	// Update gives f the ticket and stores what f made of it, unless it was changed
	// meanwhile: then it begins again, so f may run more than once. If f returns an
	// error nothing is stored and that error is returned. A ticket that is not there
	// is fs.ErrNotExist.
	Update(ctx context.Context, id string, f func(*Ticket) error) error
}

// A FileBook keeps tickets in one file, for a machine without a cluster.
type FileBook struct {
	Path string
	Now  func() time.Time // nil: time.Now

	mu sync.Mutex
}

// Add is that of Book. Those that are long over are thrown away.
func (b *FileBook) Add(_ context.Context, t Ticket) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := b.read()
	if err != nil {
		return err
	}
	now := time.Now()
	if b.Now != nil {
		now = b.Now()
	}
	maps.DeleteFunc(all, func(_ string, t Ticket) bool { return now.Sub(t.Expires) > kept })
	if len(all) >= maxTickets {
		return fmt.Errorf("%d tokens are open; at most %d are allowed: wait until some have expired", len(all), maxTickets)
	}
	all[t.ID] = t
	return b.write(all)
}

// Update is that of Book.
func (b *FileBook) Update(_ context.Context, id string, f func(*Ticket) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := b.read()
	if err != nil {
		return err
	}
	t, ok := all[id]
	if !ok {
		return fmt.Errorf("the ticket %.40q: %w", id, fs.ErrNotExist)
	}
	if err := f(&t); err != nil {
		return err
	}
	all[id] = t
	return b.write(all)
}

func (b *FileBook) read() (map[string]Ticket, error) {
	all := map[string]Ticket{}
	raw, err := secret.Read(b.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("%s: reading the tickets: %w", b.Path, err)
	}
	return all, nil
}

func (b *FileBook) write(all map[string]Ticket) error {
	raw, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("writing the tickets: %w", err)
	}
	return secret.Write(b.Path, raw)
}

func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
