package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/addr"
	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

// orders carries out what concerns groups. Its member is nil on a machine of no cluster.
type orders struct{ m *member }

// heardOf takes what was seen of a service address.
func (o orders) heardOf(e addr.Event) {
	m := o.m
	g, part, ok := m.parts.of(e.Address.Addr)
	if !ok {
		return
	}
	switch e.Kind {
	case addr.Conflict:
		m.h.engine.Note(ha.AddressConflict, ha.OfGroup(g), fmt.Sprintf("%s is used by %s", e.Address.Addr, e.MAC))
	case addr.Lost:
		m.h.engine.Tell(ha.PartLost{Group: g, Part: part, Detail: "it is gone from this machine, and Gemel did not take it"})
	case addr.LinkDown, addr.LinkUp, addr.Unannounced:
		m.o.Log.Warn("a service address", "address", e.Address.String(), "what", e.Kind.String(), "error", e.Err)
	}
}

// of returns whose an address is.
func (p *parts) of(a netip.Addr) (ha.Group, ha.Part, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g, ok := p.owner[a]
	return g, ha.Part(p.names[a]), ok
}

// partBound is how long starting or stopping an address may take.
const partBound = 5 * time.Second

// parts carries out what concerns a group's addresses, and knows which groups this
// node may run now: nothing is added, and no address announced, without a right that
// lives.
type parts struct {
	keeper *addr.Keeper
	made   *made
	fences *fences
	levels *levels
	run    string        // the run directory: what is begun there has a deadline
	stop   time.Duration // before the end of an authority nothing is begun

	mu     sync.Mutex
	rights map[ha.Group]ha.Right
	owner  map[netip.Addr]ha.Group
	names  map[netip.Addr]string
}

func newParts(o Options, tell func(addr.Event)) (*parts, error) {
	p := &parts{run: o.Places.Run, stop: o.Identity.Timers.Stop, rights: map[ha.Group]ha.Right{}, owner: map[netip.Addr]ha.Group{}, names: map[netip.Addr]string{}}
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

// want takes a manifest that comes into force.
func (p *parts) want(m *manifest.Manifest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range m.Groups {
		for _, a := range g.Addresses {
			p.owner[a.Prefix.Addr()] = g.Name
			p.names[a.Prefix.Addr()] = "address " + a.String()
		}
	}
}

// words are what the shadow takes away at the end of a group's authority, beside its
// programs: every address that the group has, or had and may have still.
func (p *parts) words(g ha.Group) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for a, owner := range p.owner {
		if owner == g {
			all = append(all, p.names[a])
		}
	}
	slices.Sort(all)
	return all
}

