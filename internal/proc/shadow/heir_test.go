package shadow

import (
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
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
		programs: &programs{tree: &spawn.Tree{}, kids: map[ha.StartID]*child{}, starts: map[ha.Process][]*child{}, late: map[*child]struct{}{},
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

// A shadow that ends alone, because its monitor hangs, leaves no control groups.
func TestHastyStopLeavesNoGroups(t *testing.T) {
	w := newWorld(t)
	c := w.up()
	pid := w.run(w.spec("p", "deaf", "sleep"), 1).Report.PID
	w.run(w.sh("q", "sleep 1000 & sleep 1001"), 2)
	if err := unix.Kill(w.monitorPID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for over := time.Now().Add(testPatience); ; {
		_ = c.Process.Signal(unix.SIGTERM) // one more means at once
		select {
		case <-ended:
		case <-time.After(20 * time.Millisecond):
			if time.Now().After(over) {
				t.Fatal("it does not end")
			}
			continue
		}
		break
	}
	w.gone(pid)
	tree, err := spawn.Open(w.name)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if ids, err := tree.Find(); err != nil || len(ids) != 0 {
		t.Errorf("groups of the starts %v are left (%v)", ids, err)
	}
}
