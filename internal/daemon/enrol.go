package daemon

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/proc"
	"gemel/internal/roll"
	"gemel/internal/status"
	"gemel/internal/store"
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
		Free:     m.free, Ends: endings(m.o.Identity.Name, m.was.alarms, func(e ha.Event) { m.h.engine.Alarm(e.Code, e.Subject, e.Severity, e.Detail) }), Sealed: func() error { return sealed(m) },
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

// sealed takes up other keys of the heartbeats while they go on.
func sealed(m *member) error {
	c, err := m.paths()
	if err != nil {
		return err
	}
	return m.station.Change(c)
}

// endings makes an alarm of certificates that should have been renewed, and takes it away.
// What it returns is called by one goroutine.
func endings(me ha.Node, standing []ha.Event, tell func(ha.Event)) func([]mtls.Expiry) {
	var told ha.Event // as it stands
	about := ha.Subject{Kind: ha.KindNode, Name: string(me)}
	for _, a := range standing {
		if a.Code == ha.CertificateEnds && a.Subject == about {
			told = a
		}
	}
	return func(list []mtls.Expiry) {
		e := ha.Event{Code: ha.CertificateEnds, Subject: about, Change: ha.Assert, Severity: ha.Minor}
		var texts []string
		for _, x := range list {
			texts = append(texts, fmt.Sprintf("%s ends at %s: %s", x.Name, x.Until.UTC().Format(time.RFC3339), x.Do))
			if x.Left < urgent {
				e.Severity = ha.Major
			}
		}
		e.Detail = strings.Join(texts, "; ")
		if e.Detail == told.Detail && (e.Severity == told.Severity || e.Detail == "") {
			return
		}
		told = e
		if e.Detail == "" {
			e.Change, e.Severity, e.Detail = ha.Clear, ha.OK, "all of them are good for long enough"
		}
		tell(e)
	}
}

// urgent is how long before the end of a certificate its alarm is a major one.
const urgent = 30 * 24 * time.Hour

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
	text, until, at, err := e.m.clerk.Token(ctx, witness, name, life)
	if errors.Is(err, store.ErrUnknown) {
		// This monitor is being replaced, or the store was away: a token that nobody was
		// given is good for nothing, and another one can be made.
		err = &ha.Error{Kind: ha.ErrUnavailable, Reason: "ending", Hint: "ask again", Err: err}
	}
	return text, until, at, err
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

// Certificates tells the certificates and keys of the cluster. A key of the heartbeats is
// told by its number alone.
func (e enrolment) Certificates(ctx context.Context) (out status.Keys, err error) {
	if err := e.none(); err != nil {
		return out, err
	}
	ring, err := roll.Ring{}.Read(ctx, e.m.clerk)
	if err != nil {
		return out, err
	}
	out.UnderWay = ring.UnderWay
	for _, c := range ring.List {
		out.Certificates = append(out.Certificates, status.Certificate{Name: c.Name.String(), Purpose: purpose(c), Until: c.Until, By: c.By, Signs: c.Signs, Trouble: c.Do})
	}
	for _, k := range ring.Keys {
		b, err := hex.DecodeString(k)
		if err != nil {
			return out, fmt.Errorf("the keys of the heartbeats: %w", err)
		}
		out.Heartbeats = append(out.Heartbeats, fmt.Sprintf("%08x", keyID(b)))
	}
	return out, nil
}

// purpose says what a certificate is for.
func purpose(c mtls.Expiry) string {
	if c.Signs {
		return map[string]string{"nodes": "vouches for nodes, witnesses and people", "store": "vouches for the members of the store", "agents": "vouches for agents"}[c.Name.Name]
	}
	return map[mtls.Role]string{mtls.Node: "calls between nodes", mtls.Witness: "calls of a witness", mtls.Peer: "its member of the store",
		mtls.Manager: "jobs at agents", mtls.Agent: "an agent", mtls.Person: "a person"}[c.Name.Role]
}

// Rotate begins to replace keys of the whole cluster.
func (e enrolment) Rotate(ctx context.Context, what []string) error {
	if err := e.none(); err != nil {
		return err
	}
	return roll.Ring{}.Rotate(ctx, e.m.clerk, what)
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
