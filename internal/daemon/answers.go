package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// alone answers every failover on a machine of no cluster: there is no standby,
// so it is refused at once and whatever is active stays so. The ladder goes on
// as it is written for a failed failover.
func alone(tell func(ha.Input)) func(ha.Failover) {
	return func(f ha.Failover) {
		tell(ha.FailedOver{
			Process: f.Process, Outcome: ha.Refused, StillActive: true,
			Detail: "no standby: this machine belongs to no cluster",
		})
	}
}

// rebootBound is how long the reboot command may run before the machine is
// said to be still there, and how long a machine whose command ended well may take
// to go down.
const rebootBound = 5 * time.Minute

// rebootCommand is the command of a node whose manifest has none. systemd, where it
// runs, keeps its directory.
func rebootCommand(systemd string) []string {
	if st, err := os.Stat(systemd); err == nil && st.IsDir() {
		return []string{"systemctl", "reboot"}
	}
	return []string{"reboot"}
}

// reboot runs the reboot command. A command that ends well is given the rest of
// the bound, since the machine goes down after it.
func reboot(ctx context.Context, tell func(ha.Input), r ha.Reboot, command []string) {
	if len(command) == 0 {
		command = rebootCommand("/run/systemd/system")
	}
	ended, err := proc.Run(ctx, proc.Command{Args: command, Timeout: rebootBound})
	if err == nil {
		err = failure(strings.Join(command, " "), ended, rebootBound)
	}
	detail := ""
	switch {
	case ctx.Err() != nil:
		return // this monitor ends; the next one orders it again
	case err != nil:
		detail = err.Error()
	default:
		if detail = remains(ctx, command); detail == "" {
			return
		}
	}
	tell(ha.RebootFailed{Process: r.Process, Detail: detail})
}

// remains waits for the reboot that a command which ended well has begun. It says
// what is wrong when the bound is over and the machine still runs; nothing if ctx
// ended before.
func remains(ctx context.Context, command []string) string {
	timer := time.NewTimer(rebootBound)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ""
	case <-timer.C:
		return fmt.Sprintf("%s ended well %s ago and the machine still runs", strings.Join(command, " "), ha.Span(rebootBound))
	}
}
