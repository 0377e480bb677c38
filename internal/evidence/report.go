package evidence

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"gemel/internal/ha"
)

// report gathers what the readers find. A reader that comes late writes into a
// report that nobody reads any more.
type report struct {
	done chan struct{} // closed when every reader has ended
	lost *atomic.Int32 // the keeper's

	mu      sync.Mutex
	parts   []partText
	running int
	over    bool
}

type partText struct {
	b     strings.Builder
	full  bool
	ended bool
}

func newReport(lost *atomic.Int32) *report {
	return &report{done: make(chan struct{}), lost: lost, parts: make([]partText, len(parts)), running: len(parts)}
}

// end says that the reader of part i has ended.
func (r *report) end(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	if r.over {
		r.lost.Add(-1)
		return
	}
	r.parts[i].ended = true
	if r.running == 0 {
		close(r.done)
	}
}

// giveUp counts the readers that are held up.
func (r *report) giveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.lost.Add(int32(r.running))
}

// add appends to part i what can be shown of s, and reports whether there is room
// for more.
func (r *report) add(i int, s string) bool {
	s = printable(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.parts[i]
	if room := parts[i].size - p.b.Len(); len(s) > room {
		p.full = true
		s = s[:max(room, 0)]
	}
	p.b.WriteString(s)
	return !p.full
}

// text is the report as it is now.
func (r *report) text(c Case, at time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "evidence of process %s, start %d, pid %d\n", oneLine(string(c.Process)), c.Start, c.PID)
	fmt.Fprintf(&b, "taken %s, %v after boot, in %s\n", at.UTC().Format(time.RFC3339Nano), c.At, ha.Span(time.Since(at)))
	for i, n := range c.Notes {
		if i == 100 {
			break
		}
		b.WriteString(oneLine(n[:min(len(n), 200)]) + "\n")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.parts {
		p := &r.parts[i]
		fmt.Fprintf(&b, "\n== %s\n%s", parts[i].name, p.b.String())
		if s := p.b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			b.WriteByte('\n')
		}
		if p.full {
			fmt.Fprintf(&b, "(cut after %d bytes)\n", parts[i].size)
		}
		if !p.ended {
			b.WriteString("(not complete: the kernel did not answer in time)\n")
		}
	}
	return b.String()
}

// oneLine is printable without line breaks: for names that a program chose.
func oneLine(s string) string { return strings.ReplaceAll(printable(s), "\n", "?") }

// printable leaves nothing in s that a terminal could obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
