package shadow

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

// rights are what programs of groups run by. Where no group ever was it is nothing
// but a nil pointer.
type rights struct {
	of    *shadow
	keep  *lapse.Keeper // nil: no right was ever given
	event int           // eventfd: there are news
	guard guardian
	soon  bool   // the thread of the loop has real-time scheduling
	slow  string // why it has not, although it was asked for
	gates gates
	watch watch
}

// inherit takes over the deadlines of the shadow before this one, if it had any.
func (r *rights) inherit() error {
	s := r.of
	if !lapse.Needed(s.c.RunDir, s.table) {
		return nil
	}
	return r.open()
}

func (r *rights) open() (err error) {
	s := r.of
	if r.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("making the eventfd of the deadlines: %w", err)
	}
	fd := r.event
	r.keep, err = lapse.Open(
		lapse.Config{RunDir: s.c.RunDir, Withdraw: s.c.Withdraw, Reset: s.c.Reset, Log: s.c.Log},
		lapse.Hooks{Table: s.table, RealTime: s.c.RealTime, News: func() { _, _ = unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }},
	)
	if err == nil {
		err = s.poll.add(fd, func() {
			var b [8]byte
			_, _ = unix.Read(fd, b[:])
			r.tell()
		})
	}
	if err != nil {
		r.close()
		return err
	}
	r.watch.keep.Store(r.keep)
	return nil
}

// run begins to hold the deadlines on a thread of its own.
func (r *rights) run() error {
	if r.keep == nil {
		return nil
	}
	if err := r.keep.Run(r.of.tree); err != nil {
		return err
	}
	if r.keep.Holds() {
		r.want()
	}
	return nil
}

// want makes sure that everything is there that deadlines are held with.
func (r *rights) want() {
	s := r.of
	if s.c.RealTime && !r.soon && r.slow == "" {
		if err := proc.RealTime(true); err != nil {
			s.c.Log.Warn("deadlines are kept less exactly on a busy machine", "err", err)
			r.slow = err.Error()
		}
		if r.soon = r.slow == ""; r.soon {
			proc.Stay()
			lapse.Roomy()
		}
	}
	r.guard.want(s)
}

// plain does something on the thread of the loop that is not to be done, or inherited,
// in real time.
func (r *rights) plain(do func() error) error {
	if r.soon {
		_ = proc.RealTime(false) // what was given can be given back
		defer func() { _ = proc.RealTime(true) }()
	}
	return do()
}

func (r *rights) close() {
	r.watch.keep.Store(nil)
	if r.keep != nil {
		r.keep.Close()
		r.keep = nil
	}
	if r.event >= 0 {
		r.of.poll.del(r.event)
		unix.Close(r.event)
		r.event = -1
	}
	r.guard.close(r.of)
	r.gates.close()
}

// give carries out OrderRights.
func (r *rights) give(list []proc.Right) {
	s := r.of
	if r.keep == nil {
		if len(list) == 0 {
			return
		}
		err := r.open()
		if err == nil {
			err = r.run()
		}
		if err != nil {
			r.close()
			s.c.Log.Error("the deadlines of groups cannot be held: none of them is started", "err", err)
			for _, g := range list {
				r.refuse(g, err)
			}
			return
		}
	}
	for i := range list {
		list[i].Kill = r.watch.kill(list[i])
	}
	given := r.keep.Give(list)
	for _, x := range given.Refused {
		s.c.Log.Warn("a right was not taken", "group", x.Right.Group, "fence", x.Right.Fence, "err", x.Err)
		r.refuse(x.Right, x.Err)
	}
	r.gates.open(r, list, given.Refused)
	for _, g := range given.Changed {
		r.rearm(g)
	}
	if len(list) > 0 {
		r.want()
	}
}

func (r *rights) refuse(g proc.Right, err error) {
	r.of.report(proc.Report{Kind: proc.ReportRefused, Group: g.Group, Fence: g.Fence, At: clock.Now(), Error: err.Error()})
}

