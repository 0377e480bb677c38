package shadow

import (
	"log/slog"
	"testing"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// An exec in the round of a death: the successor runs already, and the death is not
// told yet. It is told before the exec, and what is known of it survives that.
func TestHeirOverAnExec(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	l, err := newLink(p)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	s := &shadow{c: Config{Log: slog.New(slog.DiscardHandler)}, poll: p, link: l, kept: map[string][]int{},
		lock: &proc.Lock{FD: -1}, // there is nothing to keep open: the exec is not come to
		programs: &programs{kids: map[ha.StartID]*child{}, starts: map[ha.Process][]*child{}, late: map[*child]struct{}{},
			helpers: map[int]struct{}{}, deferred: map[ha.StartID]*proc.Order{}}}
	s.programs.of, s.finder.of, s.mon = s, s, &monitor{of: s, pidfd: -1}
	s.signals = listen(t.Context(), p, s.signal)
	defer s.signals.close()
	dead := &child{of: s, process: "p", start: 1, pidfd: -1, exit: &ha.ExitStatus{}}
	heir := &child{of: s, process: "p", start: 2, pidfd: -1}
	s.keep(dead)
	s.keep(heir)
	dead.heir = heir
	s.untold = append(s.untold, func() { dead.tellExit(heir) })
	if err := become(s, "/bin/true"); err == nil {
		t.Fatal("no error")
	}
	if !dead.told || len(s.untold) != 0 {
		t.Error("the death was not told before the exec")
	}
	st := capture(s)
	for i := range st.Kids {
		if st.Kids[i].Start == 1 && st.Kids[i].Heir != 2 {
			t.Errorf("the state does not say who followed: %+v", st.Kids[i])
		}
	}
}
