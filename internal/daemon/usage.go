package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"gemel/internal/clock"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/proc/spawn"
	"gemel/internal/status"
)

// usage measures what programs use, when somebody looks and at most once a
// second: nothing is read for a machine that nobody watches.
type usage struct {
	tree *spawn.Tree

	mu   sync.Mutex
	at   ha.Instant
	last map[ha.Process]sample
}

// sample is one measurement of one start.
type sample struct {
	start ha.StartID
	at    ha.Instant
	use   status.Usage
}

// ticks is the unit of processor time in /proc; it is 100 on every Linux that Go
// runs on.
const ticks = 100

// measure returns the present use of every running process, or nil if the last
// measurement is still fresh.
func (u *usage) measure(s *status.Snapshot) map[ha.Process]status.Usage {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := clock.Now()
	if u.last != nil && now.Sub(u.at) < time.Second {
		return nil
	}
	u.at = now
	next := make(map[ha.Process]sample, len(s.Processes))
	out := make(map[ha.Process]status.Usage, len(s.Processes))
	for i := range s.Processes {
		p := &s.Processes[i]
		if p.PID == 0 {
			continue
		}
		use := u.one(p)
		old, ok := u.last[p.Name]
		if ok && old.start == p.Start && now > old.at {
			use.Percent = 100 * float64(use.CPU-old.use.CPU) / float64(now.Sub(old.at))
		}
		next[p.Name] = sample{p.Start, now, use}
		out[p.Name] = use
	}
	u.last = next
	return out
}

// one asks the control group, and where the machine does not account there, the
// processes themselves.
func (u *usage) one(p *status.ProcessStatus) status.Usage {
	pids := []int{p.PID}
	var use status.Usage
	if cg, ok := u.tree.At(p.Start); ok {
		use.CPU, use.Memory, use.Tasks = cg.Usage()
		if all, err := cg.Procs(); err == nil && len(all) > 0 {
			pids = all
		}
		cg.Close()
	}
	if use.CPU > 0 && use.Memory > 0 && use.Tasks > 0 {
		return use
	}
	var sum status.Usage
	for _, pid := range pids {
		one := ofProcess(pid)
		sum.CPU += one.CPU
		sum.Memory += one.Memory
		sum.Tasks += one.Tasks
	}
	if use.CPU == 0 {
		use.CPU = sum.CPU
	}
	if use.Memory == 0 {
		use.Memory = sum.Memory
	}
	if use.Tasks == 0 {
		use.Tasks = sum.Tasks
	}
	return use
}

// ofProcess reads /proc/PID/stat: fields 14 and 15 are the processor time, 20 the
// threads, 24 the pages in memory, counted after the name in parentheses.
func ofProcess(pid int) (use status.Usage) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return use // gone
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 22 {
		return use
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(string(f[i-3]), 10, 64)
		return n
	}
	use.CPU = time.Duration(number(14)+number(15)) * time.Second / ticks
	use.Tasks = int(number(20))
	use.Memory = number(24) * int64(os.Getpagesize())
	return use
}

// look returns what the API calls when somebody asks for the picture.
func (h *hands) look(board *status.Board) func(context.Context) {
	u := &usage{tree: h.tree}
	return func(ctx context.Context) {
		s, _ := board.Last()
		if s == nil {
			return
		}
		// An end of ctx is the caller's; a monitor that ends shows what it showed last.
		_ = h.engine.Look(ctx, engine.Sight{Usage: u.measure(s), Differs: h.file.differs(s.Node.Digest)})
	}
}
