package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/netpath"
	"gemel/internal/tcp"
)

const (
	portsEvery  = 5 * time.Second // between two looks at the ports of the other nodes
	portsBound  = time.Second     // for a connection
	portsMisses = 3               // in a row, until a port counts as shut
	portsStill  = 3 * time.Second // without a heartbeat: they do not pass
)

// ports compares what passes between this node and each other one: heartbeats, which are
// UDP, and connections, which are TCP. Firewalls often let one through and not the other.
// The node is then neither dead nor well, and nobody could say why: heartbeats alone keep
// it a member whose store is cut off; connections alone leave it suspected and cleared
// again and again.
type ports struct {
	m    *member
	open func(ctx context.Context, at netip.AddrPort) error // a connection
	shut map[port]int                                       // misses in a row
	told map[ha.Node]string
	next bool // it has looked before in this life
}

// port is where connections to a node go.
type port struct {
	node    ha.Node
	network string // empty: an address that is of none
	at      netip.AddrPort
	lives   bool // only a monitor that lives answers there
}

// passing is what passes between this node and another one over one network.
type passing struct {
	here, there bool // heartbeats arrive: of the other one here, ours there
	tcp         []tried
}

// tried is what became of the connections to one port.
type tried struct {
	port   port
	misses int // in a row; 0: it is open
	err    error
}

func newPorts(m *member) *ports {
	p := &ports{m: m, open: connect, shut: map[port]int{}, told: map[ha.Node]string{}}
	for _, e := range m.was.alarms {
		if e.Code == ha.PortShut {
			p.told[ha.Node(e.Subject.Name)] = e.Detail
		}
	}
	return p
}

// connect opens a connection and closes it again. The other end sees one that says
// nothing, which none of ours takes amiss.
func connect(ctx context.Context, at netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, portsBound)
	defer cancel()
	c, err := tcp.Dialer{}.Dial(ctx, at.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// run looks until ctx ends. One look is done before the next begins.
func (p *ports) run(ctx context.Context) error {
	next := time.NewTicker(portsEvery)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		}
		all := p.look(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.tell(all)
	}
}

// doors are the ports of a node that this one may have to connect to.
func (p *ports) doors(n manifest.Peer) []port {
	m := p.m
	id := m.o.Identity
	var all []port
	if n.Voter && self(id).Voter && !id.Store.External() {
		for _, at := range n.Store {
			d := port{node: n.Name, at: at}
			for _, a := range n.Addresses {
				if a.At.Addr() == at.Addr() {
					d.network = a.Network
				}
			}
			all = append(all, d)
		}
	}
	if m.clerk != nil && !n.Witness { // a witness answers nobody, and by hand nobody listens there
		for _, a := range n.Addresses {
			all = append(all, port{n.Name, a.Network, a.At, true})
		}
	}
	return all
}

// look tries each port once, all at the same time, and says what passes for each node.
func (p *ports) look(ctx context.Context) map[ha.Node]map[string]passing {
	m := p.m
	id := m.o.Identity
	var all []tried
	for _, n := range id.Peers {
		if n.Name == id.Name {
			continue
		}
		for _, d := range p.doors(n) {
			all = append(all, tried{port: d})
		}
	}
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() { all[i].err = p.open(ctx, all[i].port.at) })
	}
	wg.Wait()
	shut := map[port]int{}
	out := map[ha.Node]map[string]passing{}
	put := func(n ha.Node, network string, f func(*passing)) {
		if out[n] == nil {
			out[n] = map[string]passing{}
		}
		x := out[n][network]
		f(&x)
		out[n][network] = x
	}
	for _, t := range all {
		if t.err != nil {
			if t.misses = p.shut[t.port] + 1; !p.next && p.told[t.port.node] != "" {
				t.misses = portsMisses // the life before had seen the others
			}
			shut[t.port] = t.misses
		}
		put(t.port.node, t.port.network, func(x *passing) { x.tcp = append(x.tcp, t) })
	}
	p.shut, p.next = shut, true // what is no port any more is forgotten
	now := clock.Now()
	for _, h := range m.station.Heard(nil) {
		put(h.Node, h.Network, func(x *passing) { x.here, x.there = pulses(h, now) })
	}
	return out
}

// pulses reports whether heartbeats pass, in each direction.
func pulses(h netpath.Heard, now ha.Instant) (here, there bool) {
	return h.Last != 0 && now.Sub(h.Last) < portsStill, h.Echoed != 0 && now.Sub(h.Echoed) < portsStill
}

// tell raises and clears the alarms, one for each other node.
func (p *ports) tell(all map[ha.Node]map[string]passing) {
	id := p.m.o.Identity
	for n := range p.told {
		if _, ok := all[n]; !ok {
			all[n] = nil // it is none of the cluster any more
		}
	}
	for n, nets := range all {
		text := strings.Join(disagree(id.Name, n, nets), "; ")
		about := ha.Subject{Kind: ha.KindNode, Name: string(n)}
		switch {
		case text == p.told[n]:
		case text == "":
			delete(p.told, n)
			p.m.h.engine.Alarm(ha.PortShut, about, ha.OK, "what passes between "+string(id.Name)+" and "+string(n)+" agrees again, or nothing passes at all")
		default:
			p.told[n] = text
			p.m.h.engine.Alarm(ha.PortShut, about, ha.Major, text)
		}
	}
}

// disagree says what passes between two nodes where something else does not, and what to
// do, each in a sentence.
func disagree(me, other ha.Node, nets map[string]passing) []string {
	var alive, heard bool // the other one's monitor, for sure; any heartbeat of it
	for _, x := range nets {
		heard = heard || x.here
		alive = alive || x.here || slices.ContainsFunc(x.tcp, func(t tried) bool { return t.misses == 0 && t.port.lives })
	}
	var out []string
	for name, x := range nets {
		over := ""
		if name != "" {
			over = " over " + name
		}
		open := slices.ContainsFunc(x.tcp, func(t tried) bool { return t.misses == 0 })
		for _, t := range x.tcp {
			if t.misses < portsMisses || !x.here && (name != "" || !heard) {
				continue
			}
			out = append(out, fmt.Sprintf("TCP %d from %s to %s does not pass%s (%s: %s), and heartbeats of %s do: %s",
				t.port.at.Port(), me, other, over, t.port.at, said(t.err), other, remedy(t, me, other)))
		}
		if name == "" || !open {
			continue
		}
		switch {
		case !x.here && alive:
			out = append(out, fmt.Sprintf("UDP from %s to %s does not pass%s, and TCP from %s to %s does: let UDP 5314 from %s through at %s and between them", other, me, over, me, other, other, me))
		case x.here && !x.there:
			out = append(out, fmt.Sprintf("UDP from %s to %s does not pass%s, and TCP from %s to %s does: let UDP 5314 from %s through at %s and between them", me, other, over, me, other, me, other))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// said is an error of a connection in a few words.
func said(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "no route"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "not permitted on this machine"
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return "no answer within " + ha.Span(portsBound)
	}
	return err.Error()
}

func remedy(t tried, me, other ha.Node) string {
	if errors.Is(t.err, unix.ECONNREFUSED) {
		return fmt.Sprintf("see that gemel listens there on %s (gemel status), or a firewall refuses it", other)
	}
	return fmt.Sprintf("let it through in the firewalls of %s and %s and between them", me, other)
}
