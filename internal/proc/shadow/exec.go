package shadow

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// stateEnv names the environment variable with the number of the memory file
// that an older version left to its successor in the same pid.
const stateEnv = "GEMEL_SHADOW_STATE"

// state is everything that a shadow leaves to the version that takes its place.
// Fields are only ever added: an older version reads what it knows, a newer one
// finds zero for what an older one did not write. Descriptors are numbers that
// stay open over the exec.
//
//budget:fields one message between versions
type state struct {
	Format  int              `json:"format"`
	Version string           `json:"version"`
	Lock    int              `json:"lock"`
	Link    int              `json:"link"` // -1: no monitor was connected
	Unsent  []proc.Unsent    `json:"unsent,omitempty"`
	Monitor monitorState     `json:"monitor"`
	Specs   []programState   `json:"specs,omitempty"`
	Kids    []childState     `json:"kids,omitempty"`
	Kept    map[string][]int `json:"kept,omitempty"`
	Helpers []int            `json:"helpers,omitempty"`
	End     *endState        `json:"end,omitempty"`
	Signals []int            `json:"signals,omitempty"` // caught, and not looked at yet
	Parts   map[string][]int `json:"parts,omitempty"`   // descriptors of later versions, passed on unread
}

// partLow names the reserved descriptors among Parts: a version that does not know
// them closes them with its next exec.
const partLow = "low"

type monitorState struct {
	PID    int           `json:"pid,omitempty"`
	PIDFD  int           `json:"pidfd"`
	Age    time.Duration `json:"age,omitempty"`
	Ready  bool          `json:"ready,omitempty"`
	Greet  bool          `json:"greet,omitempty"`
	Tries  int           `json:"tries,omitempty"`
	Deaths []proc.Report `json:"deaths,omitempty"`
}

type programState struct {
	Spec *proc.Spec `json:"spec"`
	Out  int        `json:"out"`
}

type childState struct {
	Process ha.Process     `json:"process"`
	Start   ha.StartID     `json:"start"`
	PID     int            `json:"pid"`
	PIDFD   int            `json:"pidfd"`
	Since   ha.Instant     `json:"since"`
	Next    ha.StartID     `json:"next,omitempty"`
	Stop    bool           `json:"stop,omitempty"`
	Killed  bool           `json:"killed,omitempty"`
	Grace   time.Duration  `json:"grace,omitempty"` // left of the present stage of the stop
	Exit    *ha.ExitStatus `json:"exit,omitempty"`
	Told    bool           `json:"told,omitempty"`
	Heir    ha.StartID     `json:"heir,omitempty"` // that the exit is told with
	Stuck   bool           `json:"stuck,omitempty"`
}

type endState struct {
	Why   string `json:"why"`
	Alone bool   `json:"alone,omitempty"`
	Quit  *int   `json:"quit,omitempty"`
}

// upgrade carries out OrderExec: this process becomes the program at path. It only
// returns if that failed, and then everything is as before.
func upgrade(s *shadow, path string) {
	if len(s.deferred) > 0 {
		// A start that was put off for an instant is not in the state.
		s.poll.after(2*time.Millisecond, &path, func() { upgrade(s, path) })
		return
	}
	err := s.rights.plain(func() error { return become(s, path) })
	s.c.Log.Error("the upgrade of the shadow failed; it goes on as it is", "path", path, "err", err)
	s.report(proc.Report{
		Kind: proc.ReportUpgraded, PID: os.Getpid(), At: clock.Now(),
		Version: s.c.Version, Protocol: proc.Protocol, Error: err.Error(),
	})
}

