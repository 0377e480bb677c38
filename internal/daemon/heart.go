package daemon

import (
	"encoding/json"
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

	mu      sync.Mutex
	said    ha.Said
	hears   []ha.Node // as the payload says
	payload []byte
	heard   []netpath.Heard // reused
}

// pulse is the payload of a heartbeat. The keys are short: it goes out twenty times a
// second on each network.
type pulse struct {
	Incarnation ha.Incarnation `json:"i,omitempty"`
	Key         ha.Rev         `json:"k,omitempty"`
	Holds       []ha.Group     `json:"g,omitempty"`
	Hears       []ha.Node      `json:"h,omitempty"`
	Unproved    []ha.Group     `json:"u,omitempty"`
}

// put appends what this node has to say.
func (h *heart) put(b []byte) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(b, h.payload...)
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
	for _, p := range h.heard {
		if p.Last == 0 {
			continue
		}
		n := ha.Heard{Node: p.Node, At: p.Last}
		var said pulse
		if json.Unmarshal(p.Payload, &said) == nil {
			n.Said = ha.Said{Incarnation: said.Incarnation, Key: said.Key, Holds: said.Holds, Unproved: said.Unproved}
			n.Hears = said.Hears
		}
		i := slices.IndexFunc(all, func(x ha.Heard) bool { return x.Node == n.Node })
		switch {
		case i < 0:
			all = append(all, n)
		case all[i].At < n.At:
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
	h.hears, h.payload = hears, h.encode(hears)
	return all, news
}

// encode makes the payload. What does not fit says least: with a key of zero nobody
// takes it for a proof that something is stopped.
func (h *heart) encode(hears []ha.Node) []byte {
	p := pulse{Incarnation: h.said.Incarnation, Key: h.said.Key, Holds: h.said.Holds, Hears: hears, Unproved: h.said.Unproved}
	b, err := json.Marshal(p)
	if err == nil && len(b) > netpath.MaxPayload {
		p.Key, p.Holds = 0, nil
		b, err = json.Marshal(p)
	}
	if err != nil || len(b) > netpath.MaxPayload {
		return nil
	}
	return b
}
