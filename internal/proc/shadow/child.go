package shadow

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
	"gemel/internal/proc/output"
	"gemel/internal/proc/spawn"
)

// programs are what the shadow starts: the specs it was given, and the starts that
// run or whose exit is not acknowledged.
type programs struct {
	of       *shadow
	tree     *spawn.Tree
	table    *spawn.Table
	specs    map[ha.Process]*program
	kids     map[ha.StartID]*child
	starts   map[ha.Process][]*child    // the same, by process
	helpers  map[int]struct{}           // pidfds of stop commands
	late     map[*child]struct{}        // ended, and not told yet because nobody knows how
	deferred map[ha.StartID]*proc.Order // starts that wait for the end of an older copy to be told
	unready  []*child                   // whose standing order waits until there is nothing else to do
	settled  []*child                   // whose end is written down, to be taken away
	untold   []func()                   // reports of exits that wait until the successors of this round run
}

// program is a Spec with what its starts share.
type program struct {
	spec *proc.Spec
	out  int // descriptor for what it prints; -1: /dev/null
}

// child is one start: running, or ended and not acknowledged.
type child struct {
	of      *shadow
	process ha.Process
	start   ha.StartID
	pid     int
	pidfd   int // -1: it ended while nobody looked
	since   ha.Instant
	group   *spawn.Cgroup
	next    *successor // the standing order
	stop    *stopping
	exit    *ha.ExitStatus // nil while it runs
	died    time.Time      // when the exit was seen
	heir    *child         // its successor by the standing order
	owner   ha.Group       // by whose right it runs; "": by none
	fate
}

// fate is what became known of an end.
type fate struct {
	told  bool // the exit was reported
	acked bool // the exit is written down
	stuck bool // told as unkillable
}

// successor is a start made ready, for now or for the death of another.
type successor struct {
	start  ha.StartID
	group  *spawn.Cgroup
	ready  *spawn.Ready
	parked *spawn.Parked
	row    bool   // of the table, to be given back
	made   *child // the shadow before carried the order out
	owner  ha.Group
	pass   lapse.Pass // that it was made ready with, if it has an owner
}

// prepare makes a start ready. Park leaves its child waiting before the exec.
func (ps *programs) prepare(p ha.Process, start ha.StartID, park bool) (n *successor, err error) {
	s := ps.of
	pr := s.specs[p]
	if pr == nil {
		return nil, fmt.Errorf("no specification of %s was given", p)
	}
	if c := s.kids[start]; c != nil {
		return nil, fmt.Errorf("start %d ran already, as pid %d", start, c.pid)
	}
	n = &successor{start: start, owner: pr.spec.Group}
	if n.owner != "" {
		if n.pass, err = s.rights.pass(n.owner); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			s.discard(n)
			n = nil
		}
	}()
	if n.group, err = s.tree.Make(p, start, pr.spec); err != nil {
		return n, err
	}
	slot, err := s.table.Claim(start, p)
	if err != nil {
		return n, err
	}
	n.row = true
	if n.owner != "" {
		slot.Belong(n.pass.Number)
	}
	s.point("claimed")
	n.ready, err = spawn.Prepare(pr.spec, s.options(pr, n, slot))
	if err != nil {
		return n, err
	}
	if park {
		// Without a parked child the start is only slower.
		if n.parked, err = n.ready.Park(); err != nil {
			s.c.Log.Warn("a child could not be parked", "process", p, "err", err)
			n.parked, err = nil, nil
		}
	}
	return n, nil
}

func (ps *programs) options(pr *program, n *successor, slot *spawn.Slot) spawn.Options {
	s := ps.of
	o := spawn.Options{
		Start: n.start, Cgroup: n.group, Slot: slot, Handover: s.link.fd, Hold: s.lock.FD,
		Stdin: -1, Stdout: pr.out, Stderr: pr.out,
	}
	if pr.spec.Output == "inherit" {
		o.Stdout, o.Stderr = 1, 2
	}
	name := string(pr.spec.Process)
	if pr.spec.Notify {
		o.Env = append(o.Env, "NOTIFY_SOCKET="+filepath.Join(s.c.RunDir, "notify", name+".sock"))
	}
	if pr.spec.Beats {
		o.Env = append(o.Env, "GEMEL_BEAT_PAGE="+filepath.Join(s.c.RunDir, "beats", name))
	}
	if pr.spec.Role != "" {
		o.Env = append(o.Env, "GEMEL_ROLE_FILE="+filepath.Join(proc.RoleDir(s.c.RunDir), string(pr.spec.Role)))
		if pr.spec.Group == "" { // else by its right
			o.Env = append(o.Env, "GEMEL_GROUP="+string(pr.spec.Role), "GEMEL_ROLE=standby")
		}
	}
	if pr.spec.Watchdog > 0 {
		// Without WATCHDOG_PID, which would have to be known before the clone, the
		// protocol takes the value as meant for whoever reads it.
		o.Env = append(o.Env, "WATCHDOG_USEC="+strconv.FormatInt(pr.spec.Watchdog.Microseconds(), 10))
	}
	if n.owner != "" {
		o.Env = append(o.Env, membership(n.owner, n.pass.Fence)...)
	}
	return o
}