// entrust carries out OrderEntrust. Deadline, guard and gate hold for the program when it
// is reported.
func (r *rights) entrust(o *proc.Order) {
	s, c := r.of, r.of.kids[o.Start]
	err := func() error {
		switch {
		case c == nil, c.exit != nil, c.pidfd < 0, dead(c.pidfd):
			return errors.New("it does not run")
		case c.owner == o.Group:
			return nil // ordered again
		case c.owner != "":
			return fmt.Errorf("it runs by the right of group %s", c.owner)
		case c.stop != nil:
			return errors.New("its stop was ordered")
		case r.keep == nil:
			return lapse.ErrNone
		}
		return lapse.Take(r.keep, o.Group, o.Fence, o.Start)
	}()
	if err == nil && c.owner != o.Group {
		c.owner = o.Group
		if c.group != nil {
			r.gates.hold(s, c.owner, c.group)
		}
		rearm(c) // its successor is one of the group
	}
	out := proc.Report{Kind: proc.ReportEntrusted, Process: o.Process, Start: o.Start, Group: o.Group, Fence: o.Fence, At: clock.Now()}
	if err != nil {
		out.Error, out.Unentitled = err.Error(), errors.Is(err, lapse.ErrNone)
	}
	s.report(out)
}

// rearm makes the standing orders of a group anew: a child that is parked has the
// fence in its environment.
func (r *rights) rearm(g ha.Group) {
	for _, c := range r.of.kids {
		if c.owner == g {
			rearm(c)
		}
	}
}

// tell tells the monitor what happened to groups.
func (r *rights) tell() {
	if r.keep == nil {
		return
	}
	s := r.of
	for _, n := range r.keep.News() {
		if n.Stuck == "" {
			s.c.Log.Warn("the deadline of a group has come: what runs of it is killed", "group", n.Group, "fence", n.Fence)
			s.report(proc.Report{Kind: proc.ReportLapsed, Group: n.Group, Fence: n.Fence, At: n.At})
			r.rearm(n.Group)
			continue
		}
		for _, c := range s.kids {
			if c.owner == n.Group {
				sayStuck(c, "at the end of the authority for group "+string(n.Group))
			}
		}
	}
}

// hello tells a monitor how things are.
func (r *rights) hello() {
	r.watch.tell()
	if r.keep == nil {
		return
	}
	r.tell()
	for _, n := range r.keep.Lapsed() {
		r.of.report(proc.Report{Kind: proc.ReportLapsed, Group: n.Group, Fence: n.Fence, At: n.At})
	}
	r.guard.tell(r.of)
}

// pass tells by what a start of a group may be made ready.
func (r *rights) pass(g ha.Group) (lapse.Pass, error) {
	if r.keep == nil {
		return lapse.Pass{}, fmt.Errorf("%w for group %s", lapse.ErrNone, g)
	}
	return r.keep.Pass(g)
}

// fits reports whether what was made ready may be used now.
func (r *rights) fits(n *successor) bool {
	p, err := r.pass(n.owner)
	return err == nil && p == n.pass
}

func (r *rights) begin(g ha.Group, p lapse.Pass, stop bool) (end func(), err error) {
	if r.keep == nil {
		return nil, fmt.Errorf("%w for group %s", lapse.ErrNone, g)
	}
	return r.keep.Begin(g, p, stop)
}

// stop allows a stop command.
func (r *rights) stop(g ha.Group) (f ha.Fence, end func(), err error) {
	if end, err = r.begin(g, lapse.Pass{}, true); err == nil {
		f = r.keep.Fence(g)
	}
	return f, end, err
}

// over reports whether the time is over in which programs of a group are stopped in
// good order.
func (r *rights) over(g ha.Group) bool {
	if g == "" {
		return false
	}
	end, err := r.begin(g, lapse.Pass{}, true)
	if err != nil {
		return true
	}
	end()
	return false
}

// owner is by whose right a start runs.
func (r *rights) owner(start ha.StartID) ha.Group {
	if r.keep == nil {
		return ""
	}
	return r.keep.Owner(r.of.table.Member(start))
}

// membership is what a program of a group is told.
func membership(g ha.Group, f ha.Fence) []string {
	return []string{"GEMEL_GROUP=" + string(g), "GEMEL_FENCE=" + f.String(), "GEMEL_ROLE=active"}
}
