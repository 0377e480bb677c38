package ha

import "time"

// An Instant is a number of nanoseconds of CLOCK_BOOTTIME: the time since the
// machine booted, which runs on while the machine is suspended and never steps.
// Decisions are made on Instants alone, so that a step of the wall clock can
// never cause a restart or a failover. An Instant is only comparable within one
// boot; one from before the boot, carried over by its age, is negative.
type Instant int64

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns the time from u to t.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// String prints seconds since boot with milliseconds, as "12.345s".
func (t Instant) String() string {
	return time.Duration(t).Round(time.Millisecond).String()
}
