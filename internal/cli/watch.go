package cli

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

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
	ctx, stop := t.out.reader(ctx)
	defer stop()
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
			return because(ctx, err)
		}
	}
}

// ended is the error of a stream that the daemon ended without saying why.
func ended(what string) error {
	return &ha.Error{Kind: ha.ErrUnavailable, Reason: "connection", Err: errors.New("gemel ended " + what)}
}

// reader returns a context that ends when nobody can read the answer any more: a
// command that waits for something to happen would find out only when it next
// writes, and what began "gemel events -f | head -1" would wait for it. What is
// returned with it ends the look-out.
func (s *screen) reader(ctx context.Context) (context.Context, func()) {
	f, ok := s.w.(*os.File)
	if !ok {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			// No event is asked for: an error is told all the same.
			look := []unix.PollFd{{Fd: int32(f.Fd())}}
			if n, err := unix.Poll(look, int(lookEvery.Milliseconds())); n > 0 && err == nil && look[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
				cancel(signalled(unix.SIGPIPE))
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// lookEvery bounds how long the look-out outlives its command.
const lookEvery = 100 * time.Millisecond

// because returns what a context ended for, where err only says that it ended.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return context.Cause(ctx)
	}
	return err
}
