package addr

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// A Config says how a Keeper behaves. The zero value is a good one.
type Config struct {
	// Tell is given every event, one at a time, from a goroutine of Run; it may call
	// the Keeper. Nil: nobody is told.
	Tell func(Event)
	// Allow is asked before each announcement but that of Add: a node announces only
	// what it still has authority for. It must not call the Keeper, nor wait. Nil:
	// always.
	Allow func(netip.Addr) bool
	// Probe is how long Add asks whether another machine has the address before it
	// adds it. Zero: it adds at once and asks meanwhile, so that a takeover is quick; an
	// answer is then told as a Conflict.
	Probe time.Duration
	// After is when an address is announced again after it was added, counted from
	// then. Nil: 100 ms, 500 ms, 2 s, 5 s.
	After []time.Duration
	// Every is the time between the announcements after those. Zero: a minute; negative:
	// none.
	Every time.Duration
}

// A Keeper holds the service addresses of this machine. Its methods can be called
// from several goroutines.
type Keeper struct {
	cfg  Config
	clk  clock.Clock
	log  *slog.Logger
	host *host

	changed chan struct{} // rings when an announcement is due earlier
	told    chan struct{} // rings when there are events

	mu     sync.Mutex
	closed bool
	watch  *nl.NetlinkSocket // read by Run, which replaces it
	held   map[netip.Addr]*holding
	asked  map[netip.Addr]chan mac // of Add, which probes
	lines  *lines
	events []Event
}

// A holding is an address that was added and not removed.
type holding struct {
	Address                    // all of it known
	dev     device             // its device, as last seen
	lost    bool               // it is not on the machine at present
	silent  bool               // the last announcement failed
	since   ha.Instant         // what Config.After counts from
	step    int                // of Config.After, which is next
	next    ha.Instant         // of the next round; zero: none
	rivals  map[mac]ha.Instant // when each was last told
}

// New opens a Keeper in the network namespace of its caller. It must be run, or
// closed. The clock is that of the instants and of the announcements.
func New(cfg Config, clk clock.Clock, log *slog.Logger) (*Keeper, error) {
	return newKeeper(cfg, clk, log, func(f func()) { f() })
}

func newKeeper(cfg Config, clk clock.Clock, log *slog.Logger, enter func(func())) (*Keeper, error) {
	if cfg.After == nil {
		cfg.After = []time.Duration{100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 5 * time.Second}
	}
	if cfg.Every == 0 {
		cfg.Every = time.Minute
	}
	if !slices.IsSorted(cfg.After) || len(cfg.After) > 0 && cfg.After[0] <= 0 || cfg.Probe < 0 {
		return nil, fmt.Errorf("announcements after %v, probing for %v: these times must be positive, and each later than the one before", cfg.After, cfg.Probe)
	}
	h, err := openHost(enter, log)
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		cfg: cfg, clk: clk, log: log, host: h,
		changed: make(chan struct{}, 1), told: make(chan struct{}, 1),
		held: map[netip.Addr]*holding{}, asked: map[netip.Addr]chan mac{},
	}
	k.lines = &lines{host: h, lock: &k.mu, heard: k.heard, all: map[lineKey]*line{}}
	// What changes from here on is not missed: it waits until Run reads it.
	if k.watch, err = h.subscribe(); err != nil {
		h.close()
		return nil, err
	}
	return k, nil
}

// Close gives the sockets back and waits for the readers. The addresses stay where
// they are: programs go on while the daemon is replaced. Closing twice is no error.
// Only a Keeper that is not run needs it.
func (k *Keeper) Close() {
	k.mu.Lock()
	if !k.closed {
		k.closed = true
		k.lines.close()
		k.host.close()
		k.watch.Close()
	}
	k.mu.Unlock()
	k.lines.readers.Wait()
}

var errClosed = errors.New("the keeper is closed")

