package manifest

import (
	"slices"
	"strings"
	"time"

	"gemel/internal/ha"
)

// With returns a manifest that has programs of Gemel's own as well: they are kept
// running by the same ladder as everything else, and never given up.
func (m *Manifest) With(own []ha.Own) *Manifest {
	if len(own) == 0 {
		return m
	}
	w := *m
	w.Processes = slices.Clone(m.Processes)
	for _, o := range own {
		w.Processes = append(w.Processes, Process{
			Name: o.Name, Command: o.Command, Directory: "/", Umask: 0o022, InheritEnv: true,
			Stop:     Stop{Signal: 15, Grace: 5 * time.Second},
			Severity: ha.Major, Recovery: ha.RecoveryRestart,
			Restarts: Restarts{Limit: 1 << 20, Within: 15 * time.Minute, Then: ha.EscalationNone, Delay: 100 * time.Millisecond, DelayMax: 2 * time.Second},
			RampUp:   5 * time.Second, Output: Output{Mode: "capture", Size: 10 << 20, Keep: 5, Rate: 8 << 20, Merge: true}, AutoStart: true,
		})
	}
	slices.SortFunc(w.Processes, func(a, b Process) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return &w
}
