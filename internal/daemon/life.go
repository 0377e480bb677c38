package daemon

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/rpc"
)

// Replace is how a life of the monitor ends that another binary goes on with, in
// the same pid.
type Replace struct {
	Path string
	Env  string // is set to Path
	Args []string
	FD   int // the socket to the shadow, -1 if there is none
	API  *rpc.Handed
}

func (r *Replace) Error() string { return "to be replaced by " + r.Path }

// Exec puts the other binary in the place of this one. It returns only an error.
func (r *Replace) Exec() error {
	env := make([]string, 0, len(os.Environ())+2)
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, proc.PairEnv+"=") {
			env = append(env, kv)
		}
	}
	env = append(env, r.Env+"="+r.Path)
	if r.FD >= 0 {
		if _, err := unix.FcntlInt(uintptr(r.FD), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keeping the socket to the shadow: %w", err)
		}
		env = append(env, proc.PairEnv+"="+strconv.Itoa(r.FD))
	}
	if r.API != nil {
		if _, err := unix.FcntlInt(uintptr(r.API.FD), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keeping the socket of the API: %w", err)
		}
		env = append(env, fmt.Sprintf("%s=%d %d %d", apiEnv, r.API.FD, r.API.Dev, r.API.Ino))
	}
	return fmt.Errorf("becoming %s: %w", r.Path, syscall.Exec(r.Path, r.Args, env))
}

// pairFD is the number of the socket to the shadow that started this monitor.
func pairFD() int {
	n, err := strconv.Atoi(os.Getenv(proc.PairEnv))
	if err != nil || n < 3 {
		return -1
	}
	// Nothing that the monitor starts may think that it is one.
	_ = os.Unsetenv(proc.PairEnv)
	return n
}

// apiEnv names the variable that tells a monitor which socket of the API the program
// before it in this process left open.
const apiEnv = "GEMEL_API_SOCKET"

// handedAPI is that socket; nil if there is none.
func handedAPI() *rpc.Handed {
	text, ok := os.LookupEnv(apiEnv)
	if !ok {
		return nil
	}
	_ = os.Unsetenv(apiEnv) // nothing that the monitor starts may think that it is meant
	var h rpc.Handed
	if _, err := fmt.Sscanf(text, "%d %d %d", &h.FD, &h.Dev, &h.Ino); err != nil || h.FD < 3 {
		return nil
	}
	if _, err := unix.FcntlInt(uintptr(h.FD), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil
	}
	return &h
}

// patience is how long a service manager is given to start a new shadow.
func patience() time.Duration {
	if proc.Managed() {
		return 2 * time.Second
	}
	return 0
}

// life ends or replaces Gemel for the API.
type life struct {
	h   *hands
	cut context.CancelCauseFunc
}

// Detach leaves the programs and ends both halves.
func (l life) Detach(context.Context) error {
	l.h.engine.Note(ha.Detached, ha.OfNode(), "asked for by gemel detach")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := l.h.engine.Turn(ctx); err != nil {
		return fmt.Errorf("detaching: the engine does not answer: %w", err)
	}
	l.later(func() {
		if err := l.h.link.Send(proc.Order{Kind: proc.OrderDetach}); err != nil {
			l.h.o.Log.Error("the shadow was not told to detach", "error", err)
		}
		l.cut(errStopped)
	})
	return nil
}

// Shutdown stops every program and then ends.
func (l life) Shutdown(_ context.Context, why string) error {
	l.h.engine.Quit(why)
	return nil
}

// later does what ends this life only after the answer had time to leave.
func (l life) later(f func()) {
	l.h.group.wg.Go(func() {
		t := time.NewTimer(50 * time.Millisecond)
		defer t.Stop()
		select {
		case <-l.h.group.ctx.Done():
		case <-t.C:
			f()
		}
	})
}
