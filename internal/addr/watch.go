package addr

import (
	"context"
	"encoding/binary"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watching hears of changes. A change is only a reason to look: what counts is the
// list that is made then. So a message that was lost does no harm, as long as it
// is known that one was.
func (k *Keeper) watching(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.watch.Close()
	})
	defer stop()
	k.mu.Lock()
	s := k.watch
	k.mu.Unlock()
	k.look() // what happened before is not in the socket if that was full
	for ctx.Err() == nil {
		messages, _, err := s.Receive()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			k.log.Warn("changes of addresses were missed; looking at all of them", "error", err)
			if s = k.resubscribe(ctx); s == nil {
				return
			}
			k.look()
			continue
		}
		if k.concerns(messages) {
			k.look()
		}
	}
}

// resubscribe replaces the socket; nil: ctx is done.
func (k *Keeper) resubscribe(ctx context.Context) *nl.NetlinkSocket {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		s, err := k.host.subscribe()
		if err == nil {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.watch.Close()
			k.watch = s
			if ctx.Err() != nil || k.closed {
				s.Close()
				return nil
			}
			return s
		}
		k.log.Warn("watching addresses", "error", err)
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// concerns reports whether one of the messages is about what is held here, so that
// a machine with many containers is not read again at each of their changes.
func (k *Keeper) concerns(messages []syscall.NetlinkMessage) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWADDR, unix.RTM_DELADDR:
			e, ok := parseEntry(m.Data)
			if !ok || k.held[e.addr] != nil {
				return true
			}
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			if len(m.Data) < unix.SizeofIfInfomsg {
				return true
			}
			index := int(int32(binary.NativeEndian.Uint32(m.Data[4:])))
			for _, h := range k.held {
				if h.dev.index == index {
					return true
				}
			}
		}
	}
	return false
}

// look compares what is held with what is there, and tells the difference.
func (k *Keeper) look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || len(k.held) == 0 {
		return
	}
	all, err := k.host.entries()
	if err != nil {
		k.log.Warn("listing the addresses of this machine", "error", err)
		return // with the next change, or before the next announcement
	}
	type spot struct {
		addr  netip.Addr
		index int
	}
	there, devices := map[spot]bool{}, map[int]device{}
	for _, e := range all {
		there[spot{e.addr, e.index}] = true
	}
	for _, h := range k.held {
		d, seen := devices[h.dev.index]
		if !seen {
			d = k.host.again(h.dev)
			devices[h.dev.index] = d
		}
		was, moved := h.dev, h.lost
		h.dev = d
		switch has := there[spot{h.Addr, d.index}]; {
		case !has && !h.lost:
			h.lost = true
			k.event(Event{Kind: Lost, Address: h.Address})
		case has:
			h.lost = false
		}
		if was.up != d.up {
			kind := LinkDown
			if d.up {
				kind = LinkUp
			}
			k.event(Event{Kind: kind, Address: h.Address})
		}
		if d.up && !h.lost && (!was.up || moved || was.mac != d.mac) {
			h.since, h.step = k.clk.Now(), 0
			_ = k.announce(h, false) // told as an event
			ring(k.changed)
		}
	}
}