// withdraw takes addresses away, by the words of a right: what the shadow and the
// guard do at a deadline.
func withdraw() (func([]string) error, error) {
	r, err := addr.OpenRemover()
	if err != nil {
		return nil, fmt.Errorf("preparing to take addresses away: %w", err)
	}
	return func(words []string) error {
		var all []addr.Address
		for _, w := range words {
			if a, ok := address(ha.Part(w)); ok {
				all = append(all, a)
			}
		}
		return r.Remove(all...)
	}, nil
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

// held waits until somebody keeps the deadline of a group: the shadow takes an authority a
// moment after this half has it, and takes none for a group whose kill it has begun. An
// address that is added meanwhile would be taken away and added in turns.
func (p *parts) held(ctx context.Context, g ha.Group, f ha.Fence) error {
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		if !p.lives(g, f) {
			return fmt.Errorf("this node has no authority for group %s with fence %s now", g, f)
		}
		if ok, err := lapse.Allowed(p.run, g, f); err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody keeps a deadline for group %s with fence %s here: %w", g, f, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// add makes an address of a group active. The right is looked at before and after:
// who was frozen in between takes it away again at once.
func (p *parts) add(ctx context.Context, a ha.StartPart) error {
	at, ok := address(a.Part)
	if !ok {
		return fmt.Errorf("%q is no part that this version knows", a.Part)
	}
	p.mu.Lock()
	p.owner[at.Addr], p.names[at.Addr] = a.Group, string(a.Part)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, partBound)
	defer cancel()
	if err := p.held(ctx, a.Group, a.Fence); err != nil {
		return err
	}
	_, err := p.keeper.Add(ctx, at)
	if ok, _ := lapse.Allowed(p.run, a.Group, a.Fence); err == nil && !(ok && p.lives(a.Group, a.Fence)) {
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
		return nil // add started nothing: a group that has it must be able to leave
	}
	return p.keeper.Remove(at)
}

// What the engine orders about groups, carried out.

func (o orders) account(a ha.Holds) {
	m := o.m
	if m != nil && m.loop != nil {
		m.loop.Account(a)
	}
}

func (o orders) lapsed() {
	m := o.m
	if m != nil && m.loop != nil {
		m.loop.Lapsed()
	}
}

// departBound is how long this node may take to give back what the cluster gave it
// before everything else is stopped.
const departBound = time.Minute

// departLook is how often a departure looks whether the store still answers.
const departLook = 200 * time.Millisecond

func (o orders) depart(then func()) {
	m := o.m
	if m == nil || m.loop == nil {
		then()
		return
	}
	m.h.group.wg.Go(func() {
		ctx, cancel := context.WithTimeoutCause(m.h.group.ctx, departBound,
			fmt.Errorf("not everything of its groups was stopped within %s", ha.Span(departBound)))
		defer cancel()
		ctx, lose := context.WithCancelCause(ctx)
		defer lose(nil)
		m.h.group.wg.Go(func() { m.unreachable(ctx, lose) })
		if err := m.loop.Depart(ctx); err != nil {
			m.o.Log.Warn("this node ends without having left its cluster", "why", err)
		}
		then()
	})
}

// unreachable ends a departure that nobody can be told of, because the store does not
// answer: what is here of groups then ends by its deadlines, and by the stop that follows.
func (m *member) unreachable(ctx context.Context, lose context.CancelCauseFunc) {
	t := time.NewTicker(departLook)
	defer t.Stop()
	for {
		if m.loop.Away() != 0 {
			lose(errors.New("the cluster's store does not answer: the others find out by this node's silence"))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (o orders) applied(man *manifest.Manifest) {
	m := o.m
	if m == nil {
		return
	}
	m.parts.want(man)
	m.parts.made.want(man)
	m.mu.Lock()
	m.groups = man.Groups
	m.mu.Unlock()
	m.want()
}

// rights hands the shadow what this node may run.
func (o orders) rights(all []ha.Right) {
	m := o.m
	t := m.o.Identity.Timers
	inc := m.heart.incarnation()
	order := proc.Order{Kind: proc.OrderRights, Rights: make([]proc.Right, len(all))}
	for i, r := range all {
		order.Rights[i] = proc.Right{Group: r.Group, Fence: r.Fence, Incarnation: inc, Until: r.Until, Kill: r.Until.Add(-t.Stop), Life: t.Life,
			Leaving: r.Leaving, Withdraw: m.parts.words(r.Group), Beyond: m.parts.made.has(r.Group)}
	}
	if err := m.h.link.Send(order); err != nil {
		m.o.Log.Error("the shadow was not told what may run", "error", err)
	}
	m.parts.may(all)
}

func (o orders) made(r proc.Report) bool {
	if o.m == nil {
		return false
	}
	o.m.parts.levels.report(r)
	return o.m.parts.made.report(r)
}

func (o orders) startPart(a ha.StartPart) {
	m := o.m
	if a.Part.Made() {
		m.parts.made.start(a)
		return
	}
	m.h.group.wg.Go(func() {
		done := ha.PartDone{Group: a.Group, Part: a.Part, On: true, OK: true}
		if err := m.parts.add(m.h.group.ctx, a); err != nil {
			done.OK, done.Detail = false, err.Error()
		}
		m.h.engine.Tell(done)
	})
}

func (o orders) stopPart(a ha.StopPart) {
	m := o.m
	if a.Part.Made() {
		m.parts.made.stop(a)
		return
	}
	m.h.group.wg.Go(func() {
		done := ha.PartDone{Group: a.Group, Part: a.Part, OK: true}
		if err := m.parts.remove(a.Part); err != nil {
			done.OK, done.Detail = false, err.Error()
		}
		m.h.engine.Tell(done)
	})
}
