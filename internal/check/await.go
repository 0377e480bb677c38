package check

import (
	"context"
	"fmt"
	"os"
	"time"

	"gemel/internal/manifest"
)

// Readiness is looked for soon after the start and then less and less often.
const (
	awaitFirst = 20 * time.Millisecond
	awaitLast  = 500 * time.Millisecond
	awaitDial  = 2 * time.Second // bound of one connection
)

// Await returns nil as soon as the readiness condition r holds: the port takes a
// connection, the file exists, or p finds the check well, which it runs beside its
// schedule. It returns the last cause why it does not when ctx ends. The kinds that the
// program itself tells, and the empty one, are nothing to look for: nil at once.
func Await(ctx context.Context, r manifest.Ready, p *Prober) error {
	once := func(context.Context) error { return nil }
	switch r.Kind {
	case manifest.ReadyPort:
		once = func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, awaitDial)
			defer cancel()
			conn, err := dial(ctx, r.Address)
			if err != nil {
				return err
			}
			return conn.Close()
		}
	case manifest.ReadyFile:
		once = func(context.Context) error {
			_, err := os.Stat(r.File)
			return err
		}
	case manifest.ReadyCheck:
		once = func(ctx context.Context) error { return p.Try(ctx, r.Check) }
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	cause := error(nil)
	for wait := awaitFirst; ; wait = min(wait*3/2, awaitLast) {
		select {
		case <-ctx.Done():
			if cause == nil {
				cause = ctx.Err()
			}
			return fmt.Errorf("waiting for readiness by %s: %w", r.Kind, cause)
		case <-timer.C:
		}
		err := once(ctx)
		if err == nil {
			return nil
		}
		// A connection that is given up at the very end tells nothing; that it is the end it
		// may notice before ctx does.
		if end, ok := ctx.Deadline(); ctx.Err() == nil && (cause == nil || !ok || time.Now().Before(end)) {
			cause = err
		}
		timer.Reset(wait)
	}
}
