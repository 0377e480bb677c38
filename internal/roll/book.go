package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"gemel/internal/mtls/join"
	"gemel/internal/store"
)

// The keys of the documents in the store.
const (
	clusterKeys = "cluster/" // all of them begin so
	rollKey     = "cluster/roll"
	trustKeys   = "cluster/trust/" // and the plane
	crlKey      = "cluster/revoked"
	claimKeys   = "cluster/claim/" // and the name that somebody is about to have
	ticketKey   = "cluster/ticket/"
	goneKeys    = "cluster/gone/" // and the name of who left, until its certificates are taken back
)

const (
	ticketKept = 7 * 24 * time.Hour // after the end, to say why it is over
	openMost   = 1000
	goneTime   = time.Minute
	writeAgain = 8 // a write that lost against another one
)

// book keeps tickets in the store.
type book struct{ c *store.Client }

// Add is that of join.Book.
func (b book) Add(ctx context.Context, t join.Ticket) error {
	docs, _, err := b.c.Docs(ctx, ticketKey)
	if err != nil {
		return err
	}
	raw, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("writing a ticket: %w", err)
	}
	put := []store.Doc{{Key: ticketKey + t.ID, Value: raw}}
	for _, d := range docs {
		var old join.Ticket
		if json.Unmarshal(d.Value, &old) == nil && time.Since(old.Expires) > ticketKept && len(put) < 100 {
			put = append(put, store.Doc{Key: d.Key, Rev: d.Rev})
		}
	}
	if len(docs) >= openMost {
		return fmt.Errorf("%d tokens are open; at most %d are allowed: wait until some have expired", len(docs), openMost)
	}
	_, err = b.c.PutDocs(ctx, put...)
	return err
}

// Update is that of join.Book.
func (b book) Update(ctx context.Context, id string, f func(*join.Ticket) error) error {
	if strings.ContainsAny(id, "/\x00") || len(id) > 64 {
		return fs.ErrNotExist
	}
	for range writeAgain {
		d, err := b.c.Doc(ctx, ticketKey+id)
		if err != nil {
			return err
		}
		if d.Rev == 0 {
			return fmt.Errorf("the ticket %.40q: %w", id, fs.ErrNotExist)
		}
		var t join.Ticket
		if err := json.Unmarshal(d.Value, &t); err != nil {
			return fmt.Errorf("reading the ticket %s: %w", id, err)
		}
		if err := f(&t); err != nil {
			return err
		}
		raw, err := json.Marshal(t)
		if err != nil {
			return fmt.Errorf("writing a ticket: %w", err)
		}
		if _, err := b.c.PutDoc(ctx, d.Key, d.Rev, raw); !errors.Is(err, store.ErrRefused) {
			return err
		}
	}
	return errors.New("the store took no change of the ticket: try again")
}
