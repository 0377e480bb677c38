// Package clock gives the instant: CLOCK_BOOTTIME, which goes on while the
// machine is suspended and never steps.
package clock

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
)

// Now returns the present instant.
func Now() ha.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// The call cannot fail on Linux 2.6.39 and later; a machine without it
		// cannot run Gemel at all.
		panic("clock: CLOCK_BOOTTIME: " + err.Error())
	}
	return ha.Instant(ts.Nano())
}

// BootID returns the kernel's random id of this boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(b)), nil
}