// Add puts an address on its device, announces it, and returns it with its device
// and the length of its network. One that is there is taken over, whoever left it:
// with another length, it gets this one; from another device, it is moved if it
// bears Gemel's mark or was added by this Keeper, and left there otherwise.
//
// That the announcement fails is no error but an event: the address is there.
func (k *Keeper) Add(ctx context.Context, a Address) (Address, error) {
	if err := a.check(); err != nil {
		return a, err
	}
	where, dev, err := k.find(a)
	if err == nil && k.cfg.Probe > 0 {
		err = k.ask(ctx, where, dev)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return where, fmt.Errorf("adding address %v: %w", a, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return where, fmt.Errorf("adding address %v: %w", a, errClosed)
	}
	before := 0
	if old := k.held[where.Addr]; old != nil {
		before = old.dev.index
	}
	if err := k.host.put(where, dev, before); err != nil {
		return where, fmt.Errorf("adding address %v to %s: %w", a, dev.name, allowed(err))
	}
	h := &holding{Address: where, dev: dev, since: k.clk.Now(), rivals: map[mac]ha.Instant{}}
	if old := k.held[where.Addr]; old != nil {
		h.rivals, h.silent = old.rivals, old.silent && old.dev.index == dev.index
	}
	k.held[where.Addr] = h
	if !dev.up {
		k.event(Event{Kind: LinkDown, Address: where})
	}
	_ = k.announce(h, true) // told as an event
	k.lines.tidy(k.held, len(k.asked) == 0)
	ring(k.changed)
	return where, nil
}

// Remove takes an address off its device, whoever added it, or off every device if
// it names none and this Keeper did not add it. It returns nil only after it has
// seen that the address is gone; one that was not there is no error.
func (k *Keeper) Remove(a Address) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return fmt.Errorf("removing address %v: %w", a, errClosed)
	}
	if h := k.held[a.Addr]; h != nil {
		if a.Device == "" || a.Device == h.Device {
			a.Device = h.dev.name // it may have been renamed
		}
		// First of all, so that nothing of it is announced or told as lost any more.
		delete(k.held, a.Addr)
	}
	if err := (&Remover{k.host.sock}).Remove(a); err != nil {
		return err
	}
	k.lines.tidy(k.held, len(k.asked) == 0)
	return nil
}

// Announce tells the neighbours of an address again, now and at the times that
// follow an Add: after a split has healed, say.
func (k *Keeper) Announce(a Address) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[a.Addr]
	switch {
	case k.closed:
		return fmt.Errorf("announcing address %v: %w", a, errClosed)
	case h == nil:
		return fmt.Errorf("announcing address %v: it was not added here; add it first", a)
	}
	h.since, h.step = k.clk.Now(), 0
	err := k.announce(h, false)
	ring(k.changed)
	if err != nil {
		return fmt.Errorf("announcing address %v: %w", a, err)
	}
	return nil
}

// List returns the service addresses that are on this machine now: those that bear
// Gemel's mark, also from before a crash, and those that this Keeper took over
// from others. Before Linux 5.18 an IPv6 address cannot bear it.
func (k *Keeper) List() ([]Address, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, fmt.Errorf("listing service addresses: %w", errClosed)
	}
	all, err := k.host.entries()
	if err != nil {
		return nil, fmt.Errorf("listing service addresses: %w", err)
	}
	names := map[int]string{}
	var out []Address
	for _, e := range all {
		h := k.held[e.addr]
		if mine := h != nil && h.dev.index == e.index; !mine && !e.ours {
			continue
		}
		if names[e.index] == "" {
			l, err := k.host.links.LinkByIndex(e.index)
			if err != nil {
				continue // it went between the two questions
			}
			names[e.index] = l.Attrs().Name
		}
		out = append(out, Address{e.addr, e.bits, names[e.index]})
	}
	slices.SortFunc(out, compareAddress)
	return out, nil
}

// event stores an event for Run to tell. k.mu is held.
func (k *Keeper) event(e Event) {
	const most = 1000 // a Keeper that is not run, or whose Tell hangs
	if e.At == 0 {
		e.At = k.clk.Now()
	}
	if len(k.events) < most {
		k.events = append(k.events, e)
	}
	ring(k.told)
}

// ring wakes whoever waits; one that is awake already is not rung twice.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
