package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// ending is one of the two ways to end Gemel.
type ending struct {
	use, short, long string
	ask              func(context.Context) (proto.Message, error)
	done, begun      func(proto.Message) string // what is printed when it has ended, and with --no-wait
}

func detachCommand(t *tool) *cobra.Command {
	running := func(m proto.Message) string { return plural(int(m.(*gemelv1.DetachResponse).GetRunning()), "process") }
	return endCommand(t, ending{use: "detach", short: "end the daemon and leave the programs running",
		long: "Ends both halves of Gemel. The programs run on, unwatched; the next gemel run finds them.",
		ask: func(ctx context.Context) (proto.Message, error) {
			return t.client.Detach(ctx, &gemelv1.DetachRequest{})
		},
		done:  func(m proto.Message) string { return "detached; " + running(m) + " still running, unwatched" },
		begun: func(m proto.Message) string { return "detaching; " + running(m) + " will run on, unwatched" }})
}

func shutdownCommand(t *tool) *cobra.Command {
	running := func(m proto.Message) string {
		return plural(int(m.(*gemelv1.ShutdownResponse).GetRunning()), "process")
	}
	return endCommand(t, ending{use: "shutdown", short: "stop every program in reverse order, then end",
		long: "Stops every program in reverse order, then ends both halves of Gemel.",
		ask: func(ctx context.Context) (proto.Message, error) {
			return t.client.Shutdown(ctx, &gemelv1.ShutdownRequest{Reason: "gemel shutdown"})
		},
		done:  func(m proto.Message) string { return "stopped " + running(m) + " and ended" },
		begun: func(m proto.Message) string { return "stopping " + running(m) + ", then Gemel" }})
}

// endCommand returns when both halves are gone, so that a gemel run after it is
// not refused.
func endCommand(t *tool, e ending) *cobra.Command {
	var wait patienceOf
	c := &cobra.Command{
		Use: e.use, GroupID: "daemon", Args: args(0, 0), Short: e.short,
		Long: e.long + " It returns when\nthey are gone. Nothing is taken back when --timeout is over or the command is interrupted.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := wait.check(); err != nil {
				return err
			}
			return t.end(c.Context(), e, wait)
		},
	}
	wait.flags(c)
	return c
}

func (t *tool) end(ctx context.Context, e ending, wait patienceOf) error {
	s, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	halves := holding(s.GetNode().GetShadow(), s.GetNode().GetMonitor())
	defer halves.close()
	r, err := e.ask(ctx)
	if err != nil {
		return err
	}
	gone := false
	if !wait.not {
		if gone, err = t.gone(ctx, halves, wait.bound); err != nil {
			return err
		}
	}
	switch {
	case t.json:
		o := object(r)
		o["ended"] = gone
		if err := t.printJSON(o); err != nil {
			return err
		}
	case gone:
		fmt.Fprintf(t.out, "%s\n  to start it again: %s\n", e.done(r), t.command("gemel run"))
	default:
		fmt.Fprintf(t.out, "%s\n  to start it again, when it has ended: %s\n", e.begun(r), t.command("gemel run"))
	}
	if gone || wait.not {
		return nil
	}
	if !t.json {
		t.say(fmt.Sprintf("it has not ended after %s%s; it goes on", ha.Span(wait.bound), t.unfinished(ctx)))
	}
	return exitStatus(ExitFailed)
}

// gone waits for the end of both halves.
func (t *tool) gone(ctx context.Context, halves pidfds, bound time.Duration) (bool, error) {
	begun, told := time.Now(), t.json
	for {
		switch left, err := halves.left(); {
		case err != nil:
			return false, err
		case left == 0:
			return true, nil
		case ctx.Err() != nil:
			return false, context.Cause(ctx)
		case time.Since(begun) > bound:
			return false, nil
		case !told && time.Since(begun) > reachTell:
			told = true
			t.say("waiting for its end" + t.unfinished(ctx))
		}
	}
}

// unfinished names the processes that are being stopped, where that is to be had.
func (t *tool) unfinished(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := t.snapshot(ctx)
	if err != nil {
		return ""
	}
	var names []string
	for _, p := range s.GetProcesses() {
		if p.GetState() == "stopping" || p.GetState() == "stuck" {
			names = append(names, p.GetName())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": being stopped: " + strings.Join(names[:min(len(names), 5)], ", ")
}

// pidfds hold processes, so that another one with the same pid is not taken for
// one of them.
type pidfds []int

// holding opens those of the pids that are there.
func holding(pids ...int32) (out pidfds) {
	for _, pid := range pids {
		if pid <= 0 {
			continue
		}
		if fd, err := unix.PidfdOpen(int(pid), 0); err == nil {
			out = append(out, fd)
		}
	}
	return out
}

// left waits a moment and tells how many are still there.
func (p pidfds) left() (int, error) {
	fds := make([]unix.PollFd, len(p))
	for i := range p {
		fds[i] = unix.PollFd{Fd: int32(p[i]), Events: unix.POLLIN}
	}
	ended := 0
	if _, err := unix.Poll(fds, 0); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("waiting for the end of gemel: %w", err)
	}
	rest := fds[:0]
	for _, f := range fds {
		if f.Revents != 0 {
			ended++
			continue
		}
		rest = append(rest, f)
	}
	if len(rest) > 0 {
		if _, err := unix.Poll(rest, int(reachLook.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, fmt.Errorf("waiting for the end of gemel: %w", err)
		}
	}
	return len(p) - ended, nil
}

func (p pidfds) close() {
	for _, fd := range p {
		_ = unix.Close(fd)
	}
}