// launch makes the program. Nothing but the clone is done here, and what a right
// needs around it.
func (ps *programs) launch(n *successor) (spawn.Child, error) {
	if n.owner == "" {
		return n.launch()
	}
	end, err := ps.of.rights.begin(n.owner, n.pass, false)
	if err != nil {
		return spawn.Child{}, err
	}
	defer end()
	return n.launch()
}

func (n *successor) launch() (spawn.Child, error) {
	if n.parked != nil {
		c, err := n.parked.Release()
		n.parked = nil
		if err == nil {
			return c, nil
		}
	}
	return n.ready.Start()
}

// discard takes back a start that is not to be.
func (ps *programs) discard(n *successor) {
	s := ps.of
	if n.parked != nil {
		n.parked.Discard()
	}
	if n.ready != nil {
		n.ready.Close()
	}
	if n.group != nil {
		s.removeGroup(n.group)
	}
	if n.row {
		s.table.Free(n.start)
	}
}

// repark makes the parked children anew for another monitor: each announces itself
// over the socket that it was born with.
func (ps *programs) repark() {
	s := ps.of
	for _, c := range s.kids {
		n := c.next
		if n == nil || n.parked == nil {
			continue
		}
		n.parked.Discard()
		var err error
		if n.parked, err = n.ready.Park(); err != nil {
			s.c.Log.Warn("a child could not be parked", "process", c.process, "err", err)
			n.parked = nil
		}
	}
}

// disarm takes the standing order of c back.
func (c *child) disarm() {
	s := c.of
	if c.next != nil && c.next.made == nil {
		s.discard(c.next)
		c.next = nil
	}
}

// removeGroup removes an empty control group. The kernel may keep it busy for a
// moment after the last process.
func (ps *programs) removeGroup(g *spawn.Cgroup) {
	s := ps.of
	err := g.Remove()
	if err == nil {
		g.Close()
		return
	}
	if !errors.Is(err, unix.EBUSY) {
		s.c.Log.Warn("a control group was not removed", "err", err)
		g.Close()
		return
	}
	s.poll.after(50*time.Millisecond, g, func() {
		// The same start may have been made ready again.
		if id := g.Start(); s.kids[id] == nil && !s.armed(id) {
			s.removeGroup(g)
		}
	})
}

// hold begins to watch a started program. It takes the pidfd and the group over.
func (ps *programs) hold(p ha.Process, sc spawn.Child, n *successor) *child {
	s := ps.of
	c := &child{of: s, process: p, start: sc.Start, pid: sc.PID, pidfd: sc.PIDFD, since: clock.Now(), group: n.group, owner: n.owner}
	s.keep(c)
	if err := s.poll.add(c.pidfd, func() { c.exited() }); err != nil {
		// Never seen; the number is looked at now and then instead.
		s.c.Log.Error("a program cannot be watched by its pidfd", "process", p, "err", err)
		c.recheck(time.Second)
	}
	return c
}

func (c *child) recheck(d time.Duration) {
	s := c.of
	s.poll.after(d, c, func() { c.exited() })
}

// startNow carries out OrderStart.
func (ps *programs) startNow(o *proc.Order) {
	s := ps.of
	if c := s.kids[o.Start]; c != nil {
		// Ordered again, by a monitor that had no answer from the shadow before.
		if c.exit == nil {
			s.report(proc.Report{Kind: proc.ReportStarted, Process: c.process, Start: c.start, PID: c.pid, At: c.since}, c.pidfd)
		}
		return // its end is told at hello
	}
	fail := func(err error) {
		s.report(proc.Report{Kind: proc.ReportFailed, Process: o.Process, Start: o.Start, At: clock.Now(), Error: err.Error(),
			Unentitled: errors.Is(err, lapse.ErrNone)})
	}
	for _, c := range s.starts[o.Process] {
		if !c.told {
			if _, late := s.late[c]; late && s.defers(o, c) {
				return
			}
			fail(fmt.Errorf("%s runs already, as start %d with pid %d", o.Process, c.start, c.pid))
			return
		}
	}
	if s.end != nil && s.end.alone {
		fail(errors.New("every program is being stopped"))
		return
	}
	if o.Spec != nil {
		s.spec(o.Process, o.Spec)
	}
	n, err := s.prepare(o.Process, o.Start, false)
	if err != nil {
		fail(err)
		return
	}
	s.point("prepared")
	sc, err := s.launch(n)
	s.point("launched")
	if err != nil {
		s.discard(n)
		fail(err)
		return
	}
	c := s.hold(o.Process, sc, n)
	s.report(proc.Report{Kind: proc.ReportStarted, Process: c.process, Start: c.start, PID: c.pid, At: c.since}, c.pidfd)
	s.point("started")
	n.ready.Close()
}

