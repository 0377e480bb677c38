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
// said to be still there.
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
	line, detail := strings.Join(command, " "), ""
	switch {
	case ctx.Err() != nil:
		return // this monitor ends; the next one orders it again
	case err != nil:
		detail = err.Error()
	case ended.Late:
		detail = fmt.Sprintf("%s did not end within %v", line, rebootBound)
	case ended.Code != 0:
		detail = fmt.Sprintf("%s ended with exit %d: %s", line, ended.Code, strings.TrimSpace(ended.Output))
	default:
		timer := time.NewTimer(rebootBound)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			detail = "the reboot was ordered and the machine still runs"
		}
	}
	tell(ha.RebootFailed{Process: r.Process, Detail: detail})
}
