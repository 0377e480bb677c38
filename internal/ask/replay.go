package ask

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"gemel/internal/config"
	"gemel/internal/decide/ladder"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
)

// ownRule is the rule of events that the engine tells beside the core.
const ownRule = "engine"

// maxDifferences is how many differences are shown if no other limit is given.
const maxDifferences = 20

// A Report says what a replay gave.
type Report struct {
	Lives       int          `json:"lives"`   // of monitors, run from their beginning
	Inputs      int          `json:"inputs"`  // given to the core, those before since among them
	Actions     int          `json:"actions"` // compared
	Skipped     int          `json:"skipped"` // records before the first beginning of a life, or after a gap
	Differences int          `json:"differences"`
	First       []Difference `json:"first,omitempty"`
	Notes       []string     `json:"notes,omitempty"` // why records were skipped
}

// A Difference is a turn in which the core gives other orders than are recorded.
type Difference struct {
	Seq      uint64    `json:"seq"`
	Wall     time.Time `json:"wall"`
	Input    string    `json:"input"`
	Recorded []string  `json:"recorded"` // from the first that differs on
	Replayed []string  `json:"replayed"`
}

// Replay gives the recorded facts to the core again and compares its orders with
// the recorded ones. It begins anew with each life of a monitor, from what was
// kept then. Only turns at since or later are compared; limit bounds the
// differences that are listed (zero: 20), not those that are counted.
func Replay(dir string, since time.Time, limit int) (Report, error) {
	if limit <= 0 {
		limit = maxDifferences
	}
	r := &replay{since: since, limit: limit}
	err := journal.Read(dir, 0, func(rec journal.Record) bool {
		r.record(rec)
		return true
	})
	if err != nil {
		return r.report, fmt.Errorf("replaying the journal: %w", err)
	}
	return r.report, nil
}

// replay is one replay under way.
type replay struct {
	since  time.Time
	limit  int
	report Report

	past    journal.Past
	sound   bool // past is known: nothing is missing since the last base
	first   ha.StartID
	machine *ladder.Machine
	pending *manifest.Manifest // given by the last manifest record
	version uint64
	own     []ha.Own // of the life
}

func (r *replay) record(rec journal.Record) {
	switch rec.Kind {
	case journal.KindBase:
		r.past.Take(rec)
		r.sound = true
		return
	case journal.KindGap:
		r.lose("record %d: %s", rec.Seq, rec.Note)
		r.sound = false
		return
	case journal.KindBoot:
		r.first = rec.Life.First
	case journal.KindManifest:
		r.manifest(rec)
	case journal.KindStep:
		r.step(rec)
	}
	r.past.Take(rec)
}

// lose ends the life that is being replayed.
func (r *replay) lose(format string, args ...any) {
	r.machine = nil
	if len(r.report.Notes) < 2*maxNotes {
		r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...)+": the replay goes on with the next life of a monitor")
	}
}

func (r *replay) manifest(rec journal.Record) {
	m, err := config.Parse(rec.Name, rec.Bytes)
	if err != nil {
		r.lose("record %d: manifest version %d is none any more: %v", rec.Seq, rec.Version, err)
		return
	}
	m = m.With(r.own)
	r.pending, r.version = m, rec.Version
	if r.machine != nil {
		r.machine.Want(m)
	}
}

func (r *replay) step(rec journal.Record) {
	if own(rec) || clustered(rec) {
		return
	}
	if b, ok := rec.Input.(ha.Booted); ok {
		r.begin(rec, b)
	}
	if r.machine != nil && rec.Input == nil {
		r.lose("record %d: %s", rec.Seq, rec.Note)
	}
	if in, ok := rec.Input.(ha.Applied); ok && r.machine != nil && in.Version != r.version {
		r.lose("record %d: manifest version %d is not in the journal", rec.Seq, in.Version)
	}
	if r.machine == nil {
		r.report.Skipped++
		return
	}
	for _, at := range rec.Quiet {
		r.compare(journal.Record{Seq: rec.Seq, At: at, Wall: rec.Wall, Input: ha.Tick{}})
	}
	if r.machine != nil {
		r.compare(rec)
	}
}

// own reports whether a record tells only what the engine said beside the core.
func own(rec journal.Record) bool {
	if _, tick := rec.Input.(ha.Tick); !tick && rec.Input != nil || rec.Note != "" || len(rec.Actions) == 0 {
		return false
	}
	for _, a := range rec.Actions {
		if e, ok := a.(ha.Emit); !ok || e.Event.Why.Rule != ownRule {
			return false
		}
	}
	return true
}

// clustered reports whether a record is a step of the cluster's machines. Of those
// only what is more than a renewal is written down, so that they cannot be replayed
// from it.
func clustered(rec journal.Record) bool {
	return len(rec.Actions) > 0 && strings.HasPrefix(rec.Actions[0].Because().Rule, "cluster.")
}

