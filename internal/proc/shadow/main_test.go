package shadow

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/echo"
	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

// The test binary plays everything: with this variable set it is a shadow, a
// monitor or a program.
const roleEnv = "SHADOW_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if os.Getenv(proc.PairEnv) != "" {
		role = "monitor" // started by a shadow
	}
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		role = "guard"
	}
	switch role {
	case "guard":
		os.Exit(playGuard(os.Args[2]))
	case "":
		if os.Getenv(innerEnv) == "" {
			os.Exit(reaper())
		}
		os.Exit(m.Run())
	case "shadow":
		os.Exit(playShadow())
	case "monitor":
		os.Exit(playMonitor())
	case "program":
		os.Exit(playProgram())
	default:
		fmt.Fprintln(os.Stderr, "no such role:", role)
		os.Exit(99)
	}
}

func testLog(who string) *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("who", who, "pid", os.Getpid())
}

func version() string {
	// The name of the binary is its version, so that two builds are two copies.
	if _, v, ok := strings.Cut(filepath.Base(os.Args[0]), "-v"); ok {
		return v
	}
	return "1"
}

// playShadow is gemel run.
func playShadow() int {
	dir := os.Getenv("SHADOW_TEST_DIR")
	exe := os.Args[0]
	silence, _ := time.ParseDuration(os.Getenv("SHADOW_TEST_SILENCE"))
	stuck, _ := time.ParseDuration(os.Getenv("SHADOW_TEST_STUCK"))
	var notify func(string)
	if path := os.Getenv("SHADOW_TEST_NOTIFY"); path != "" {
		notify = func(state string) {
			c, err := net.Dial("unixgram", path)
			if err == nil {
				fmt.Fprint(c, state)
				c.Close()
			}
		}
	}
	command := []string{exe}
	if os.Getenv("SHADOW_TEST_NO_MONITOR") != "" {
		command = []string{filepath.Join(dir, "missing")}
	}
	var point func(string)
	if os.Getenv("SHADOW_TEST_POINTS") != "" {
		point = strike(dir)
	}
	var watch *Watch
	if text := os.Getenv("SHADOW_TEST_WATCHDOG"); text != "" {
		watch = watchOf(dir, text)
	}
	code, err := Run(context.Background(), Config{
		DataDir: dir, RunDir: dir, Name: os.Getenv("SHADOW_TEST_NAME"), Version: version(),
		Monitor: command, Log: testLog("shadow"), Notify: notify, Silence: silence, Stuck: stuck, Point: point,
		Withdraw: withdraw(dir), Reset: reset(dir), Guard: []string{exe, "guard", dir}, Watch: watch,
		RealTime: os.Getenv("SHADOW_TEST_REALTIME") != "",
	})
	if errors.Is(err, ErrComplete) {
		fmt.Fprintln(os.Stderr, err)
		return 70
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shadow:", err)
		return 71
	}
	return code
}

// playGuard is gemel guard.
func playGuard(dir string) int {
	err := lapse.Guard(context.Background(), dir, lapse.Config{RunDir: dir, Withdraw: withdraw(dir), Reset: reset(dir), Log: testLog("guard")})
	if err != nil {
		fmt.Fprintln(os.Stderr, "guard:", err)
		return 74
	}
	return 0
}

// withdraw appends the words to a file, and cannot while another one is there.
func withdraw(dir string) func([]string) error {
	return func(words []string) error {
		if exists(filepath.Join(dir, "stays")) {
			return errors.New("it stays")
		}
		return appendLine(filepath.Join(dir, "withdrawn"), strings.Join(words, " "))
	}
}

func reset(dir string) func(ha.Group, string) {
	return func(g ha.Group, what string) {
		if err := appendLine(filepath.Join(dir, "reset"), string(g)+": "+what); err != nil {
			panic(err)
		}
	}
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, line)
	return err
}

