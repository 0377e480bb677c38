package gate

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"gemel/internal/clock"
	"gemel/internal/echo"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// TestMain plays the program in the control group: it says where it listens, and
// answers.
func TestMain(m *testing.M) {
	if os.Getenv("GATE_TEST_ECHO") != "" {
		fmt.Println(echo.Serve(os.Getenv("GATE_TEST_ECHO"), func(at string) error { _, err := fmt.Println(at); return err }))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// begin runs that program in a control group.
func begin(t *testing.T, dir, at string) net.Conn {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := exec.Command(self)
	c.Env = append(os.Environ(), "GATE_TEST_ECHO="+at)
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", line[:len(line)-1])
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestGate(t *testing.T) {
	need.Root(t)
	root := need.CgroupV2(t)
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			dir, err := os.MkdirTemp(root, "gate-test-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // after the program was reaped
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			})
			c := begin(t, dir, at)
			if !echo.Asks(c, time.Minute) {
				t.Fatal("no answer without a gate")
			}
			g, err := New()
			need.Done(t, err, "loading a program for the packets of a control group")
			defer g.Close()
			held, err := g.Hold(dir)
			if err != nil {
				t.Fatal(err)
			}
			if echo.Asks(c, 50*time.Millisecond) {
				t.Error("an answer before there was a deadline")
			}
			// From one instant to the other, with nobody doing anything.
			end := clock.Now().Add(200 * time.Millisecond)
			if err := g.Until(end); err != nil {
				t.Fatal(err)
			}
			if !echo.Asks(c, time.Minute) && clock.Now() < end {
				t.Error("no answer before the deadline")
			}
			last := ha.Instant(0)
			for clock.Now() < end.Add(100*time.Millisecond) {
				if sent := clock.Now(); echo.Asks(c, 20*time.Millisecond) {
					last = sent
				}
			}
			if last >= end {
				t.Errorf("an answer to a question of %s after the deadline", last.Sub(end))
			}
			if err := g.Until(clock.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if !echo.Asks(c, time.Minute) {
				t.Error("no answer after the deadline was put off")
			}
			if err := g.Until(0); err != nil {
				t.Fatal(err)
			}
			if echo.Asks(c, 50*time.Millisecond) {
				t.Error("an answer after the end")
			}
			if err := held.Close(); err != nil {
				t.Fatal(err)
			}
			if !echo.Asks(c, time.Minute) {
				t.Error("no answer after the gate was taken away")
			}
		})
	}
}

func TestNoControlGroup(t *testing.T) {
	need.Root(t)
	g, err := New()
	need.Done(t, err, "loading a program for the packets of a control group")
	defer g.Close()
	if _, err := g.Hold(""); err == nil {
		t.Error("held before nothing")
	}
	if _, err := g.Hold(t.TempDir()); err == nil {
		t.Error("held before what is no control group")
	}
}
