package ladder

import (
	"container/heap"

	"gemel/internal/ha"
)

// timers holds the next deadline of each process. An entry that is not its
// process's deadline any more is dropped when it comes up.
type timers []timer

type timer struct {
	at ha.Instant
	p  *proc
}

// Len, Less, Swap, Push and Pop are those of container/heap.
func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].p.name < t[j].p.name
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	last := old[len(old)-1]
	*t = old[:len(old)-1]
	return last
}

// set makes at the deadline of p; zero means none.
func (t *timers) set(p *proc, at ha.Instant) {
	if p.due == at {
		return
	}
	p.due = at
	if at != 0 {
		heap.Push(t, timer{at, p})
	}
}

// first returns the earliest deadline that is still one.
func (t *timers) first() (timer, bool) {
	for len(*t) > 0 {
		if e := (*t)[0]; e.p.due == e.at {
			return e, true
		}
		heap.Pop(t)
	}
	return timer{}, false
}