// playMonitor relays between the shadow and the test: reports go out, orders come
// in, one JSON text each. It beats by itself.
func playMonitor() int {
	dir := os.Getenv("SHADOW_TEST_DIR")
	log := testLog("monitor")
	fd := -1
	if n, err := strconv.Atoi(os.Getenv(proc.PairEnv)); err == nil {
		fd = n
	}
	os.Unsetenv(proc.PairEnv)
	silence, _ := time.ParseDuration(os.Getenv("SHADOW_TEST_SILENCE"))
	patience, _ := time.ParseDuration(os.Getenv("SHADOW_TEST_PATIENCE"))
	command := []string{os.Args[0]}
	if os.Getenv("SHADOW_TEST_MANAGED") != "" {
		command = nil
	}
	l, err := proc.NewLink(proc.LinkConfig{
		DataDir: dir, RunDir: dir, PairFD: fd, Version: version(),
		Shadow: command, Patience: patience, Silence: silence, Log: log,
	})
	if err != nil {
		log.Error("link", "err", err)
		return 72
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "test.sock"))
	if err != nil {
		log.Error("test is gone", "err", err)
		return 73
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		if err := l.Run(ctx); err != nil {
			log.Error("link", "err", err)
		}
	})
	beat := time.NewTicker(100 * time.Millisecond)
	wg.Go(func() {
		_ = l.Send(proc.Order{Kind: proc.OrderBeat})
		for {
			select {
			case <-beat.C:
				_ = l.Send(proc.Order{Kind: proc.OrderBeat})
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() { relayOrders(l, conn) })
	out := json.NewEncoder(conn)
	_ = out.Encode(said{PID: os.Getpid()})
	for r := range l.Reports() {
		s := said{Report: &r, PID: os.Getpid(), Version: version(), FDs: len(r.FDs)}
		for _, fd := range r.FDs {
			b := make([]byte, 64)
			if n, err := unix.Pread(fd, b, 0); err == nil {
				s.Text += string(b[:n])
			}
			unix.Close(fd)
		}
		if out.Encode(s) != nil {
			break
		}
	}
	cancel()
	conn.Close()
	wg.Wait()
	return 0
}

// said is one line from a monitor to the test.
type said struct {
	Report  *proc.Report `json:"report,omitempty"`
	PID     int          `json:"pid"`
	Version string       `json:"version,omitempty"`
	FDs     int          `json:"fds,omitempty"`
	Text    string       `json:"text,omitempty"` // what the descriptors hold
}

// told is one line from the test to a monitor.
type told struct {
	Order *proc.Order `json:"order,omitempty"`
	File  string      `json:"file,omitempty"` // sent along, opened
}

func relayOrders(l *proc.Link, r io.Reader) {
	in := json.NewDecoder(bufio.NewReader(r))
	for {
		var t told
		if err := in.Decode(&t); err != nil {
			return
		}
		var fds []int
		if t.File != "" {
			f, err := os.Open(t.File)
			if err != nil {
				panic(err)
			}
			fds = append(fds, int(f.Fd()))
			defer f.Close()
		}
		if err := l.Send(*t.Order, fds...); err != nil {
			fmt.Fprintln(os.Stderr, "monitor: send:", err)
		}
	}
}

// playProgram is a program. Its arguments say what it does, one after the other.
func playProgram() int {
	for _, a := range os.Args[1:] {
		verb, arg, _ := strings.Cut(a, "=")
		switch verb {
		case "deaf":
			signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
		case "touch": // appends its start id and pid to a file
			f, err := os.OpenFile(arg, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return 96
			}
			fmt.Fprintln(f, os.Getenv("GEMEL_START"), os.Getpid())
			f.Close()
		case "env":
			_ = os.WriteFile(arg, []byte(strings.Join(os.Environ(), "\n")), 0o600)
		case "print":
			fmt.Println(arg)
		case "gate": // waits until the pipe at arg has an end
			b, err := os.ReadFile(arg)
			if err != nil {
				return 97
			}
			if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
				return n
			}
		case "exit":
			n, _ := strconv.Atoi(arg)
			return n
		case "echo": // answers what it is asked at the address that it writes down
			_ = echo.Serve("127.0.0.1:0", func(at string) error {
				return errors.Join(os.WriteFile(arg+".new", []byte(at), 0o600), os.Rename(arg+".new", arg))
			})
			return 96
		case "sleep":
			for { // select {} would end as a deadlock without cgo
				_, _ = unix.Poll(nil, -1)
			}
		}
	}
	return 0
}
