package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"gemel/internal/addr"
	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// partBound is how long starting or stopping an address may take.
const partBound = 5 * time.Second

// parts carries out what concerns a group's addresses, and knows which groups this
// node may run now: nothing is added, and no address announced, without a right that
// lives.
type parts struct {
	keeper *addr.Keeper
	stop   time.Duration // before the end of an authority nothing is begun

	mu     sync.Mutex
	rights map[ha.Group]ha.Right
	owner  map[netip.Addr]ha.Group
}

func newParts(o Options, tell func(addr.Event)) (*parts, error) {
	p := &parts{stop: o.Identity.Timers.Stop, rights: map[ha.Group]ha.Right{}, owner: map[netip.Addr]ha.Group{}}
	var err error
	p.keeper, err = addr.New(addr.Config{Tell: tell, Allow: p.allowed}, clock.Machine(), o.Log)
	if err != nil {
		return nil, fmt.Errorf("preparing for service addresses: %w", err)
	}
	return p, nil
}

// may takes the rights of this node.
func (p *parts) may(all []ha.Right) {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.rights)
	for _, r := range all {
		p.rights[r.Group] = r
	}
}

// lives reports whether there is a right for a group under a fence now.
func (p *parts) lives(g ha.Group, f ha.Fence) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.rights[g]
	return ok && !r.Leaving && r.Fence == f && clock.Now() < r.Until.Add(-p.stop)
}

// allowed reports whether an address may be announced now.
func (p *parts) allowed(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.rights[p.owner[a]]
	return ok && !r.Leaving && clock.Now() < r.Until.Add(-p.stop)
}

// address reads the part of an address.
func address(part ha.Part) (addr.Address, bool) {
	text, ok := strings.CutPrefix(string(part), "address ")
	if !ok {
		return addr.Address{}, false
	}
	prefix, device, _ := strings.Cut(text, " dev ")
	n, err := netip.ParsePrefix(prefix)
	if err != nil {
		return addr.Address{}, false
	}
	return addr.Address{Addr: n.Addr(), Bits: n.Bits(), Device: device}, true
}

// add makes an address of a group active. The right is looked at before and after:
// who was frozen in between takes it away again at once.
func (p *parts) add(ctx context.Context, a ha.StartPart) error {
	at, ok := address(a.Part)
	if !ok {
		return fmt.Errorf("%s is nothing that this version can start", a.Part)
	}
	p.mu.Lock()
	p.owner[at.Addr] = a.Group
	p.mu.Unlock()
	if !p.lives(a.Group, a.Fence) {
		return fmt.Errorf("this node has no authority for group %s with fence %s now", a.Group, a.Fence)
	}
	ctx, cancel := context.WithTimeout(ctx, partBound)
	defer cancel()
	_, err := p.keeper.Add(ctx, at)
	if err == nil && !p.lives(a.Group, a.Fence) {
		err = fmt.Errorf("the authority for group %s ended while it was added", a.Group)
	}
	if err != nil {
		_ = p.keeper.Remove(at) // the stop that follows sees whether it is gone
	}
	return err
}

func (p *parts) remove(part ha.Part) error {
	at, ok := address(part)
	if !ok {
		return fmt.Errorf("%s is nothing that this version can stop", part)
	}
	return p.keeper.Remove(at)
}

// What the engine orders about groups, carried out.

func (h *hands) failover(tell func(ha.Input)) func(ha.Failover) { return alone(tell) }

func (h *hands) account(a ha.Holds) {
	if h.member != nil && h.member.loop != nil {
		h.member.loop.Account(a)
	}
}

func (h *hands) lapsed() {
	if h.member != nil && h.member.loop != nil {
		h.member.loop.Lapsed()
	}
}

func (h *hands) want(m *manifest.Manifest) { h.member.want(m) }

// rights hands the shadow what this node may run.
func (h *hands) rights(all []ha.Right) {
	h.member.parts.may(all)
}

func (h *hands) startPart(a ha.StartPart) {
	h.group.wg.Go(func() {
		done := ha.PartDone{Group: a.Group, Part: a.Part, On: true, OK: true}
		if err := h.member.parts.add(h.group.ctx, a); err != nil {
			done.OK, done.Detail = false, err.Error()
		}
		h.engine.Tell(done)
	})
}

func (h *hands) stopPart(a ha.StopPart) {
	h.group.wg.Go(func() {
		done := ha.PartDone{Group: a.Group, Part: a.Part, OK: true}
		if err := h.member.parts.remove(a.Part); err != nil {
			done.OK, done.Detail = false, err.Error()
		}
		h.engine.Tell(done)
	})
}
