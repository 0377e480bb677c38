package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/roll"
)

// againEnv tells a monitor that it was put in the place of the one before by exec, to
// take up that its cluster has changed.
const againEnv = "GEMEL_AGAIN"

// home is where this machine keeps what it is to its cluster.
func (o Options) home() roll.Home { return roll.HomeOf(o.Places) }

// way is how this machine reaches the embedded store: by its own member or, until that
// votes, by way of another machine. A witness, and a member of a cluster that was set up
// by hand, has its own or nothing.
func way(m *member) func(context.Context) (net.Conn, error) {
	if m.o.Identity.Witness || !m.o.home().Made() {
		return nil
	}
	return func(ctx context.Context) (net.Conn, error) {
		if m.clerk == nil {
			return nil, errors.New("this machine does not know yet who is in its cluster")
		}
		return m.clerk.Way(ctx, m.o.storeSocket())
	}
}

// era is that of the cluster.
func (o Options) era() uint64 {
	if r, err := o.home().Read(); err == nil && r.Era != 0 {
		return r.Era
	}
	return 1
}

// enrol gives a member its clerk. A cluster that was set up by hand has none.
func (m *member) enrol() error {
	c := &roll.Clerk{
		Home: m.o.home(), Store: m.client, Log: m.o.Log,
		Manifest: func() []byte { _, b, _ := m.h.engine.Current(); return b },
		Changed:  func(roll.Roll) { again(m) },
		Warn:     func(text string) { m.o.Log.Warn(text) },
	}
	err := c.Open()
	if errors.Is(err, fs.ErrNotExist) && m.o.Identity.Store.External() || errors.Is(err, fs.ErrNotExist) && !m.o.home().Made() {
		return nil
	}
	if err != nil {
		return err
	}
	m.clerk = c
	return nil
}

// again ends this life of the monitor and begins the next, by exec in the same pid,
// which takes up what has changed. No program notices.
func again(m *member) {
	l := life{h: m.h, cut: m.h.group.cancel}
	l.later(func() {
		if err := replace(m.h, l.cut, proc.ImageOf(os.Getpid()), againEnv); err != nil {
			m.o.Log.Error("the change of the cluster is taken up with the next start of the monitor", "error", err)
		}
	})
}

// enrolled runs what keeps this machine in step with its cluster.
func (m *member) enrolled(g *group) {
	if m.clerk == nil {
		return
	}
	g.start(m.clerk.Run)
	g.start(func(ctx context.Context) error { return m.clerk.Serve(ctx, m.o.storeSocket()) })
}

// enrolment answers the questions of the API about who is in the cluster.
type enrolment struct{ m *member }

// none is the refusal of a machine that is in no cluster, or in one made by hand.
func (e enrolment) none() error {
	if e.m == nil {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "no-cluster", Hint: "gemel init makes one", Err: errors.New("this machine is in no cluster")}
	}
	if e.m.clerk == nil {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "by-hand", Hint: "its machines are listed in node.yaml", Err: errors.New("this cluster was not made by gemel init")}
	}
	return nil
}

// Token makes a token for a newcomer.
func (e enrolment) Token(ctx context.Context, witness bool, name string, life time.Duration) (string, time.Time, []string, error) {
	if err := e.none(); err != nil {
		return "", time.Time{}, nil, err
	}
	return e.m.clerk.Token(ctx, witness, name, life)
}

// departTime bounds how long the groups of a node that leaves may take to stop.
const departTime = 5 * time.Minute

// Leave takes this machine out of its cluster: groups first, then its name, its vote
// and its certificates, and at last everything that runs here.
func (e enrolment) Leave(ctx context.Context, by string, with bool) error {
	if err := e.none(); err != nil {
		return err
	}
	if err := e.m.clerk.May(with); err != nil {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "leave", Err: err}
	}
	if e.m.loop != nil {
		within, cancel := context.WithTimeout(ctx, departTime)
		defer cancel()
		if err := e.m.loop.Depart(within); err != nil {
			return &ha.Error{Kind: ha.ErrUnavailable, Reason: "leave", Err: err, Hint: "gemel status shows which group does not stop; the same command goes on"}
		}
	}
	if err := e.m.clerk.Depart(ctx, with); err != nil {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "leave", Err: err, Hint: "gemel restart of this node joins it again; the same command goes on"}
	}
	if err := e.m.clerk.Forget(); err != nil {
		return err
	}
	return life{h: e.m.h, cut: e.m.h.group.cancel}.Shutdown(ctx, "left its cluster, asked for by "+by)
}

// Renew gets new certificates for this machine, all of them.
func (e enrolment) Renew(ctx context.Context) error {
	if err := e.none(); err != nil {
		return err
	}
	return e.m.clerk.Renew(ctx, true)
}

// Backup writes the whole store.
func (e enrolment) Backup(ctx context.Context, w io.Writer) error {
	if e.m == nil {
		return e.none()
	}
	return e.m.client.Backup(ctx, w)
}

// stayed refuses to begin on a machine that has left its cluster: what the manifest
// says runs elsewhere.
func (o Options) stayed() error {
	path := roll.LeftFile(o.home())
	b, err := os.ReadFile(path)
	if err != nil || o.Identity != nil {
		return nil
	}
	return &ha.Error{Kind: ha.ErrRefused, Reason: "left", Hint: "gemel join takes it in again; to run a manifest here alone: rm " + path,
		Err: fmt.Errorf("nothing is started: %s. What its manifest says may run on the others now", strings.TrimSpace(string(b)))}
}
