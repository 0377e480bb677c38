package addr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"gemel/internal/ha"
)

// Run announces, watches and tells until ctx is done; then it closes the Keeper and
// returns when everything has ended. The addresses stay.
func (k *Keeper) Run(ctx context.Context) error {
	alarm, err := k.clk.Alarm()
	if err != nil {
		return fmt.Errorf("keeping addresses: %w", err)
	}
	defer alarm.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { k.telling(ctx) })
	all.Go(func() { k.watching(ctx) })
	for ctx.Err() == nil {
		if next := k.due(); next > 0 {
			alarm.Set(next)
		}
		select {
		case <-ctx.Done():
		case <-alarm.C():
		case <-k.changed:
		}
	}
	k.Close()
	all.Wait()
	return nil
}

// telling gives the events to whoever wants them.
func (k *Keeper) telling(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.told:
		}
		k.mu.Lock()
		events := k.events
		k.events = nil
		k.mu.Unlock()
		for _, e := range events {
			k.log.Info("service address", "event", e.Kind, "address", e.Address, "mac", e.MAC, "error", e.Err)
			if k.cfg.Tell != nil {
				k.cfg.Tell(e)
			}
		}
	}
}

// after is when the round that follows is due; zero: never.
func (h *holding) after(cfg *Config, now ha.Instant) ha.Instant {
	for h.step < len(cfg.After) {
		at := h.since.Add(cfg.After[h.step])
		h.step++
		if at > now {
			return at
		} // else the machine was suspended, or slow: that time is over
	}
	if cfg.Every < 0 {
		return 0
	}
	return now.Add(cfg.Every)
}

// due sends the announcements whose time has come, and returns when the next one
// does; zero: none will.
func (k *Keeper) due() ha.Instant {
	k.mu.Lock()
	defer k.mu.Unlock()
	var next ha.Instant
	for _, h := range k.held {
		if h.next > 0 && h.next <= k.clk.Now() && !k.closed {
			_ = k.announce(h, false) // told as an event
		}
		if h.next > 0 && (next == 0 || h.next < next) {
			next = h.next
		}
	}
	return next
}

// announce sends one round for an address, if the machine still has it, and sets
// the time of the next one. The first round of an Add needs no look: it has just
// been added. k.mu is held.
func (k *Keeper) announce(h *holding, first bool) error {
	h.next = h.after(&k.cfg, k.clk.Now())
	if !h.dev.speaks || h.lost {
		return nil
	}
	err := k.tellNeighbours(h, first)
	if !h.dev.up {
		// The kernel says "up" as much as a second after it can send. If it could not,
		// everything begins anew when it can.
		return nil
	}
	if err != nil && !h.silent {
		k.event(Event{Kind: Unannounced, Address: h.Address, Err: err})
	}
	h.silent = err != nil
	return err
}

func (k *Keeper) tellNeighbours(h *holding, first bool) error {
	if h.dev.odd {
		return fmt.Errorf("%s is not an Ethernet: what is known of this address by its neighbours there is left as it is", h.dev.name)
	}
	l, err := k.lines.open(h.dev, h.Addr.Is6())
	if err != nil {
		return err
	}
	ask, err := probe(h.Addr, h.dev.mac)
	if err != nil {
		return err
	}
	frames, err := announcement(h.Addr, h.dev.mac, h.Addr.Is6() && k.host.forwards(h.dev.name))
	if err != nil {
		return err
	}
	if !first {
		// Since the last round this process may have been frozen, and the address taken
		// away by another one at its deadline.
		if k.cfg.Allow != nil && !k.cfg.Allow(h.Addr) {
			return nil
		}
		has := false
		if err := k.host.sock.each(func(e entry) { has = has || e.addr == h.Addr && e.index == h.dev.index }); err != nil && !errors.Is(err, errAgain) {
			return err
		}
		if !has {
			return nil // told by the watch
		}
	}
	err = l.send(append(frames, ask)...)
	if err != nil {
		k.lines.discard(l) // the next round has a new one
	}
	return err
}

// heard judges a claim to an address by a hardware address.
func (k *Keeper) heard(l *line, ip netip.Addr, from mac) {
	k.mu.Lock()
	defer k.mu.Unlock()
	answer, h := k.asked[ip], k.held[ip]
	if k.closed || answer == nil && (h == nil || h.lost || h.dev.index != l.index) {
		return
	}
	now := k.clk.Now()
	if h != nil {
		const again, most = time.Minute, 16
		last, known := h.rivals[from]
		if from == h.dev.mac || known && now.Sub(last) < again || !known && len(h.rivals) == most {
			return
		}
	}
	if k.host.own(from) {
		return // another interface of this machine in the same network
	}
	if answer != nil {
		select {
		case answer <- from:
		default:
		}
	}
	if h != nil {
		h.rivals[from] = now
		k.event(Event{Kind: Conflict, Address: h.Address, At: now, MAC: from.hardware()})
	}
}

// ask looks for another machine with an address for as long as Config.Probe says.
func (k *Keeper) ask(ctx context.Context, a Address, dev device) (failed error) {
	if !dev.speaks || dev.odd || !dev.up {
		return nil
	}
	question, err := probe(a.Addr, dev.mac)
	if err != nil {
		return err
	}
	answer := make(chan mac, 1)
	k.mu.Lock()
	h := k.held[a.Addr]
	busy := k.asked[a.Addr] != nil
	if k.closed || busy || h != nil && !h.lost {
		k.mu.Unlock()
		return nil // another Add asks already, or it is ours anyway
	}
	l, err := k.lines.open(dev, a.Addr.Is6())
	if err == nil {
		k.asked[a.Addr] = answer
		err = l.send(question)
	}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.asked, a.Addr)
		if failed != nil {
			k.lines.tidy(k.held, len(k.asked) == 0)
		}
	}()
	if err != nil {
		return fmt.Errorf("asking whether another machine has it: %w", err)
	}
	over := time.NewTimer(k.cfg.Probe)
	defer over.Stop()
	again := time.NewTimer(k.cfg.Probe / 2)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case m := <-answer:
			return fmt.Errorf("%w: the one with the hardware address %v in the network of %s", ErrInUse, m.hardware(), dev.name)
		case <-again.C:
			_ = l.send(question) // the first one is on its way
		case <-over.C:
			return nil
		}
	}
}