// defers puts a start off until the end of an older copy, which is dead, was told.
// The monitor that ordered the start has told what it knew of it before.
func (ps *programs) defers(o *proc.Order, c *child) bool {
	s := ps.of
	if c.died.IsZero() {
		c.died = time.Now()
	}
	if time.Since(c.died) > s.c.Stuck {
		return false
	}
	s.finishLate(c)
	s.deferred[o.Start] = o
	s.poll.after(time.Millisecond, o, func() {
		if s.deferred[o.Start] == o {
			delete(s.deferred, o.Start)
			s.startNow(o)
		}
	})
	return true
}

// callOff takes back a start that was put off, because its stop was ordered.
func (ps *programs) callOff(start ha.StartID) {
	s := ps.of
	if o := s.deferred[start]; o != nil {
		delete(s.deferred, start)
		s.report(proc.Report{Kind: proc.ReportFailed, Process: o.Process, Start: start, At: clock.Now(), Error: "it was stopped before it was started"})
	}
}

// arm carries out OrderArm.
func (ps *programs) arm(o *proc.Order) {
	s := ps.of
	c := s.kids[o.Start]
	if c == nil || c.exit != nil {
		// It ended; the report of that, without a successor, is on its way.
		return
	}
	if c.next != nil && (c.next.start == o.Next || c.next.made != nil) {
		return // the same, or carried out already
	}
	c.disarm()
	if o.Next == 0 || c.stop != nil {
		return
	}
	if k := s.kids[o.Next]; k != nil {
		c.next = &successor{start: k.start, made: k}
		return
	}
	// It holds from here on. What can be made beforehand is made when nothing else
	// waits: of a thousand starts each runs before the first is made ready for its
	// death.
	c.next = &successor{start: o.Next}
	s.unready = append(s.unready, c)
	s.poll.busy = true
}

// idle makes one standing order ready, or else takes one ended start away; it
// reports whether there is more to do.
func (ps *programs) idle() bool {
	s := ps.of
	for len(s.unready) > 0 {
		c := s.unready[0]
		s.unready[0] = nil
		if s.unready = s.unready[1:]; len(s.unready) == 0 {
			s.unready = nil
		}
		if n := c.next; n != nil && n.ready == nil && n.made == nil && c.exit == nil {
			s.makeReady(c)
			break
		}
	}
	if len(s.unready) == 0 && len(s.settled) > 0 {
		c := s.settled[0]
		s.settled[0] = nil
		s.settled = s.settled[1:]
		c.clear()
	}
	return len(s.unready)+len(s.settled) > 0
}

// makeReady makes what the standing order of c needs.
func (ps *programs) makeReady(c *child) {
	s := ps.of
	c.group.Watch()
	pr := s.specs[c.process]
	n, err := s.prepare(c.process, c.next.start, pr != nil && pr.spec.Spare)
	if errors.Is(err, lapse.ErrNone) {
		return // it may be given until the death
	}
	if err != nil {
		// Tried again at the death, where its failure is told.
		s.c.Log.Warn("a standing order could not be made ready", "process", c.process, "err", err)
		return
	}
	c.next = n
	s.point("armed")
}

// keep and drop keep the two maps of starts together.
func (ps *programs) keep(c *child) {
	ps.kids[c.start] = c
	ps.starts[c.process] = append(ps.starts[c.process], c)
}

func (ps *programs) drop(c *child) {
	delete(ps.kids, c.start)
	rest := slices.DeleteFunc(ps.starts[c.process], func(o *child) bool { return o == c })
	if ps.starts[c.process] = rest; len(rest) == 0 {
		delete(ps.starts, c.process)
	}
}

// spec carries out OrderSpec. Standing orders that were made ready from the spec
// before are made anew.
func (ps *programs) spec(p ha.Process, sp *proc.Spec) {
	s := ps.of
	pr := s.specs[p]
	if pr == nil {
		pr = &program{out: -1}
		s.specs[p] = pr
	}
	if pr.spec != nil && reflect.DeepEqual(pr.spec, sp) {
		return // every monitor tells all specs again
	}
	pr.spec = sp
	if sp.Output == "capture" && pr.out < 0 {
		owner := -1
		if sp.SetIDs {
			owner = sp.UID
		}
		fd, err := output.OpenPipe(s.c.RunDir, p, owner)
		if err != nil {
			// What it prints is lost; that is no reason to keep it from running.
			s.c.Log.Error("the output of a program cannot be captured", "process", p, "err", err)
		} else {
			pr.out = fd
		}
	}
	for _, c := range s.starts[p] {
		rearm(c)
	}
}

// rearm makes the standing order of c anew: what it was made ready from is another
// now.
func rearm(c *child) {
	if c.next != nil && c.next.made == nil {
		next := c.next.start
		c.disarm()
		c.of.arm(&proc.Order{Kind: proc.OrderArm, Process: c.process, Start: c.start, Next: next})
	}
}

// forget carries out OrderForget.
func (ps *programs) forget(p ha.Process) {
	s := ps.of
	if pr := s.specs[p]; pr != nil {
		if pr.out >= 0 {
			unix.Close(pr.out)
		}
		delete(s.specs, p)
	}
}
