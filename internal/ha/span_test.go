package ha

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 17: "17ns", 850 * time.Microsecond: "850us", 850400: "850us", 12345 * time.Microsecond: "12ms", 300 * time.Millisecond: "300ms",
		999999 * time.Microsecond: "1s", 1986695557: "1.99s", 1500 * time.Millisecond: "1.5s", 12345678901: "12.3s", 59960 * time.Millisecond: "1m",
		time.Minute: "1m", 90 * time.Second: "1m30s", 15 * time.Minute: "15m", 6 * time.Hour: "6h", time.Hour + 30*time.Second: "1h0m30s",
		100 * time.Minute: "1h40m", 49*time.Hour + 3*time.Minute + 700*time.Millisecond: "49h3m1s", -2500 * time.Millisecond: "-2.5s",
	} {
		if got := Span(d); got != want {
			t.Errorf("%d ns: %q, want %q", d, got, want)
		}
	}
}
