package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// tunnelSocket is where a machine that does not vote finds the store.
func (o Options) tunnelSocket() string { return filepath.Join(o.Places.Run, "tunnel.sock") }

// nearest is the socket by which this machine reaches the embedded store. A witness
// has its own member or nothing.
func (o Options) nearest() string {
	if o.Identity.Witness || self(o.Identity).Voter && !o.home().Joining() {
		return o.storeSocket()
	}
	return o.tunnelSocket()
}

// era is that of the cluster.
func (o Options) era() uint64 {
	if r, err := o.home().Read(); err == nil && r.Era != 0 {
		return r.Era
	}
	return 1
}

// alone reports whether no other node is in the cluster, as it says on this machine. A
// cluster that was set up by hand is never known to be so, and after a restore others may
// be there that nobody knows of.
func (o Options) alone() bool {
	r, err := o.home().Read()
	if err != nil || o.Identity == nil || r.Era != 1 {
		return false
	}
	for _, n := range r.Nodes {
		if n.Name != o.Identity.Name && !n.Witness {
			return false
		}
	}
	return true
}

// free refuses a second node while programs of groups run here by no right: those that ran
// before there was a cluster.
func (m *member) free(ctx context.Context) error {
	list, err := m.h.engine.Unowned(ctx)
	if err == nil && len(list) > 0 {
		err = fmt.Errorf("%v came to run before this cluster did, and their groups have no authority here yet", list)
	}
	return err
}

// enrol gives a member its clerk. A cluster that was set up by hand has none.
func (m *member) enrol() error {
	c := &roll.Clerk{
		Home: m.o.home(), Store: m.client, Log: m.o.Log,
		Manifest: func() []byte { _, b, _ := m.h.engine.Current(); return b },
		Changed:  func(roll.Roll) { again(m) },
		Warn:     func(text string) { m.o.Log.Warn(text) },
		Free:     m.free,
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
	g.start(func(ctx context.Context) error { return m.clerk.Tunnel(ctx, m.o.tunnelSocket(), m.o.storeSocket()) })
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
	if o.home().Unfinished() {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "restoring", Hint: "gemel restore FILE again, as before: it goes on",
			Err: errors.New("nothing is started: a restore was begun here and has not come to its end")}
	}
	path := roll.LeftFile(o.home())
	b, err := os.ReadFile(path)
	if err != nil || o.Identity != nil {
		return nil
	}
	return &ha.Error{Kind: ha.ErrRefused, Reason: "left", Hint: "gemel join takes it in again; to run a manifest here alone: rm " + path,
		Err: fmt.Errorf("nothing is started: %s. What its manifest says may run on the others now", strings.TrimSpace(string(b)))}
}
