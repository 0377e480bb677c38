package cli

import (
	"context"
	"errors"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// errSeen ends a watch that has seen enough.
var errSeen = errors.New("seen enough")

// watch calls each with the pictures of the node until ctx ends, each fails, or
// the daemon stays away. A monitor that is replaced meanwhile is no end.
func watch(ctx context.Context, t *tool, every time.Duration, each func(*gemelv1.Snapshot) error) error {
	client, err := t.dial()
	if err != nil {
		return err
	}
	patience := client.Patience()
	for {
		stream, err := client.WatchStatus(ctx, &gemelv1.WatchStatusRequest{IntervalMs: uint32(every.Milliseconds())})
		for err == nil && stream.Receive() {
			patience.Back()
			if err := each(stream.Msg().GetSnapshot()); err != nil {
				_ = stream.Close() // what each says is what counts
				if errors.Is(err, errSeen) {
					return nil
				}
				return err
			}
			if t.out.err != nil {
				return errors.Join(t.out.err, stream.Close())
			}
		}
		if err == nil {
			if err = stream.Err(); err == nil {
				err = ended("the stream of pictures")
			}
			_ = stream.Close() // it ended already
		}
		if err := patience.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// ended is the error of a stream that the daemon ended without saying why.
func ended(what string) error {
	return &ha.Error{Kind: ha.ErrUnavailable, Reason: "connection", Err: errors.New("gemel ended " + what)}
}
