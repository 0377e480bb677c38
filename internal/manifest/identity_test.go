package manifest

import (
	"testing"
	"time"
)

// The profiles obey the law of the timers, and are those of the design.
func TestProfiles(t *testing.T) {
	const ms = time.Millisecond
	for name, want := range map[string]Timers{
		"normal":  {50 * ms, 200 * ms, 1500 * ms, 150 * ms, 30 * time.Second, 400 * ms, 80 * ms, 0.01},
		"fast":    {20 * ms, 60 * ms, 400 * ms, 40 * ms, 30 * time.Second, 100 * ms, 20 * ms, 0.01},
		"guarded": {200 * ms, 1000 * ms, 5000 * ms, 500 * ms, 30 * time.Second, 1000 * ms, 200 * ms, 0.01},
	} {
		got, ok := Profile(name)
		if !ok || got != want {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
		if got.Spare() < 50*ms || got.Silence < 3*got.Heartbeat {
			t.Errorf("%s breaks the law: spare %v", name, got.Spare())
		}
	}
	if _, ok := Profile("slow"); ok {
		t.Error("there is a profile slow")
	}
	// From the crash to the takeover, but for the store's own time. The design says about 1.75 s, 0.5 s
	// and 6.2 s, which are silence and life; the wait also holds the stop budget (DESIGN 5.3.3).
	for name, most := range map[string]time.Duration{"normal": 1900 * ms, "fast": 550 * ms, "guarded": 6700 * ms} {
		if p, _ := Profile(name); p.Silence+p.Wait() > most {
			t.Errorf("%s: takeover after %v", name, p.Silence+p.Wait())
		}
	}
}

// TestProof: guarded has room for a watchdog of whole seconds, normal has none; and all of
// it fits into the wait by the slowest clock.
func TestProof(t *testing.T) {
	for profile, want := range map[string]map[time.Duration]bool{
		"guarded": {time.Second: true, 2 * time.Second: true, 2250 * time.Millisecond: true, 2251 * time.Millisecond: false, 3 * time.Second: false},
		"normal":  {time.Second: false, 600 * time.Millisecond: true},
		"fast":    {time.Second: false},
	} {
		p, _ := Profile(profile)
		for dog, ok := range want {
			age, got := p.Proof(dog)
			if got != ok {
				t.Errorf("%s, a watchdog of %v: %v", profile, dog, got)
			}
			if late := float64(age+2*dog) / (1 - p.Drift); got && late > float64(p.Wait())/(1+p.Drift)+1 {
				t.Errorf("%s, a watchdog of %v: it resets %v after the proof, and the wait is %v", profile, dog, time.Duration(late), p.Wait())
			}
		}
	}
}