// begin makes the machine of a life as the monitor of that time did.
func (r *replay) begin(rec journal.Record, b ha.Booted) {
	r.machine = nil
	if !r.sound {
		r.lose("record %d: what was kept before this life is not known", rec.Seq)
		return
	}
	if r.pending == nil || r.version != r.past.ManifestVersion {
		m, err := config.Parse(r.past.ManifestName, r.past.Manifest)
		if err != nil {
			r.lose("record %d: the manifest of this life is not in the journal or none any more: %v", rec.Seq, err)
			return
		}
		r.pending, r.version = m.With(b.Own), r.past.ManifestVersion
		r.own = b.Own
	}
	first := r.past.NextStart
	if r.first != 0 {
		first, r.first = r.first, 0
	}
	if !slices.EqualFunc(r.own, b.Own, func(x, y ha.Own) bool { return x.Name == y.Name }) {
		r.own = b.Own
		m, err := config.Parse(r.past.ManifestName, r.past.Manifest)
		if err != nil {
			r.lose("record %d: the manifest of this life is none any more: %v", rec.Seq, err)
			return
		}
		r.pending = m.With(b.Own)
	}
	r.machine = ladder.New(r.pending, r.past.Kept, first)
	r.report.Lives++
}

// compare runs one turn.
func (r *replay) compare(rec journal.Record) {
	got, panicked := r.turn(rec)
	r.report.Inputs++
	if rec.Wall.Before(r.since) && panicked == "" || rec.Note != "" {
		return
	}
	r.report.Actions += len(rec.Actions)
	for i, a := range got {
		if e, ok := a.(ha.Emit); ok {
			e.Event = e.Event.Dated(rec.At, rec.Wall) // as the engine did
			got[i] = e
		}
	}
	want, have := plain(rec.Actions), plain(got)
	if panicked != "" {
		have = []string{"the core failed: " + panicked}
	}
	if slices.Equal(want, have) {
		return
	}
	r.report.Differences++
	if len(r.report.First) < r.limit {
		same := 0
		for same < min(len(want), len(have)) && want[same] == have[same] {
			same++
		}
		t, _ := ha.Tag(rec.Input) // a recorded input can be encoded
		r.report.First = append(r.report.First, Difference{rec.Seq, rec.Wall, t.Name + " " + string(t.Body), want[same:], have[same:]})
	}
	if panicked != "" {
		r.lose("record %d: the core failed", rec.Seq)
	}
}

// turn runs the core. A failure of it is what a replay is there to show.
func (r *replay) turn(rec journal.Record) (got []ha.Action, panicked string) {
	defer func() {
		if p := recover(); p != nil {
			panicked = fmt.Sprint(p)
		}
	}()
	return r.machine.Step(rec.At, rec.Input), ""
}

// plain prints actions without what the engine adds to them.
func plain(actions []ha.Action) []string {
	out := make([]string, 0, len(actions))
	for _, a := range actions {
		if e, ok := a.(ha.Emit); ok {
			e.Event.ID, e.Event.Wall, e.Event.At = 0, time.Time{}, 0
			a = e
		}
		b, err := json.Marshal(a)
		if err != nil {
			b = []byte(err.Error())
		}
		out = append(out, a.Name()+" "+string(b))
	}
	return out
}

// Text prints a report for people.
func (r Report) Text() string {
	var b strings.Builder
	lives := fmt.Sprintf("%d lives", r.Lives)
	if r.Lives == 1 {
		lives = "one life"
	}
	fmt.Fprintf(&b, "%d inputs of %s of the monitor replayed, %d actions compared: ", r.Inputs, lives, r.Actions)
	switch r.Differences {
	case 0:
		b.WriteString("no difference.\n")
	case 1:
		b.WriteString("1 turn differs.\n")
	default:
		fmt.Fprintf(&b, "%d turns differ.\n", r.Differences)
	}
	if r.Skipped > 0 {
		para(&b, "", fmt.Sprintf("%d records were left out: they do not begin with the life of a monitor, or stand after a gap.", r.Skipped))
	}
	for _, d := range r.First {
		fmt.Fprintf(&b, "\nrecord %d, %s\n", d.Seq, clockTime(d.Wall))
		para(&b, "  ", "input     "+d.Input)
		for _, s := range d.Recorded {
			para(&b, "  ", "recorded  "+s)
		}
		for _, s := range d.Replayed {
			para(&b, "  ", "replayed  "+s)
		}
	}
	if n := r.Differences - len(r.First); n > 0 {
		fmt.Fprintf(&b, "\n... and %d more.\n", n)
	}
	for _, n := range r.Notes {
		para(&b, "", "Note: "+n+".")
	}
	return b.String()
}
