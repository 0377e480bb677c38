package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMachineAlarm(t *testing.T) {
	c := Machine()
	a, err := c.Alarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Stop()
	start := c.Now()
	a.Set(start.Add(20 * time.Millisecond))
	<-a.C()
	if got := c.Now().Sub(start); got < 20*time.Millisecond {
		t.Errorf("fired after %v, before its instant", got)
	}
	a.Set(-5) // long past
	<-a.C()
}

func TestBubbleAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Bubble()
		a, err := c.Alarm()
		if err != nil {
			t.Fatal(err)
		}
		defer a.Stop()
		a.Set(c.Now().Add(time.Hour))
		a.Set(c.Now().Add(time.Minute))
		<-a.C()
		if got, want := c.Now(), c.Now(); got != want || time.Duration(got) != time.Minute {
			t.Errorf("fired at %v, want 1m", got)
		}
	})
}

func TestBootID(t *testing.T) {
	id, err := BootID()
	if err != nil || len(id) != 36 {
		t.Errorf("BootID() = %q, %v", id, err)
	}
}
