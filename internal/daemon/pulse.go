package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"

	"gemel/internal/ha"
	"gemel/internal/netpath"
)

// pulse is the payload of a heartbeat. The keys are short: it goes out twenty times a
// second on each network.
//
// What a node says of its groups may be more than a datagram takes. Then it goes out in
// pages, one with each heartbeat, and counts when all of one statement are there. Pages
// have keys of their own: a version that does not know them reads that nothing is said,
// and not that the groups of one page are all there are.
//
//budget:fields it is a message
type pulse struct {
	Incarnation ha.Incarnation `json:"i,omitempty"`
	Key         ha.Rev         `json:"k,omitempty"`
	Holds       []ha.Group     `json:"g,omitempty"`
	Hears       []ha.Node      `json:"h,omitempty"`
	Unproved    []ha.Group     `json:"u,omitempty"`
	Away        bool           `json:"a,omitempty"`

	Statement  uint32     `json:"ps,omitempty"` // which of them the page is of; zero: it is no page
	Page       int        `json:"pp,omitempty"`
	Pages      int        `json:"pn,omitempty"`
	PageKey    ha.Rev     `json:"pk,omitempty"`
	PageHolds  []ha.Group `json:"pg,omitempty"`
	PageUnwell []ha.Group `json:"pu,omitempty"` // Unproved
	// HearsSums stand for Hears where the names take too much.
	HearsSums []string `json:"hx,omitempty"`
}

const (
	pageEager = 10 // rounds through all pages of a statement with each heartbeat
	pageRest  = 20 // then a page stays for so many
	pageTries = 8  // how often groups are spread over more pages than it seemed to take
)

// pages are the payloads that a node sends, and which is next.
type pages struct {
	all       [][]byte
	said      ha.Said
	hears     []ha.Node
	made      bool
	statement uint32
	sent      int // calls since the statement changed
}

// next is the payload of a heartbeat. It is asked for once for each network, and the same
// page goes out on all of them: one of which nothing arrives must not take its pages with it.
func (p *pages) next(networks int) []byte {
	if len(p.all) == 0 {
		return nil
	}
	round := p.sent / max(networks, 1)
	p.sent++
	if eager := pageEager * len(p.all); round >= eager {
		round = eager + (round-eager)/pageRest
	}
	return p.all[round%len(p.all)]
}

// set makes the pages of what there is to say.
func (p *pages) set(s ha.Said, hears []ha.Node) {
	same := p.made && p.said.Incarnation == s.Incarnation && p.said.Key == s.Key && slices.Equal(p.said.Holds, s.Holds) && slices.Equal(p.said.Unproved, s.Unproved) && p.said.Away == s.Away
	if same && slices.Equal(p.hears, hears) {
		return
	}
	if !same {
		p.statement, p.sent = max(p.statement+1, 1), 0
	}
	p.said, p.hears, p.made = s, slices.Clone(hears), true
	p.all = encode(s, hears, p.statement)
}

// encode makes the payloads of a statement: one, if all of it fits.
func encode(s ha.Said, hears []ha.Node, statement uint32) [][]byte {
	whole := pulse{Incarnation: s.Incarnation, Key: s.Key, Holds: s.Holds, Hears: hears, Unproved: s.Unproved, Away: s.Away}
	if b, ok := fitting(whole); ok {
		return [][]byte{b}
	}
	head := pulse{Incarnation: s.Incarnation, Hears: hears, Statement: statement, PageKey: s.Key, Away: s.Away}
	if b, err := json.Marshal(head); err == nil && len(b) > netpath.MaxPayload/2 {
		head.Hears = nil
		for _, n := range hears {
			head.HearsSums = append(head.HearsSums, sumOf(n))
		}
	}
	for n, tries := 1, 0; n <= len(s.Holds)+1; n++ {
		all := make([][]byte, 0, n)
		size := (len(s.Holds) + n - 1) / n
		for i := range n {
			p := head
			p.Page, p.Pages = i, n
			p.PageHolds = s.Holds[min(i*size, len(s.Holds)):min((i+1)*size, len(s.Holds))]
			for _, g := range p.PageHolds {
				if slices.Contains(s.Unproved, g) {
					p.PageUnwell = append(p.PageUnwell, g)
				}
			}
			b, ok := fitting(p)
			if !ok {
				break
			}
			all = append(all, b)
		}
		if len(all) == n {
			return all
		}
		if tries++; tries > pageTries {
			n += n / 4 // names of very different lengths
		}
	}
	return nil
}

func fitting(p pulse) ([]byte, bool) {
	b, err := json.Marshal(p)
	return b, err == nil && len(b) <= netpath.MaxPayload
}

// sumOf stands for the name of a node.
func sumOf(n ha.Node) string {
	sum := sha256.Sum256([]byte(n))
	return hex.EncodeToString(sum[:6])
}

// hearing is what is known of what another node says.
type hearing struct {
	at    map[string]ha.Instant // of the last datagram that was taken, by network
	said  ha.Said
	hears []ha.Node

	session   uint64
	statement uint32
	pages     []*pulse
	whole     ha.Said // of the last statement of this session that was complete
}

// take takes a payload. Of a statement that is not complete nothing counts: what the node
// said before does, as long as it is the same one in the same life.
func (h *hearing) take(session uint64, payload []byte, peers []ha.Node) {
	var p pulse
	if json.Unmarshal(payload, &p) != nil {
		h.said, h.hears = ha.Said{}, nil
		return
	}
	h.hears = p.Hears
	for _, sum := range p.HearsSums {
		for _, n := range peers {
			if sumOf(n) == sum {
				h.hears = append(h.hears, n)
			}
		}
	}
	slices.Sort(h.hears)
	if session != h.session {
		h.session, h.statement, h.pages, h.whole = session, 0, nil, ha.Said{}
	}
	if p.Statement == 0 {
		h.statement, h.pages = 0, nil
		h.whole = ha.Said{Incarnation: p.Incarnation, Key: p.Key, Holds: p.Holds, Unproved: p.Unproved}
	} else {
		h.page(p)
	}
	if h.said = h.whole; h.whole.Incarnation != p.Incarnation {
		h.said = ha.Said{Incarnation: p.Incarnation}
	}
	h.said.Away = p.Away // each datagram says it
}

// page takes one page. One of a statement that is over, which another network brought
// late, is left out.
func (h *hearing) page(p pulse) {
	switch {
	case p.Pages < 1 || p.Pages > 1<<12 || p.Page < 0 || p.Page >= p.Pages || int32(p.Statement-h.statement) < 0 && h.pages != nil:
		return
	case p.Statement != h.statement || len(h.pages) != p.Pages:
		h.statement, h.pages = p.Statement, make([]*pulse, p.Pages)
	}
	h.pages[p.Page] = &p
	said := ha.Said{Incarnation: p.Incarnation, Key: p.PageKey}
	for _, x := range h.pages {
		if x == nil || x.Incarnation != p.Incarnation || x.PageKey != p.PageKey {
			return
		}
		said.Holds = append(said.Holds, x.PageHolds...)
		said.Unproved = append(said.Unproved, x.PageUnwell...)
	}
	h.whole = said
}
