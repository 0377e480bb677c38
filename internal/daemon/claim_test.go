package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gemel/internal/places"
	"gemel/internal/proc"
)

// Two data directories never share a run directory while anything of the first
// one lives.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	at := func(data string) places.Places {
		p := places.Places{Data: filepath.Join(dir, data), Run: filepath.Join(dir, "run")}
		if err := p.Make(); err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := at("one"), at("two")
	var first []*os.File
	for range 2 {
		own, err := claim(one, 0)
		if err != nil {
			t.Fatal(err)
		}
		first = append(first, own)
	}
	refused := func(why string) {
		t.Helper()
		if _, err := claim(two, 0); err == nil || !strings.Contains(err.Error(), "--run-dir") || !strings.Contains(err.Error(), one.Data) {
			t.Errorf("%s: a run directory in use was claimed: %v", why, err)
		}
	}
	refused("its shadow has no lock of its own yet")
	lock, err := proc.TakeLock(filepath.Join(one.Data, proc.MonitorLock), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(first[0].Close(), first[1].Close()); err != nil {
		t.Fatal(err)
	}
	refused("its monitor lives")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	own, err := claim(two, 0)
	if err != nil {
		t.Fatalf("a deserted run directory: %v", err)
	}
	defer own.Close()
	if b, err := os.ReadFile(filepath.Join(two.Run, ownerFile)); err != nil || string(b) != two.Data+"\n" {
		t.Errorf("owner is %q, %v", b, err)
	}
}

// Of many starts at once with two data directories, those of one have the run
// directory and the others are refused.
func TestClaimAtOnce(t *testing.T) {
	for range 20 {
		dir := t.TempDir()
		var all sync.WaitGroup
		owners, refused := make(chan string, 20), make(chan string, 20)
		var kept sync.Map
		for i := range 20 {
			p := places.Places{Data: filepath.Join(dir, []string{"one", "another"}[i%2]), Run: filepath.Join(dir, "run")}
			if err := p.Make(); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				own, err := claim(p, 100*time.Millisecond)
				if err != nil {
					refused <- p.Data
					return
				}
				kept.Store(i, own)
				owners <- p.Data
			})
		}
		all.Wait()
		kept.Range(func(_, f any) bool { return f.(*os.File).Close() == nil })
		close(owners)
		close(refused)
		have := map[string]int{}
		for o := range owners {
			have[o]++
		}
		if len(have) != 1 || len(refused) != 10 {
			t.Fatalf("the run directory is had by %v, %d were refused", have, len(refused))
		}
	}
}
