package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"gemel/internal/clock"
)

// tally is what the upgrades met, and what was wrong with them.
type tally struct {
	whole, failed int // ended as the wanted version; as the one before
	violations    []string
}

func (t tally) String() string {
	return fmt.Sprintf("upgrades and downgrades: %d ended as the wanted version, %d as the one before", t.whole, t.failed)
}

// window is the time after the beginning of gemel upgrade in which a kill falls:
// a little more than an upgrade takes.
const window = 400 * time.Millisecond

// upgrade goes to the other build and back. Three of four are hit by a kill.
func (c *campaign) upgrade(ctx context.Context) error {
	for _, to := range []string{c.other, c.gemel} {
		which, after := c.rand.IntN(4), time.Duration(c.rand.Int64N(int64(window)))
		if err := c.change(ctx, to, which, after); err != nil {
			return fmt.Errorf("upgrading to %s, kill %d after %v: %w", filepath.Base(to), which, after, err)
		}
	}
	return nil
}

// change is one upgrade. The victim is as in victims; 3: nothing is killed.
func (c *campaign) change(ctx context.Context, to string, which int, after time.Duration) error {
	shadow, monitor, err := c.pair.whole(ctx)
	if err != nil {
		return err
	}
	if !c.fixed {
		c.pair.mu.Lock()
		c.pair.exe = to
		c.pair.mu.Unlock()
	}
	before, was := c.oracle.ended(), image(monitor)
	cmd := exec.CommandContext(ctx, to, "upgrade", "--run-dir", c.rund, to)
	said := make(chan error, 1)
	began := time.Now()
	var out []byte
	go func() {
		var err error
		out, err = cmd.CombinedOutput()
		said <- err
	}()
	late := false // the command had ended before the kill
	if which < 3 {
		hit := time.NewTimer(after)
		defer hit.Stop()
		select {
		case err = <-said:
			late = true
			<-hit.C
		case <-hit.C:
		}
		c.hit(shadow, monitor, which)
	}
	if !late {
		err = <-said
	}
	fault := func(format string, args ...any) {
		c.tally.violations = append(c.tally.violations, fmt.Sprintf("upgrade to %s, %s after %v (it took %v, err %v, said %q): ",
			filepath.Base(to), append(victims[:], "no kill")[which], after, time.Since(began), err, out)+fmt.Sprintf(format, args...))
	}
	is, s, m, werr := c.converge(ctx)
	if werr != nil {
		return fmt.Errorf("%w; the tool said %q (%v)", werr, out, err)
	}
	switch {
	case which == 3 && (err != nil || is != to || s != shadow || m != monitor):
		fault("nothing was killed; now it runs %s, shadow %d is %d, monitor %d is %d", is, shadow, s, monitor, m)
	case which < 2 && err == nil && is != to:
		fault("the tool called it done, but %s runs", is)
	case which < 2 && err != nil && is == to && was != to && !late:
		fault("the tool called it failed, but %s runs", is)
	case err != nil && len(out) == 0:
		fault("the tool failed without a word")
	}
	if which < 3 {
		c.hits[which]++
		if n := c.oracle.ended() - before; n > 0 {
			c.during[which]++
			c.ends[which] += n
		}
	}
	if is == to {
		c.tally.whole++
	} else {
		c.tally.failed++
	}
	return nil
}

// hit kills in the middle of an upgrade. The exec of a monitor lets go of the
// programs for a moment: if the shadow dies then, neither half has seen what ends.
func (c *campaign) hit(shadow, monitor, which int) {
	switch which {
	case 0:
		c.pair.kill(monitor)
	case 1:
		c.pair.mu.Lock()
		c.pair.dead = append(c.pair.dead, span{from: clock.Now()})
		c.pair.mu.Unlock()
		c.pair.kill(shadow)
	case 2:
		c.pair.killBoth(shadow, monitor, time.Duration(c.rand.Int64N(int64(3*time.Millisecond))))
	}
}

// converge waits until both halves run the same build, and have for a while.
func (c *campaign) converge(ctx context.Context) (exe string, shadow, monitor int, err error) {
	same := 0
	last := ""
	for range 1500 {
		s, m, err := c.pair.whole(ctx)
		if err != nil {
			return "", 0, 0, err
		}
		a, b := image(s), image(m)
		last = fmt.Sprintf("shadow %d runs %s, monitor %d runs %s", s, a, m, b)
		if a == b && a != "" && s == shadow && m == monitor && a == exe {
			if same++; same >= 10 {
				return a, s, m, nil
			}
		} else {
			same = 0
		}
		exe, shadow, monitor = a, s, m
		time.Sleep(20 * time.Millisecond)
	}
	return "", 0, 0, errors.New("the halves do not agree on a build within 30 s: " + last)
}

// image is the binary that a process runs.
func image(pid int) string {
	is, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return is
}
