package ask

import (
	"runtime"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/journal"
)

// TestALargeJournal asks about a program that was quiet while another one filled
// many segments: the answer is found, and memory stays bounded.
func TestALargeJournal(t *testing.T) {
	total := 20_000
	if testing.Short() {
		total = 2_000
	}
	l := newLab(t)
	l.must(l.j.Close())
	l.j = nil
	l.dir = t.TempDir()
	l.o = journal.Options{Dir: l.dir, Segment: 256 << 10}
	l.life(yaml)
	l.start()
	l.crash("db", 7)
	l.pass(time.Minute)
	for range total / 2 {
		l.now = l.now.Add(time.Second)
		l.in(ha.Request{ID: "r", Verb: ha.VerbLock, Target: ha.OfProcess("web"), By: "op"})
		l.in(ha.Request{ID: "r", Verb: ha.VerbUnlock, Target: ha.OfProcess("web"), By: "op"})
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, began := heap(), time.Now()
	a := l.why(Question{Process: "db"})
	wants(t, a.Text(), "ended with exit 7")
	asked := time.Since(began)
	a = l.why(Question{Event: a.Chain[0].Events[0]})
	wants(t, a.Text(), "exit 7", "What came of it")
	began = time.Now()
	l.why(Question{Process: "web"})
	last := time.Since(began)
	r := l.same()
	if after := heap(); after > before+32<<20 {
		t.Errorf("heap grew from %d to %d", before, after)
	}
	t.Logf("%d inputs: why of the oldest %v, of the newest %v", r.Inputs, asked, last)
}
