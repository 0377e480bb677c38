package lapse

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"gemel/internal/proc/spawn"
)

// guardGroup is the control group of the guard, beside those of the programs.
const guardGroup = "guard"

// settle makes this process hard to lose: a control group of its own, the last to be
// taken when memory is short, and what it has touched stays in memory. What is not
// allowed is left out: it costs time, not safety.
func (g *guard) settle() {
	if t, ok := treeOf(g.page); ok {
		join(t)
	}
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0)
	_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

func join(t *spawn.Tree) {
	for _, base := range t.Places() {
		dir := filepath.Join(base, guardGroup)
		if err := os.Mkdir(dir, 0o755); err == nil || os.IsExist(err) {
			_ = os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
		}
	}
}
