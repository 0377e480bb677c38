package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"gemel/internal/ha"
)

// The kinds of record.
const (
	KindStep     = "step"     // one input and the orders that it led to
	KindManifest = "manifest" // the bytes of a manifest, from now on in force
	KindBoot     = "boot"     // a life of the monitor begins
	KindBase     = "base"     // all that is remembered, at the head of a segment
	KindGap      = "gap"      // records are missing here

)

// kindEnd says that the writer closed the journal in order. It matters only here.
const kindEnd = "end"

// A Step is one turn of the core: a fact and the orders that it led to.
type Step struct {
	At      ha.Instant
	Wall    time.Time
	Input   ha.Input
	Actions []ha.Action
	Sync    bool // the record must be on the disk before Step returns
}

// A Life is one run of a monitor.
type Life struct {
	At      ha.Instant // filled in together with Wall
	Wall    time.Time  // zero: filled in by the journal
	Boot    string     // the kernel's boot id; empty: filled in by the journal
	Version string
	PID     int
	First   ha.StartID // first start id that it gives out; zero: filled in by the journal
}

// A Record is one entry as it is read back.
type Record struct {
	Seq     uint64
	Kind    string // one of the Kind constants, or a newer version's
	At      ha.Instant
	Wall    time.Time
	Boot    string // boot id of the life that wrote it; empty if not known
	Input   ha.Input
	Actions []ha.Action
	Quiet   []ha.Instant // of a step: ticks since the record before that led to nothing
	Life    *Life        // of a boot record
	Base    *Past        // of a base record
	Version uint64       // of a manifest record
	Name    string       // of a manifest record: where it was read from
	Bytes   []byte       // of a manifest record
	Lost    uint64       // of a gap: records that are missing; 0 if not known
	Note    string       // what could not be read of this record, or what a gap is; empty if all is well
}

// wire is a record's payload. The keys are short: they are in every record.
type wire struct {
	Kind    string       `json:"k"`
	At      ha.Instant   `json:"t,omitempty"`
	Wall    int64        `json:"w,omitempty"` // Unix nanoseconds
	Input   *tag         `json:"i,omitempty"`
	Actions []tag        `json:"a,omitempty"`
	Quiet   []ha.Instant `json:"q,omitempty"`
	Life    *wireLife    `json:"l,omitempty"`
	Base    *wireBase    `json:"b,omitempty"`
	Version uint64       `json:"v,omitempty"`
	Name    string       `json:"n,omitempty"`
	Bytes   []byte       `json:"m,omitempty"`
	Lost    uint64       `json:"x,omitempty"`
	Note    string       `json:"o,omitempty"`
}

type tag struct {
	Name string          `json:"n"`
	Body json.RawMessage `json:"b,omitempty"`
}

type wireLife struct {
	Boot    string     `json:"boot"`
	Version string     `json:"version"`
	PID     int        `json:"pid,omitempty"`
	First   ha.StartID `json:"first,omitempty"`
}

type wireBase struct {
	Kept      map[string]string `json:"kept,omitempty"`
	Alarms    []ha.Event        `json:"alarms,omitempty"`
	NextEvent uint64            `json:"event"`
	NextStart ha.StartID        `json:"start"`
	Manifest  []byte            `json:"manifest,omitempty"`
	Name      string            `json:"name,omitempty"`
	Version   uint64            `json:"version,omitempty"`
	Boot      string            `json:"boot,omitempty"`
	Ended     bool              `json:"ended,omitempty"`

	Exits map[ha.Process][]ha.StartID `json:"exits,omitempty"`
}

func tagOf(v interface{ Name() string }) (tag, error) {
	t, err := ha.Tag(v)
	return tag{t.Name, t.Body}, err
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func wallOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func encodeStep(s Step, quiet []ha.Instant) ([]byte, error) {
	w := wire{Kind: KindStep, At: s.At, Wall: nanos(s.Wall), Quiet: quiet}
	if s.Input != nil {
		t, err := tagOf(s.Input)
		if err != nil {
			return nil, err
		}
		w.Input = &t
	}
	for _, a := range s.Actions {
		t, err := tagOf(a)
		if err != nil {
			return nil, err
		}
		w.Actions = append(w.Actions, t)
	}
	return json.Marshal(w)
}

// decode reads a payload. A payload that is whole and yet cannot be read is a
// newer version's, or has an input or action of one: what is known is returned
// and Note says what is not.
func decode(seq uint64, payload []byte) Record {
	var w wire
	if err := json.Unmarshal(payload, &w); err != nil {
		return Record{Seq: seq, Note: fmt.Sprintf("record %d cannot be read: %v", seq, err)}
	}
	r := Record{Seq: seq, Kind: w.Kind, At: w.At, Wall: wallOf(w.Wall), Quiet: w.Quiet, Version: w.Version,
		Name: w.Name, Bytes: w.Bytes, Lost: w.Lost, Note: w.Note}
	if w.Input != nil {
		in, err := ha.Tagged{Name: w.Input.Name, Body: w.Input.Body}.Input()
		if err != nil {
			r.note(err.Error())
		}
		r.Input = in
	}
	for _, t := range w.Actions {
		a, err := ha.Tagged{Name: t.Name, Body: t.Body}.Action()
		if err != nil {
			r.note(err.Error())
			continue
		}
		r.Actions = append(r.Actions, a)
	}
	if w.Life != nil {
		r.Life = &Life{r.At, r.Wall, w.Life.Boot, w.Life.Version, w.Life.PID, w.Life.First}
	}
	if w.Base != nil {
		m := newMemory()
		m.base(w.Base)
		m.lastAt, m.lastWall = r.At, r.Wall
		p := m.past()
		p.Seq, p.mem = seq, m
		r.Base = &p
	}
	switch w.Kind {
	case KindStep, KindManifest, KindBoot, KindBase, KindGap, kindEnd:
	default:
		r.note(fmt.Sprintf("unknown kind of record %q, of a newer version", w.Kind))
	}
	return r
}

func (r *Record) note(s string) {
	if r.Note != "" {
		r.Note += "; "
	}
	r.Note += s
}
