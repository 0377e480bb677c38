package daemon

import (
	"fmt"
	"log/slog"
	"os"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	sysrqTrigger = "/proc/sysrq-trigger"
	kernelLog    = "/dev/kmsg"
)

// resets reports whether this machine is reset when something of a group is there at the
// end of its authority and cannot be killed. By itself it is only where a service manager
// owns the machine: nobody wants that of a daemon tried out in a terminal or a container.
func resets(how string, served bool) bool {
	return how == manifest.ResetSysrq || how == manifest.ResetAuto && served
}

// reset restarts the machine at once, without writing what is in memory to its disks: a
// disk that hangs is the most likely reason why something cannot be killed.
func reset(trigger, log string, to *slog.Logger) func(ha.Group, string) {
	return func(g ha.Group, what string) {
		text := fmt.Sprintf("gemel: the authority for group %s is over and this is still there: %s. The machine is reset", g, what)
		// Before anything that could block: the last line of a console, or of pstore.
		_ = os.WriteFile(log, []byte("<0>"+text+"\n"), 0)
		if err := os.WriteFile(trigger, []byte("b"), 0); err != nil {
			to.Error("the machine could not be reset", "group", g, "error", err)
		}
	}
}
