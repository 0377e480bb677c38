package rpc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"gemel/internal/ha"
)

const (
	awayTime = 30 * time.Second       // how long a daemon that died is waited for
	goneTime = 5 * time.Second        // the same, when it took its socket away: it ended in good order
	tellTime = time.Second            // how long it is away before somebody is told
	tryPause = 100 * time.Millisecond // between two attempts
)

// Patience waits for a daemon that went away in the middle of a stream: its
// monitor may have died, or be replaced by an upgrade, and is then back in a
// moment. Make one for each stream with Client.Patience.
type Patience struct {
	// Away is called with one sentence when the waiting begins to be felt; nil:
	// nobody is told.
	Away func(text string)

	socket string
	since  time.Time // when it was first missed
	gone   time.Time // since when its socket is away
	told   bool
}

// Patience returns the patience for one stream of this client.
func (c *Client) Patience() *Patience { return &Patience{Away: c.Away, socket: c.socket} }

// Back says that the daemon answered: the next waiting begins anew.
func (p *Patience) Back() { p.since, p.gone, p.told = time.Time{}, time.Time{}, false }

// Wait returns nil when the stream that ended with err is worth another attempt,
// after a short pause. Otherwise it returns what to tell: ctx's error, err in
// plain words, or that Gemel ended.
func (p *Patience) Wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = Explain(err)
	var e *ha.Error
	if !errors.As(err, &e) || e.Reason != "laggard" && (e.Kind != ha.ErrUnavailable || e.Reason == "version") {
		return err
	}
	now := time.Now()
	if p.since.IsZero() {
		p.since = now
	}
	if _, err := os.Lstat(p.socket); !errors.Is(err, fs.ErrNotExist) {
		p.gone = time.Time{}
	} else if p.gone.IsZero() {
		p.gone = now
	}
	if away := now.Sub(p.since); away > awayTime || !p.gone.IsZero() && now.Sub(p.gone) > goneTime {
		return fault(ha.ErrUnavailable, "ended", "start it again with: gemel run FILE", "gemel ended: nobody has answered at %s for %s",
			p.socket, ha.Span(away.Round(time.Second)))
	} else if away > tellTime && !p.told && p.Away != nil {
		p.told = true
		p.Away("gemel does not answer; waiting for it to come back")
	}
	pause := time.NewTimer(tryPause)
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-pause.C:
		return nil
	}
}
