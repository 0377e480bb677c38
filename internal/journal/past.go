package journal

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
)

// Past is what the journal remembers: all that a new monitor needs to know of
// the time before it.
type Past struct {
	Kept            map[string]string           // latest value of each ha.Keep
	Alarms          []ha.Event                  // standing, oldest first
	NextEvent       uint64                      // first event id not given out yet
	NextStart       ha.StartID                  // first start id not given out yet
	Exits           map[ha.Process][]ha.StartID // of each process the latest starts whose ends are recorded
	Manifest        []byte                      // the one in force; nil if there was none
	ManifestName    string
	ManifestVersion uint64
	Boot            string     // boot id of the last life; empty if there was none
	LastAt          ha.Instant // of the last record, in that boot
	LastWall        time.Time
	Seq             uint64   // number of the last record
	Empty           bool     // nothing was ever recorded here
	Repairs         []string // what was cut off or skipped, one sentence each

	mem *memory // of Take; of a base record: what else it holds
}

// memory is Past while it grows.
type memory struct {
	kept      map[string]string
	alarms    map[string]ha.Event
	nextEvent uint64
	nextStart ha.StartID
	exits     map[ha.Process][]ha.StartID
	manifest  []byte
	name      string
	version   uint64
	boot      string
	lastAt    ha.Instant
	lastWall  time.Time
	ended     bool // the last record is an end
}

func newMemory() *memory {
	return &memory{kept: map[string]string{}, alarms: map[string]ha.Event{}, exits: map[ha.Process][]ha.StartID{}, nextEvent: 1, nextStart: 1}
}

func (m *memory) standing() []ha.Event {
	return slices.SortedFunc(maps.Values(m.alarms), func(a, b ha.Event) int {
		switch {
		case a.ID < b.ID:
			return -1
		case a.ID > b.ID:
			return 1
		}
		return 0
	})
}

func (m *memory) past() Past {
	return Past{Kept: maps.Clone(m.kept), Alarms: m.standing(), NextEvent: m.nextEvent, NextStart: m.nextStart, Exits: maps.Clone(m.exits),
		Manifest: m.manifest, ManifestName: m.name, ManifestVersion: m.version,
		Boot: m.boot, LastAt: m.lastAt, LastWall: m.lastWall}
}

func (m *memory) toWire() *wireBase {
	return &wireBase{m.kept, m.standing(), m.nextEvent, m.nextStart, m.manifest, m.name, m.version, m.boot, m.ended, m.exits}
}

// base takes over what a base record holds, in place of all that was known.
func (m *memory) base(b *wireBase) {
	*m = memory{kept: map[string]string{}, alarms: map[string]ha.Event{}, exits: map[ha.Process][]ha.StartID{}, nextEvent: max(1, b.NextEvent),
		nextStart: max(1, b.NextStart), manifest: b.Manifest, name: b.Name, version: b.Version, boot: b.Boot,
		lastAt: m.lastAt, lastWall: m.lastWall, ended: b.Ended}
	maps.Copy(m.kept, b.Kept)
	maps.Copy(m.exits, b.Exits)
	for _, e := range b.Alarms {
		m.alarms[e.Key()] = e
	}
}

// fromPast takes over a base record that was read back.
func (m *memory) fromPast(r Record) {
	p := r.Base
	*m = memory{kept: maps.Clone(p.Kept), alarms: map[string]ha.Event{}, exits: maps.Clone(p.Exits), nextEvent: p.NextEvent, nextStart: p.NextStart,
		manifest: p.Manifest, name: p.ManifestName, version: p.ManifestVersion, boot: p.Boot,
		lastAt: r.At, lastWall: r.Wall, ended: p.mem != nil && p.mem.ended}
	if m.kept == nil {
		m.kept = map[string]string{}
	}
	if m.exits == nil {
		m.exits = map[ha.Process][]ha.StartID{} // of a version that did not keep them
	}
	for _, e := range p.Alarms {
		m.alarms[e.Key()] = e
	}
}

// record takes in a record that was read.
func (m *memory) record(r Record) {
	if !r.Wall.IsZero() || r.At != 0 {
		m.lastAt, m.lastWall = r.At, r.Wall
	}
	m.ended = r.Kind == kindEnd
	switch r.Kind {
	case KindStep:
		m.step(r.Input, r.Actions)
	case KindManifest:
		m.manifest, m.name, m.version = r.Bytes, r.Name, r.Version
	case KindBoot:
		if r.Life != nil {
			m.boot = r.Life.Boot
			m.sawStart(max(1, r.Life.First) - 1)
		}
	}
}

