package lapse

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc/spawn"
)

// Where there are no control groups, a start is its session and what carries its id.
func TestStrikeWithoutControlGroups(t *testing.T) {
	boot, err := clock.BootID()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	table, err := spawn.OpenTable(filepath.Join(dir, "table"), boot)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	tree := &spawn.Tree{}
	name := "gemel-none-" + strconv.Itoa(os.Getpid())
	if err := tree.UnmarshalText([]byte(`{"name":"` + name + `"}`)); err != nil {
		t.Fatal(err)
	}
	start := func(id ha.StartID, number int) *exec.Cmd {
		slot, err := table.Claim(id, "p")
		if err != nil {
			t.Fatal(err)
		}
		slot.Belong(number)
		c := exec.Command("/bin/sh", "-c", "trap '' TERM; setsid sleep 1000 & sleep 1001 & echo >"+filepath.Join(dir, id.String())+"; wait")
		c.Env = []string{"PATH=/usr/bin:/bin", "GEMEL_START=" + id.String(), "GEMEL_TREE=" + name}
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		slot.Settle(c.Process.Pid)
		until(t, "the program", func() bool { _, err := os.Stat(filepath.Join(dir, id.String())); return err == nil })
		return c
	}
	one, two := start(1, 3), start(2, 4)
	if n := len(alive(table, tree, 3)); n != 1 {
		t.Errorf("%d alive", n)
	}
	until(t, "the end", func() bool { return len(strike(table, tree, 3)) == 0 })
	if err := one.Wait(); err == nil {
		t.Error("it ended well")
	}
	if n := len(alive(table, tree, 4)); n != 1 || unix.Kill(two.Process.Pid, 0) != nil {
		t.Error("another group was struck")
	}
	until(t, "the end of the other", func() bool { return len(strike(table, tree, 4)) == 0 })
	_ = two.Wait()
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
