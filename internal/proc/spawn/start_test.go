package spawn

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/proc"
)

func TestFirst(t *testing.T) {
	for _, park := range []bool{false, true} {
		r, err := Prepare(&proc.Spec{Process: "a", Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}}, Options{Start: 1, Stdin: -1, Stdout: 1, Stderr: 2, Handover: -1})
		if err != nil {
			t.Fatal(err)
		}
		var c Child
		if park {
			p, perr := r.Park()
			if perr != nil {
				t.Fatal(perr)
			}
			c, err = p.Release()
		} else {
			c, err = r.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, -1)
		st, ok, err := ExitStatus(c.PIDFD, true)
		t.Log(c, st, ok, err)
		r.Close()
	}
}

func BenchmarkStart(b *testing.B) {
	b.Run("spawn", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			r, err := Prepare(&proc.Spec{Process: "a", Path: "/bin/true", Args: []string{"true"}}, Options{Start: 1, Stdin: -1, Stdout: -1, Stderr: -1, Handover: -1})
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			c, err := r.Start()
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, -1)
			ExitStatus(c.PIDFD, true)
			unix.Close(c.PIDFD)
			r.Close()
			b.StartTimer()
		}
	})
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			c := exec.Command("/bin/true")
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			c.Wait()
			b.StartTimer()
		}
	})
}
