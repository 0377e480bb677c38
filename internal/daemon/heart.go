package daemon

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/ha"
	"gemel/internal/netpath"
)

// heart is what the heartbeats say of this node, and what they tell of the others.
type heart struct {
	me      ha.Node
	now     func() ha.Instant
	silence time.Duration
	station *netpath.Station // set before anything runs

	peers    []ha.Node // all nodes of the cluster
	networks int       // over which each heartbeat goes

	mu    sync.Mutex
	said  ha.Said
	hears []ha.Node // as the pages say
	pages pages
	heard []netpath.Heard // reused
	told  map[ha.Node]*hearing
}

// put appends what this node has to say.
func (h *heart) put(b []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(b, h.pages.next(h.networks)...)
}

// say changes what this node says of itself.
func (h *heart) say(s ha.Said) {
	h.mu.Lock()
	h.said = s
	h.mu.Unlock()
	h.hear() // makes the payload anew
	h.station.Hurry()
}

// incarnation is that of this node now.
func (h *heart) incarnation() ha.Incarnation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.Incarnation
}

// hear returns when each node was heard last on any network, what it said then, and
// this node itself. If it hears other nodes than before, the others are told at once:
// somebody may wait for that word before it suspects one.
func (h *heart) hear() []ha.Heard {
	all, news := h.listen()
	if news {
		h.station.Hurry()
	}
	return all
}

// listen is hear, and says whether this node hears others than before.
func (h *heart) listen() (all []ha.Heard, news bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	h.heard = h.station.Heard(h.heard[:0])
	slices.SortStableFunc(h.heard, func(a, b netpath.Heard) int { return cmp.Compare(a.Last, b.Last) })
	for _, p := range h.heard {
		if p.Last == 0 {
			continue
		}
		k := h.told[p.Node]
		if k == nil {
			k = &hearing{at: map[string]ha.Instant{}}
			h.told[p.Node] = k
		}
		if k.at[p.Network] != p.Last { // what was taken before is older than what another network brought since
			k.at[p.Network] = p.Last
			k.take(p.Session, p.Payload, h.peers)
		}
		n := ha.Heard{Node: p.Node, At: p.Last, Said: k.said, Hears: k.hears}
		i := slices.IndexFunc(all, func(x ha.Heard) bool { return x.Node == n.Node })
		if i < 0 {
			all = append(all, n)
		} else {
			all[i] = n
		}
	}
	var hears []ha.Node
	for _, n := range all {
		if now.Sub(n.At) < h.silence {
			hears = append(hears, n.Node)
		}
	}
	slices.Sort(hears)
	all = append(all, ha.Heard{Node: h.me, At: now, Said: h.said, Hears: hears})
	slices.SortFunc(all, func(a, b ha.Heard) int { return strings.Compare(string(a.Node), string(b.Node)) })
	news = !slices.Equal(hears, h.hears)
	h.hears = hears
	h.pages.set(h.said, hears)
	return all, news
}
