package shadow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// ErrComplete says that a living shadow has the data directory already. Its text
// names the pid.
var ErrComplete = errors.New("gemel runs already with this data directory")

// Config is what a shadow needs.
//
//budget:fields configuration
type Config struct {
	DataDir, RunDir string
	// Name is the directory of the control groups: see spawn.Open.
	Name    string
	Version string
	// Monitor is the command of the monitor. The number of its end of the socket
	// is in its environment as proc.PairEnv.
	Monitor []string
	Log     *slog.Logger
	// Notify tells the service manager; nil if there is none.
	Notify func(state string)
	// Silence is how long the monitor may be without a beat before it is killed
	// and replaced, a stopped one as well. Zero: 10 s.
	Silence time.Duration
	// Stuck is how long after SIGKILL a program is reported as unkillable. Zero:
	// 5 s.
	Stuck time.Duration
	// First says that nothing ever ran here: a monitor that ends by itself before
	// its hello has refused what it was given and said why, and its exit code is
	// that of the shadow.
	First bool
	// Withdraw takes back what a group has that no signal ends, by the words of its
	// Right. It is called on a goroutine of its own, again after an error, and must
	// come to an end. Nil: there is nothing to take back.
	Withdraw func(words []string) error
	// Reset is called when something of a group is there at the end of its authority;
	// what names it. It must not block. Nil: it is only told.
	Reset func(g ha.Group, what string)
	// Guard is the command of the process that holds the deadlines of groups when no
	// shadow does. Empty: there is to be none.
	Guard []string
	// Watch is the hardware watchdog; nil: there is to be none.
	Watch *Watch
	// RealTime asks for real-time scheduling of what holds deadlines, from the first
	// right on. Programs, the monitor and the guard do not inherit it.
	// A monitor that dies again and again is then started every half a second at least.
	RealTime bool
	// Point is called at the named instants of a start and an end; nil but in tests,
	// which end the shadow there.
	Point func(name string)
}

// shadow is the state of the loop; only its goroutine touches it.
type shadow struct {
	c    Config
	poll *poller
	lock *proc.Lock
	life *life
	link *link
	mon  *monitor
	*programs
	finder
	rights  rights
	kept    map[string][]int
	signals *signals
	end     *ending // nil while there is no thought of an end
	done    *int    // exit code, once the loop is to end
}

// Run is the life of a shadow: from the lock to the end of the programs, a detach
// or, at an upgrade, the exec of the next version. The code is for the exit of
// this process.
func Run(ctx context.Context, c Config) (code int, err error) {
	if c.Silence == 0 {
		c.Silence = 10 * time.Second
	}
	if c.Stuck == 0 {
		c.Stuck = 5 * time.Second
	}
	// The programs are children of this thread in the eyes of a debugger, and the
	// signal mask around an exec is that of the thread that calls it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	s := &shadow{
		c: c, kept: map[string][]int{},
		programs: &programs{
			specs: map[ha.Process]*program{}, kids: map[ha.StartID]*child{},
			starts: map[ha.Process][]*child{}, helpers: map[int]struct{}{}, late: map[*child]struct{}{}, deferred: map[ha.StartID]*proc.Order{},
		},
	}
	s.programs.of, s.finder.of, s.rights = s, s, rights{of: s, event: -1, watch: watch{of: s, event: -1}}
	defer s.close()
	if s.poll, err = newPoller(); err != nil {
		return 1, err
	}
	s.poll.idle = s.idle
	s.link, err = newLink(s.poll)
	if err != nil {
		return 1, err
	}
	s.mon = &monitor{of: s, pidfd: -1}
	if err := s.begin(ctx); err != nil {
		return 1, err
	}
	s.tellAll()
	for s.done == nil {
		seen := clock.Now()
		all, err := s.poll.wait()
		if err != nil {
			return 1, err
		}
		if all {
			s.life.seen(seen)
		}
		if all || len(s.untold) >= manyUntold {
			s.tellAll()
		}
		s.tidy()
	}
	return *s.done, nil
}

// begin takes the place of a shadow: from the state of an older version, beside a
// living monitor, or alone.
func (s *shadow) begin(ctx context.Context) error {
	// Before anything that an early Ctrl-C could cut in two.
	s.signals = listen(ctx, s.poll, s.signal)
	st, err := inherited()
	if err != nil {
		return err
	}
	if st != nil {
		s.lock = &proc.Lock{FD: st.Lock}
		unix.CloseOnExec(st.Lock)
	} else {
		s.lock, err = proc.TakeLock(filepath.Join(s.c.DataDir, proc.ShadowLock), 5*time.Second)
		var held *proc.HeldError
		if errors.As(err, &held) {
			return fmt.Errorf("%w (pid %d, %s)", ErrComplete, held.PID, s.c.DataDir)
		}
		if err != nil {
			return err
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	var low []int
	if st != nil {
		low = st.Parts[partLow]
	}
	if err := s.tree.Reserve(low); err != nil {
		s.c.Log.Info("a start costs more the more programs there are", "err", err)
	}
	if st != nil {
		return resume(s, st)
	}
	fd, err := s.dial()
	if err != nil {
		return err
	}
	if fd >= 0 {
		return s.join(fd)
	}
	s.adopt()
	s.mon.asked = time.Now()
	s.mon.start()
	return nil
}

// open opens what is in the run directory and the control groups.
func (s *shadow) open() (err error) {
	boot, err := clock.BootID()
	if err != nil {
		return err
	}
	if s.table, err = spawn.OpenTable(filepath.Join(s.c.RunDir, "table"), boot); err != nil {
		return fmt.Errorf("opening the table of starts: %w", err)
	}
	// Before anything else: what is past its deadline ends.
	if err := s.rights.inherit(); err != nil {
		return err
	}
	if s.tree, err = spawn.Open(s.c.Name); err != nil {
		return fmt.Errorf("opening the control groups: %w", err)
	}
	if err := s.rights.run(); err != nil {
		return err
	}
	if err := s.rights.watch.open(); err != nil {
		return err
	}
	if s.life, err = openLife(filepath.Join(s.c.RunDir, "alive")); err != nil {
		return err
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("this kernel has no pidfds, Linux 5.4 or later is needed: %w", err)
	}
	return unix.Close(fd)
}

func (s *shadow) close() {
	if s.signals != nil {
		s.signals.close()
	}
	for _, c := range s.kids {
		c.disarm()
		if c.told {
			leaveNoGroup(c.group)
		}
	}
	s.rights.watch.close() // while it can be seen what is there
	s.rights.close()       // before the table, which it reads
	if s.table != nil {
		s.table.Close()
	}
	if s.link != nil {
		s.link.close()
	}
	if s.tree != nil {
		s.tree.Close() // before the lock: the next shadow makes the directories anew
	}
	if s.lock != nil {
		s.lock.Close()
	}
	if s.poll != nil {
		s.poll.close()
	}
}

// report tells the monitor. What does not go out now goes out later; without a
// monitor it is dropped, because the next one is told everything at its hello.
func (s *shadow) report(r proc.Report, fds ...int) {
	dup := make([]int, 0, len(fds))
	for _, fd := range fds {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			dup = append(dup, n)
		}
	}
	if err := s.link.put(r, dup); errors.Is(err, proc.ErrFull) {
		s.mon.kill("it does not read")
	}
}

func (s *shadow) notify(state string) {
	if s.c.Notify != nil {
		s.c.Notify(state)
	}
}

func (s *shadow) point(name string) {
	if s.c.Point != nil {
		s.c.Point(name)
	}
}

func (s *shadow) finish(code int) { s.done = &code }
