package ha

import (
	"strings"
	"time"
)

// Span prints a duration for people: three digits that matter below a minute,
// seconds above, and no units that are zero at the end, as in "850us", "1.99s",
// "15m" and "6h". It is ASCII, and what a manifest takes: nothing else prints
// durations in the texts of events, reasons and errors.
func Span(d time.Duration) string {
	if d < 0 {
		return "-" + Span(-d)
	}
	step := time.Second
	for _, r := range [...]struct{ below, step time.Duration }{
		{time.Microsecond, time.Nanosecond}, {time.Millisecond, time.Microsecond}, {time.Second, time.Millisecond},
		{10 * time.Second, 10 * time.Millisecond}, {time.Minute, 100 * time.Millisecond},
	} {
		if d < r.below {
			step = r.step
			break
		}
	}
	s := strings.Replace(d.Round(step).String(), "µ", "u", 1)
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