// become is the way to the exec; it returns why there was none.
func become(s *shadow, path string) error {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	// A successor that runs and is not told of would be nobody's after the exec.
	s.tellAll()
	clearAll(s)
	restore := s.signals.hold()
	defer restore()
	st := capture(s)
	caught := s.signals.flush()
	for _, sig := range caught {
		if n, ok := sig.(unix.Signal); ok {
			st.Signals = append(st.Signals, int(n))
		}
	}
	defer func() {
		for _, sig := range caught {
			s.signal(sig)
		}
	}()
	body, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("writing the state down: %w", err)
	}
	mem, err := unix.MemfdCreate("gemel-shadow", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making the memory file of the state: %w", err)
	}
	defer unix.Close(mem)
	for off := 0; off < len(body); {
		n, err := unix.Pwrite(mem, body[off:], int64(off))
		if err != nil {
			return fmt.Errorf("writing the state down: %w", err)
		}
		off += n
	}
	fds := append(st.descriptors(), mem)
	defer func() {
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
	}()
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keeping descriptor %d: %w", fd, err)
		}
	}
	// A child that is parked has its own copy of the program before; it ends with
	// the exec, and its zombie must not be left to a shadow that does not know it.
	armed := map[*child]ha.StartID{}
	for _, c := range s.kids {
		if c.next != nil {
			armed[c] = c.next.start
			c.disarm()
		}
	}
	defer func() {
		for c, next := range armed {
			s.arm(&proc.Order{Kind: proc.OrderArm, Process: c.process, Start: c.start, Next: next})
		}
	}()
	args := append([]string{path}, os.Args[1:]...)
	if strings.HasPrefix(path, "/proc/") {
		args[0] = os.Args[0] // the kernel's name of a file that is gone tells nobody anything
	}
	env := append(without(os.Environ(), stateEnv), stateEnv+"="+strconv.Itoa(mem))
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, args, env))
}

// capture writes the state down. Standing orders are in it by their id.
func capture(s *shadow) *state {
	m := s.mon
	st := &state{
		Format: 1, Version: s.c.Version, Lock: s.lock.FD, Link: -1, Kept: s.kept,
		Monitor: monitorState{
			PID: m.pid, PIDFD: m.pidfd, Age: time.Since(m.began), Ready: m.ready,
			Greet: m.greet, Tries: m.tries, Deaths: m.deaths,
		},
	}
	if low := s.tree.Reserved(); low != nil {
		st.Parts = map[string][]int{partLow: low}
	}
	if s.link.up {
		st.Link, st.Unsent = s.link.fd, s.link.out.Unsent()
	}
	for _, pr := range s.specs {
		st.Specs = append(st.Specs, programState{pr.spec, pr.out})
	}
	for _, c := range s.kids {
		k := childState{
			Process: c.process, Start: c.start, PID: c.pid, PIDFD: c.pidfd, Since: c.since,
			Exit: c.exit, Told: c.told, Stuck: c.stuck,
		}
		if c.next != nil {
			k.Next = c.next.start
		}
		if c.heir != nil {
			k.Heir = c.heir.start
		}
		if c.stop != nil {
			k.Stop, k.Killed = true, c.stop.killed
			k.Grace = s.poll.left(c.stop)
		}
		st.Kids = append(st.Kids, k)
	}
	for fd := range s.helpers {
		st.Helpers = append(st.Helpers, fd)
	}
	if s.end != nil {
		st.End = &endState{s.end.why, s.end.alone, s.end.quit}
	}
	return st
}

// descriptors are all that have to stay open over the exec.
func (st *state) descriptors() []int {
	fds := []int{st.Lock}
	add := func(fd int) {
		if fd >= 0 {
			fds = append(fds, fd)
		}
	}
	add(st.Link)
	add(st.Monitor.PIDFD)
	for _, u := range st.Unsent {
		fds = append(fds, u.FDs...)
	}
	for _, p := range st.Specs {
		add(p.Out)
	}
	for _, k := range st.Kids {
		add(k.PIDFD)
	}
	for _, kept := range st.Kept {
		fds = append(fds, kept...)
	}
	for _, part := range st.Parts {
		fds = append(fds, part...)
	}
	return append(fds, st.Helpers...)
}

// inherited reads the state that an older version left; nil if there is none.
func inherited() (*state, error) {
	text := os.Getenv(stateEnv)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(stateEnv)
	mem, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s is %q and not the number of a descriptor", stateEnv, text)
	}
	f := os.NewFile(uintptr(mem), "state")
	defer f.Close()
	var st state
	if err := json.NewDecoder(f).Decode(&st); err != nil {
		return nil, fmt.Errorf("reading the state of the version before: %w", err)
	}
	if st.Format != 1 {
		return nil, fmt.Errorf("the version before (%s) left its state in format %d; this one reads 1", st.Version, st.Format)
	}
	for _, fd := range st.descriptors() {
		unix.CloseOnExec(fd)
	}
	return &st, nil
}

