package lapse

import (
	"os"
	"path/filepath"
	"runtime"

	"gemel/internal/proc"
	"gemel/internal/proc/spawn"
)

// guardGroup is the control group of the guard, beside those of the programs.
const guardGroup = "guard"

// settle makes this process hard to lose: a control group of its own, the last to be
// taken when memory is short, before others when a processor is, and what it has touched
// stays in memory. What is not
// allowed is left out: it costs time, not safety.
func (g *guard) settle() {
	if t, ok := treeOf(g.page); ok {
		join(t)
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	if proc.RealTime(true) == nil {
		Roomy()
	}
	proc.Stay()
}

// join enters a group of cgroup v2. In one of v1 for processors there would be no
// real-time scheduling.
func join(t *spawn.Tree) {
	base := t.Place()
	if base == "" {
		return
	}
	dir := filepath.Join(base, guardGroup)
	if err := os.Mkdir(dir, 0o755); err == nil || os.IsExist(err) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
	}
}

// Roomy lets a few threads of the Go runtime run at once however few processors there
// are: else one in no hurry, which waits for a processor, keeps from one in real time
// what a goroutine needs to run.
func Roomy() { runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), 4)) }
