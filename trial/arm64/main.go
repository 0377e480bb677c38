// Trial-arm64 is the first process of an emulated machine that has gemel and nothing else
// (see run.sh). It runs gemel as a user would, says what it saw, and turns the machine off.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	gemel    = "/usr/bin/gemel"
	patience = 100 * time.Second // the machine is some twenty times slower than a real one
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "nap" {
		time.Sleep(time.Hour) // the program that is run
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "trial-arm64 is the first process of an emulated machine: make trial-arm64")
		os.Exit(1)
	}
	if err := all(); err != nil {
		say("%v", err)
	} else {
		say("ok, %v since the kernel began", up().Round(time.Second))
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // of the emulated machine: this is its first process
}

func say(format string, args ...any) { fmt.Printf("arm64: "+format+"\r\n", args...) }

func up() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t)
	return time.Duration(t.Nano())
}

func all() error {
	if err := mounts(); err != nil {
		return err
	}
	version, err := tool("version")
	if err != nil {
		return err
	}
	say("%s", strings.TrimSpace(version))
	if err := alone(); err != nil {
		return fmt.Errorf("one machine: %w", err)
	}
	if err := together(); err != nil {
		return fmt.Errorf("a cluster: %w", err)
	}
	return nil
}

func mounts() error {
	var errs []error
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"tmpfs", "/var"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if err := unix.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			errs = append(errs, fmt.Errorf("mounting %s: %w", m[1], err))
		}
	}
	for _, dir := range []string{"/var/lib", "/etc/gemel"} {
		errs = append(errs, os.MkdirAll(dir, 0o755))
	}
	return errors.Join(append(errs, os.Setenv("PATH", "/usr/bin"), os.Setenv("HOME", "/"), loopback())...)
}

// loopback brings the interface of the machine to itself up.
func loopback() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("a socket: %w", err)
	}
	defer func() { _ = unix.Close(s) }()
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

func tool(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	c := exec.CommandContext(ctx, gemel, args...)
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("gemel %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()+errs.String()))
	}
	return out.String(), nil
}

// daemon runs gemel until f returns, and shuts it down.
func daemon(manifest string, f func() error) error {
	const file = "/etc/gemel/gemel.yaml"
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		return err
	}
	c := exec.Command(gemel, "run", file)
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		return err
	}
	err := f()
	if err == nil {
		_, err = tool("shutdown")
	} else {
		_ = c.Process.Kill() // what it runs ends with the machine
	}
	if end := c.Wait(); err == nil && end != nil {
		err = fmt.Errorf("it ended: %w", end)
	}
	if err != nil {
		return fmt.Errorf("%w\nits log: %s", err, log.String())
	}
	return nil
}

// until waits until f returns without an error.
func until(what string, f func() error) error {
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			status, _ := tool("status")
			return fmt.Errorf("%s: %w\n%s", what, err, status)
		}
		time.Sleep(time.Second)
	}
}

// napPID is that of the program, if it runs.
func napPID() (int, error) {
	out, err := tool("status", "--json")
	if err != nil {
		return 0, err
	}
	var s struct {
		Processes []struct {
			Name, State string
			PID         int `json:"pid"`
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return 0, fmt.Errorf("%w: %s", err, out)
	}
	for _, p := range s.Processes {
		if p.Name == "nap" && p.PID > 0 && (p.State == "running" || p.State == "ramp-up") {
			return p.PID, nil
		}
	}
	return 0, fmt.Errorf("it does not run: %s", out)
}

const napping = "processes:\n  nap: {command: [/init, nap], restarts: {delay: 0s}}\n"

// alone runs a program on a machine of no cluster, and kills it.
func alone() error {
	return daemon(napping, func() error {
		first := 0
		err := until("the program", func() (err error) { first, err = napPID(); return err })
		if err != nil {
			return err
		}
		say("a program runs, pid %d", first)
		if err := unix.Kill(first, unix.SIGKILL); err != nil {
			return err
		}
		second := first
		err = until("its restart", func() (err error) {
			if second, err = napPID(); err == nil && second == first {
				err = errors.New("it was not restarted yet")
			}
			return err
		})
		if err == nil {
			say("it was killed and restarted, pid %d", second)
		}
		return err
	})
}

// together makes a cluster of this machine: keys, certificates, the store's member unpacked.
// It is not run: real-time daemons leave an emulated machine no time for anything else.
func together() error {
	out, err := tool("init", "--name", "a", "--cluster-name", "arm", "--address", "here=127.0.0.1", "--one-network", "--profile", "guarded")
	if err == nil && !strings.Contains(out, "gemel join") {
		err = fmt.Errorf("gemel init named no command to join: %s", out)
	}
	if err == nil {
		say("gemel init has made a cluster of this machine")
	}
	return err
}
