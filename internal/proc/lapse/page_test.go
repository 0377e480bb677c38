package lapse

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

func TestPage(t *testing.T) {
	dir := t.TempDir()
	if p, err := openPage(dir, false); p != nil || err != nil {
		t.Fatalf("a page that is not there: %v, %v", p, err)
	}
	w, err := openPage(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	r, err := openPage(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	if err := w.take(3); err != nil {
		t.Fatal(err)
	}
	if r.count() != 4 {
		t.Errorf("%d slots", r.count())
	}
	want := row{Boot: "b", State: held, Right: proc.Right{Group: "g", Fence: ha.Fence{Era: 1, Counter: 2}, Kill: 5, Withdraw: []string{"a"}}}
	if err := w.putRow(3, want); err != nil {
		t.Fatal(err)
	}
	got, ok, err := r.row(3)
	if !ok || err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%+v, %v, %v", got, ok, err)
	}
	if _, ok, err := r.row(2); ok || err != nil {
		t.Errorf("a free slot: %v, %v", ok, err)
	}
	// Any byte that is not what was written is noticed.
	n := 8 + len(mustBody(t, r, 3))
	for i := range n {
		w.slot(3)[i] ^= 0x10
		if _, _, err := r.row(3); !errors.Is(err, errTorn) {
			t.Errorf("byte %d of %d: %v", i, n, err)
		}
		w.slot(3)[i] ^= 0x10
	}
	w.clear(3)
	if _, ok, err := r.row(3); ok || err != nil {
		t.Errorf("a slot that was given back: %v, %v", ok, err)
	}
	if err := w.put(2, make([]byte, bodyMost+1)); err == nil {
		t.Error("a body that is too long was taken")
	}
}

func mustBody(t *testing.T, p *page, i int) []byte {
	t.Helper()
	b, err := p.body(i)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// keeper makes a Keeper without a thread: nothing of it runs but by the test.
func keeper(t *testing.T, dir string) *Keeper {
	t.Helper()
	boot, err := clock.BootID()
	if err != nil {
		t.Fatal(err)
	}
	table, err := spawn.OpenTable(filepath.Join(dir, "table"), boot)
	if err != nil {
		t.Fatal(err)
	}
	k, err := Open(Config{RunDir: dir, Log: slog.New(slog.DiscardHandler)}, Hooks{Table: table, News: func() {}})
	if err != nil {
		t.Fatal(err)
	}
	k.tree = &spawn.Tree{}
	t.Cleanup(func() {
		k.Close()
		table.Close()
	})
	return k
}

func rightOf(g string, life time.Duration) proc.Right {
	now := clock.Now()
	return proc.Right{Group: ha.Group(g), Fence: ha.Fence{Era: 1, Counter: 1}, Incarnation: "one", Life: life, Until: now.Add(life), Kill: now.Add(life / 2)}
}

// There is room for 4,095 groups at a time, and for another one when one is over.
func TestManyGroups(t *testing.T) {
	dir := t.TempDir()
	k := keeper(t, dir)
	var all []proc.Right
	for i := range slots {
		all = append(all, rightOf(fmt.Sprint("g", i), time.Hour))
	}
	given := k.Give(all)
	if len(given.Refused) != 1 || !strings.Contains(given.Refused[0].Err.Error(), "no room for one more") || len(given.Changed) != slots-1 {
		t.Fatalf("%d refused, %d changed", len(given.Refused), len(given.Changed))
	}
	// One after the other in the order of the set, without holes.
	if k.page.count() != slots {
		t.Errorf("%d slots are used", k.page.count())
	}
	// One is over, and nothing of it is there.
	all[7].Kill = clock.Now()
	all[7].Until = all[7].Kill + 1
	k.Give(all)
	k.mu.Lock()
	k.due(clock.Now())
	k.strikes()
	k.mu.Unlock()
	if _, err := k.Pass("g7"); !errors.Is(err, ErrNone) {
		t.Errorf("a group that is over: %v", err)
	}
	rest := append(slices.Clone(all[:7]), all[8:]...)
	if given := k.Give(rest); len(given.Refused) != 0 {
		t.Errorf("%v", given.Refused)
	}
	if _, err := k.Pass("g4095"); err != nil {
		t.Errorf("%v", err)
	}
	if k.Owner(8) != "g4095" {
		t.Errorf("slot 8 is of %q", k.Owner(8))
	}
}

// A Pass is good for the fence that it was given with.
func TestPassIsOfOneFence(t *testing.T) {
	k := keeper(t, t.TempDir())
	r := rightOf("g", time.Hour)
	k.Give([]proc.Right{r})
	old, err := k.Pass("g")
	if err != nil {
		t.Fatal(err)
	}
	end, err := k.Begin("g", old, false)
	if err != nil {
		t.Fatal(err)
	}
	end()
	r.Fence.Counter++
	if given := k.Give([]proc.Right{r}); !slices.Equal(given.Changed, []ha.Group{"g"}) {
		t.Errorf("changed: %v", given.Changed)
	}
	if _, err := k.Begin("g", old, false); !errors.Is(err, ErrNone) {
		t.Errorf("a start with the fence before: %v", err)
	}
	// Not named any more: what stops may begin, what starts may not.
	p, _ := k.Pass("g")
	k.Give(nil)
	if _, err := k.Begin("g", p, false); !errors.Is(err, ErrNone) {
		t.Errorf("a start without a right: %v", err)
	}
	if _, err := k.Begin("g", Pass{}, true); err != nil {
		t.Errorf("a stop command before the deadline: %v", err)
	}
	// A start under way is not seen gone.
	k.mu.Lock()
	g := k.groups["g"]
	g.right.Kill = clock.Now()
	k.due(clock.Now())
	k.strikes()
	waits := g.kill != nil
	k.mu.Unlock()
	if !waits {
		t.Error("a group was seen gone while a start of it was under way")
	}
}
