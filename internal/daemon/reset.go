package daemon

import (
	"fmt"
	"log/slog"
	"os"

	"gemel/internal/ha"
)

const (
	sysrqTrigger = "/proc/sysrq-trigger"
	kernelLog    = "/dev/kmsg"
)

// reset restarts the machine at once, without writing what is in memory to its disks: a
// disk that hangs is the most likely reason why something cannot be killed. It has to be
// asked for: an address that a monitor puts back while it is taken away looks the same.
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