// resume goes on where the version before stopped.
func resume(s *shadow, st *state) error {
	m := s.mon
	for _, p := range st.Specs {
		s.specs[p.Spec.Process] = &program{spec: p.Spec, out: p.Out}
	}
	if st.Kept != nil {
		s.kept = st.Kept
	}
	if st.End != nil {
		s.end = &ending{why: st.End.Why, alone: st.End.Alone, quit: st.End.Quit}
		s.poll.after(patience, s.end, s.checkEnd)
	}
	if st.Link >= 0 {
		if err := s.link.move(st.Link, s.mon.listen); err != nil {
			return err
		}
		for _, u := range st.Unsent {
			s.link.out.Again(u)
		}
	}
	for _, fd := range st.Helpers {
		_ = s.help(fd)
	}
	resumeKids(s, st)
	m.deaths, m.tries = st.Monitor.Deaths, st.Monitor.Tries
	if st.Monitor.PIDFD >= 0 {
		s.mon.hold(st.Monitor.PID, st.Monitor.PIDFD)
		m.began = m.began.Add(-st.Monitor.Age)
		m.ready, m.greet = st.Monitor.Ready, st.Monitor.Greet
	} else {
		s.mon.again()
	}
	s.report(proc.Report{
		Kind: proc.ReportUpgraded, PID: os.Getpid(), At: clock.Now(),
		Version: s.c.Version, Protocol: proc.Protocol, Cgroup: s.tree.String(), Notes: s.tree.Notes(),
	})
	for _, n := range st.Signals {
		s.signal(unix.Signal(n))
	}
	return nil
}

// resumeKids takes the starts over: first all of them, then what they are to each
// other, and only then is anything told.
func resumeKids(s *shadow, st *state) {
	for _, k := range st.Kids {
		c := &child{
			of:      s,
			process: k.Process, start: k.Start, pid: k.PID, pidfd: k.PIDFD, since: k.Since,
			exit: k.Exit, fate: fate{told: k.Told, stuck: k.Stuck}, group: s.groupOf(k.Start, k.PID),
			owner: s.rights.owner(k.Start),
		}
		s.keep(c)
		if k.Stop {
			c.stop = &stopping{killed: k.Killed}
		}
	}
	for _, k := range st.Kids {
		c := s.kids[k.Start]
		c.heir = s.kids[k.Heir]
		if made := s.kids[k.Next]; made != nil && !c.told {
			c.next = &successor{start: k.Next, made: made}
		}
	}
	for _, k := range st.Kids {
		resumeChild(s, k)
	}
	for _, k := range st.Kids {
		if k.Next != 0 && k.Exit == nil {
			s.arm(&proc.Order{Kind: proc.OrderArm, Process: k.Process, Start: k.Start, Next: k.Next})
		}
	}
}

func resumeChild(s *shadow, k childState) {
	c := s.kids[k.Start]
	switch {
	case c.told:
	case c.exit != nil && c.heir != nil:
		c.tellExit(c.heir)
	case c.exit != nil:
		c.died = time.Now()
		c.settle(0)
	case c.pidfd < 0:
		// It ended while nobody looked, and the monitor has yet to say what it knows.
		s.late[c] = struct{}{}
		c.died = time.Now()
	default:
		c.watch()
		switch {
		case c.stop == nil:
		case c.stop.killed:
			s.poll.after(k.Grace, c.stop, func() { c.tellStuck() })
		default:
			s.poll.after(k.Grace, c.stop, func() { c.kill() })
		}
	}
}

// hold keeps signals from being lost in an exec: they stay pending in the kernel,
// and come to the next version. The function it returns takes that back. The
// goroutine stays on its thread, because it is the mask of the thread that calls
// exec that the next version begins with.
func (g *signals) hold() (restore func()) {
	runtime.LockOSThread()
	if err := maskAll(unix.SIG_BLOCK, asked()); err != nil {
		return runtime.UnlockOSThread
	}
	return func() {
		_ = maskAll(unix.SIG_UNBLOCK, asked())
		runtime.UnlockOSThread()
	}
}

// asked are the signals that mean something.
func asked() *unix.Sigset_t {
	var set unix.Sigset_t
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		set.Val[(sig-1)/64] |= 1 << (uint(sig-1) % 64)
	}
	return &set
}

// maskAll changes the signal mask of every thread; where the runtime cannot (a
// build with cgo), that of this one, which is the one that lives on after the exec.
func maskAll(how int, set *unix.Sigset_t) error {
	err := allThreads(how, set)
	if errors.Is(err, unix.ENOTSUP) {
		err = unix.PthreadSigmask(how, set, nil)
	}
	return err
}
