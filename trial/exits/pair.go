package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// pair plays the service manager for both halves of Gemel.
type pair struct {
	exe, data, run, file, log string
	managed                   bool

	mu       sync.Mutex
	cmd      *exec.Cmd // the shadow that the service manager started last
	stopping bool
	done     chan struct{}
	dead     []span // when neither half lived
}

// span is a time in which neither half of Gemel lived. It begins just before the
// first of two kills.
type span struct{ from, to ha.Instant }

func (p *pair) args() []string {
	return []string{"run", "--data-dir", p.data, "--run-dir", p.run, p.file}
}

// restartAfter is systemd's own RestartSec.
const restartAfter = 100 * time.Millisecond

// begin starts Gemel and keeps starting it, as Restart=always does, until end.
func (p *pair) begin(ctx context.Context) error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		defer out.Close()
		for {
			p.mu.Lock()
			if p.stopping {
				p.mu.Unlock()
				return
			}
			cmd := exec.Command(p.exe, p.args()...)
			cmd.Stdout, cmd.Stderr = out, out
			if p.managed {
				cmd.Env = append(os.Environ(), "INVOCATION_ID=0123456789abcdef0123456789abcdef")
			}
			err := cmd.Start()
			p.cmd = cmd
			p.mu.Unlock()
			if err != nil {
				fmt.Fprintln(out, "starting gemel:", err)
				return
			}
			_ = cmd.Wait()
			time.Sleep(restartAfter)
		}
	}()
	_, _, err = p.whole(ctx)
	return err
}

// end asks for the orderly end and waits for it. If that fails, both halves are
// killed: nothing of a campaign goes on after it.
func (p *pair) end() (err error) {
	p.mu.Lock()
	p.stopping = true
	p.mu.Unlock()
	defer func() {
		for s, m := p.halves(); err != nil && s+m != 0; s, m = p.halves() {
			for _, pid := range []int{s, m} {
				if pid != 0 {
					p.kill(pid)
				}
			}
		}
		<-p.done
	}()
	shadow, _, err := p.ask()
	if err != nil || shadow == 0 {
		return fmt.Errorf("finding the shadow to end: pid %d, %w", shadow, err)
	}
	if err := unix.Kill(shadow, unix.SIGTERM); err != nil {
		return fmt.Errorf("ending gemel: %w", err)
	}
	for range 600 {
		if s, m := p.halves(); s == 0 && m == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("gemel did not end within 30 s of SIGTERM")
}

// halves finds the pids of the two halves; zero for one that is not there.
func (p *pair) halves() (shadow, monitor int) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || !alive(pid) {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if err != nil || !bytes.Contains(b, []byte("\x00"+p.run+"\x00")) {
			continue
		}
		args := bytes.Split(b, []byte{0})
		if len(args) < 2 {
			continue
		}
		switch string(args[1]) {
		case "run":
			shadow = pid
		case "monitor":
			monitor = pid
		}
	}
	return shadow, monitor
}

// whole waits until both halves are there and the API tells the pids of both.
func (p *pair) whole(ctx context.Context) (shadow, monitor int, err error) {
	var last string
	for range 1500 {
		if ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		s, m, err := p.ask()
		if err == nil && s != 0 && m != 0 && alive(s) && alive(m) {
			p.mu.Lock()
			if n := len(p.dead); n > 0 && p.dead[n-1].to == 0 {
				p.dead[n-1].to = clock.Now()
			}
			p.mu.Unlock()
			return s, m, nil
		}
		if err != nil {
			last = err.Error()
		} else {
			last = fmt.Sprintf("shadow %d, monitor %d", s, m)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, 0, fmt.Errorf("no complete pair within 30 s; last: %s", last)
}

// ask asks the API which pids the halves have.
func (p *pair) ask() (shadow, monitor int, err error) {
	cmd := exec.Command(p.exe, "status", "--json", "--run-dir", p.run)
	cmd.WaitDelay = 10 * time.Second
	b, err := cmd.Output()
	if err != nil {
		return 0, 0, err
	}
	var st struct {
		Node struct {
			Shadow  int `json:"shadow"`
			Monitor int `json:"monitor"`
		} `json:"node"`
	}
	if err := json.Unmarshal(b, &st); err != nil {
		return 0, 0, fmt.Errorf("reading the status: %w", err)
	}
	return st.Node.Shadow, st.Node.Monitor, nil
}

func (p *pair) kill(pid int) { _ = unix.Kill(pid, unix.SIGKILL) }

func (p *pair) killBoth(first, second int, gap time.Duration) {
	p.mu.Lock()
	p.dead = append(p.dead, span{from: clock.Now()})
	p.mu.Unlock()
	p.kill(first)
	time.Sleep(gap)
	p.kill(second)
}
