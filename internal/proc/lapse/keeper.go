package lapse

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// Config is what a Keeper and a Guard need.
type Config struct {
	RunDir string
	// Withdraw takes back what no signal ends, by the words of a Right. It is called on
	// a goroutine of its own, again after an error, and must come to an end. Nil:
	// there is nothing to take back.
	Withdraw func(words []string) error
	// Reset is called once for each group of which something is there at the end of
	// its authority; what names it. It must not block. Nil: it is only logged.
	Reset func(g ha.Group, what string)
	Log   *slog.Logger
}

// Hooks are how a Keeper belongs to its shadow.
type Hooks struct {
	Table *spawn.Table
	// News is called by any goroutine when there are News.
	News func()
	// RealTime asks for real-time scheduling of the thread.
	RealTime bool
}

// News is something that happened to a group.
type News struct {
	Group ha.Group
	Fence ha.Fence
	At    ha.Instant
	// Stuck: the end of the authority has come, and this is still there. Else the
	// kill begins.
	Stuck string
}

// Refusal is a Right that was not taken.
type Refusal struct {
	Right proc.Right
	Err   error
}

// ErrNone says that there is no right to start by.
var ErrNone = errors.New("no authority")

// Keeper holds the deadlines of a shadow. What is past its deadline is ended by a
// thread of its own. Its methods may be called by several goroutines.
type Keeper struct {
	c Config
	h Hooks

	timer, wake int
	done        sync.WaitGroup

	mu sync.Mutex
	ledger
	told map[ha.Group]string // what was refused the last time, and why
	news []News
	over bool
}

// ledger is what is known of all groups, and its page.
type ledger struct {
	log    *slog.Logger
	boot   string
	page   *page
	table  *spawn.Table
	tree   *spawn.Tree // nil: not known yet
	groups map[ha.Group]*group
	slots  []*group // by their number, as far as there are any
}

// group is what is known of one group.
type group struct {
	slot  int
	right proc.Right
	state state
	named bool // in the set that was given last
	// starts that are being made at this instant: what they make may be seen only
	// after a look around.
	starts  int
	kill    *kill  // begun, and not all was seen gone
	problem string // why the row cannot be believed
}

// Open reads the page of a run directory, or makes it, and ends at once what is past
// its deadline: that comes before anything else that a new shadow does.
func Open(c Config, h Hooks) (*Keeper, error) {
	boot, err := clock.BootID()
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	k := &Keeper{c: c, h: h, timer: -1, wake: -1, ledger: ledger{log: c.Log, boot: boot, table: h.Table, groups: map[ha.Group]*group{}}}
	if k.page, err = openPage(c.RunDir, true); err != nil {
		return nil, err
	}
	if k.timer, err = unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err == nil {
		k.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err == nil && k.page.count() == 0 {
		err = k.page.take(0)
	}
	if err != nil {
		shut(k)
		return nil, fmt.Errorf("making what deadlines need: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ledger.read()
	if t, ok := treeOf(k.page); ok {
		k.tree = t
		k.due(clock.Now())
		k.strikes()
	}
	return k, nil
}

// treeOf is where the shadow that wrote the page had its control groups.
func treeOf(p *page) (*spawn.Tree, bool) {
	h := p.head()
	t := &spawn.Tree{}
	return t, len(h.Tree) > 0 && t.UnmarshalText(h.Tree) == nil
}

// Needed reports whether a run directory has deadlines to keep: a page, or starts
// that belong to a group.
func Needed(run string, table *spawn.Table) bool {
	return there(run) || slices.ContainsFunc(table.Entries(), func(e spawn.Entry) bool { return e.Member != 0 })
}

// Run begins to keep the deadlines, with the control groups where they are now.
// Close ends it.
func (k *Keeper) Run(t *spawn.Tree) error {
	text, err := t.MarshalText()
	if err != nil {
		return fmt.Errorf("writing down where control groups are: %w", err)
	}
	b, err := json.Marshal(head{Format: 1, Tree: text})
	if err != nil {
		return fmt.Errorf("writing down where control groups are: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tree = t
	if err := k.page.put(0, b); err != nil {
		return err
	}
	k.done.Go(k.turn)
	return nil
}

// turn is the life of the thread.
func (k *Keeper) turn() {
	runtime.LockOSThread() // never unlocked: its scheduling ends with it
	if k.h.RealTime {
		_ = proc.RealTime(true) // the loop of the shadow asks as well, and says that it is not allowed
	}
	for {
		k.mu.Lock()
		if k.over {
			k.mu.Unlock()
			return
		}
		k.due(clock.Now())
		told := len(k.news) > 0
		k.mu.Unlock()
		if told {
			k.h.News()
		}
		k.mu.Lock()
		k.strikes()
		told = len(k.news) > 0
		arm(k)
		k.mu.Unlock()
		if told {
			k.h.News()
		}
		p := []unix.PollFd{{Fd: int32(k.timer), Events: unix.POLLIN}, {Fd: int32(k.wake), Events: unix.POLLIN}}
		_, _ = unix.Poll(p, -1) // an interrupted one is one more look
		var b [8]byte
		for _, fd := range []int{k.timer, k.wake} {
			_, _ = unix.Read(fd, b[:]) // EAGAIN from the one that did not fire
		}
	}
}

// poke is stir for those who may come after Close.
func (k *Keeper) poke() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.over {
		k.stir()
	}
}

// stir makes the thread look around.
func (k *Keeper) stir() { _, _ = unix.Write(k.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// arm sets the timer to the next instant at which something is to be done.
func arm(k *Keeper) {
	at := ha.Instant(0)
	for _, g := range k.slots {
		if g == nil {
			continue
		}
		if n := g.next(); n != 0 && (at == 0 || n < at) {
			at = n
		}
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(at), 0))}
	if err := unix.TimerfdSettime(k.timer, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		k.c.Log.Error("the timer of the deadlines cannot be set", "err", err)
	}
}

// next is when something is to be done about a group; 0: never.
func (g *group) next() ha.Instant {
	switch {
	case g.kill != nil:
		return g.kill.again
	case g.state == held:
		return max(g.right.Kill, 1)
	}
	return 0
}

// News are what happened since they were asked for last, oldest first.
func (k *Keeper) News() []News {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.due(clock.Now()) // after a stop the thread may not have looked yet
	n := k.news
	k.news = nil
	return n
}

// Lapsed are the groups whose deadline came and that were given no right since.
func (k *Keeper) Lapsed() (out []News) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.groups {
		if g.kill != nil && !g.kill.quiet || g.state == lapsed {
			out = append(out, News{Group: g.right.Group, Fence: g.right.Fence, At: g.right.Kill})
		}
	}
	slices.SortFunc(out, func(a, b News) int { return int(a.At - b.At) })
	return out
}

// Holds reports whether there is a deadline to keep.
func (k *Keeper) Holds() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.slots, func(g *group) bool { return g != nil && (g.kill != nil || g.state == held) })
}

// Close ends the thread and waits for it, and for a moment for those who withdraw. The
// page stays.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.over = true
	k.mu.Unlock()
	k.stir()
	k.done.Wait()
	shut(k)
}

func shut(k *Keeper) {
	if k.timer >= 0 {
		unix.Close(k.timer)
	}
	if k.wake >= 0 {
		unix.Close(k.wake)
	}
	k.page.close()
}