func (m *memory) step(in ha.Input, actions []ha.Action) {
	switch in := in.(type) {
	case ha.Started:
		m.sawStart(in.Start)
	case ha.Exited:
		m.sawStart(max(in.Start, in.Successor))
		m.exits[in.Process] = Recent(m.exits[in.Process], in.Start)
	case ha.Adopted:
		m.sawStart(max(in.Start, in.Armed))
	}
	for _, a := range actions {
		switch a := a.(type) {
		case ha.Start:
			m.sawStart(a.Start)
		case ha.Arm:
			m.sawStart(max(a.Start, a.Next))
		case ha.Seek:
			m.sawStart(a.Start)
		case ha.StartPart:
			m.sawStart(a.Start)
		case ha.StopPart:
			m.sawStart(a.Start)
		case ha.Keep:
			if a.Value == "" {
				delete(m.kept, a.Key)
			} else {
				m.kept[a.Key] = a.Value
			}
		case ha.Emit:
			m.event(a.Event)
		}
	}
}

// recall takes in the payload of a record, and reads no more of it than memory
// needs: a new monitor waits for this. note is what could not be read.
func (m *memory) recall(seq uint64, payload []byte) (base bool, note string) {
	var w wire
	if json.Unmarshal(payload, &w) != nil || w.Kind != KindStep {
		r := decode(seq, payload)
		if r.Base != nil {
			m.fromPast(r)
			return true, r.Note
		}
		m.record(r)
		if r.Kind == KindGap {
			return false, ""
		}
		return false, r.Note
	}
	m.lastAt, m.lastWall, m.ended = w.At, wallOf(w.Wall), false
	var notes []string
	if w.Input != nil && !idle[w.Input.Name] {
		in, err := ha.Tagged{Name: w.Input.Name, Body: w.Input.Body}.Input()
		if err != nil {
			notes = append(notes, err.Error())
		}
		m.step(in, nil)
	}
	for _, t := range w.Actions {
		if idle[t.Name] || t.Name == emit && m.told(t.Body) {
			continue
		}
		a, err := ha.Tagged{Name: t.Name, Body: t.Body}.Action()
		if err != nil {
			notes = append(notes, err.Error())
			continue
		}
		m.step(nil, []ha.Action{a})
	}
	return false, strings.Join(notes, "; ")
}

// idle names the frequent inputs and actions that change nothing in memory.
var idle = map[string]bool{
	ha.Ready{}.Name(): true, ha.Busy{}.Name(): true, ha.Extend{}.Name(): true, ha.Verdict{}.Name(): true, ha.Tick{}.Name(): true, ha.Missed{}.Name(): true,
	ha.Watch{}.Name(): true, ha.Await{}.Name(): true, ha.Judge{}.Name(): true, ha.Answer{}.Name(): true,
}

// emit is the name of the action that tells an event.
var emit = ha.Emit{}.Name()

// told takes in an event that changes no alarm, without reading all of it.
func (m *memory) told(body []byte) bool {
	var b struct {
		Event struct {
			ID     uint64    `json:"id"`
			Change ha.Change `json:"change"`
		} `json:"event"`
	}
	if json.Unmarshal(body, &b) != nil || b.Event.Change != ha.Info {
		return false
	}
	m.event(ha.Event{ID: b.Event.ID})
	return true
}

func (m *memory) sawStart(id ha.StartID) {
	if id >= m.nextStart {
		m.nextStart = id + 1
	}
}

func (m *memory) event(e ha.Event) {
	if e.ID >= m.nextEvent {
		m.nextEvent = e.ID + 1
	}
	switch e.Change {
	case ha.Assert:
		m.alarms[e.Key()] = e
	case ha.Clear:
		delete(m.alarms, e.Key())
	}
}

// Take brings p up to date with a record that follows: so a reader of the
// journal knows what was remembered at each point of it.
func (p *Past) Take(r Record) {
	if r.Base != nil {
		*p = *r.Base
		p.Kept, p.mem = maps.Clone(p.Kept), nil
	}
	if p.mem == nil {
		p.mem = newMemory()
		p.mem.fromPast(Record{Base: p, At: p.LastAt, Wall: p.LastWall})
	}
	if r.Base == nil {
		p.mem.record(r)
	}
	m := p.mem
	p.Kept, p.NextEvent, p.NextStart, p.Exits = m.kept, m.nextEvent, m.nextStart, m.exits
	p.Manifest, p.ManifestName, p.ManifestVersion = m.manifest, m.name, m.version
	p.Boot, p.LastAt, p.LastWall, p.Seq = m.boot, m.lastAt, m.lastWall, max(p.Seq, r.Seq)
	for _, a := range r.Actions {
		if e, ok := a.(ha.Emit); ok && e.Event.Change != ha.Info {
			p.Alarms = m.standing()
			return
		}
	}
}

// recent is how many ends of a process are remembered: a shadow may tell an end
// again that a monitor wrote down and did not live to acknowledge, and between two
// acknowledgements there are the end of a start and that of its successors.
const recent = 16

// Recent adds the start of an end to the list of those that are remembered.
func Recent(list []ha.StartID, s ha.StartID) []ha.StartID {
	if len(list) >= recent {
		list = list[len(list)-recent+1:]
	}
	return append(slices.Clip(list), s)
}
