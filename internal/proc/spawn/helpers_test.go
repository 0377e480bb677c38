package spawn

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// helpers are the programs that the test binary plays.
var helpers = map[string]func([]string){
	"crossed": crossed,
	"limit":   showLimit,
	"hog":     hog,
	"parent":  parent,
	"bomb":    bomb,
	"deaf":    deaf,
	"parker":  parker,
	"shelf":   onShelf,
	"writer":  writer,
}

func die(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(98)
	}
}

func launch(way string, r *Ready) (Child, error) {
	if way != "park" {
		return r.Start()
	}
	p, err := r.Park()
	if err != nil {
		return Child{}, err
	}
	return p.Release()
}

// reserved is what shelved gives to a start of the test itself.
func reserved(way string) *Cgroup {
	if way != "shelf" {
		return nil
	}
	tr := &Tree{name: "shelved"}
	die(tr.Reserve(nil))
	return &Cgroup{tree: tr, id: 1}
}

func reapAndExit(c Child) {
	for {
		if st, ok, err := ExitStatus(c.PIDFD, true); err != nil {
			die(err)
		} else if ok {
			os.Exit(max(st.Code, 0))
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, -1)
	}
}

func crossed(args []string) {
	o := Options{Start: 1, Stdin: -1, Stdout: 2, Stderr: 1, Handover: -1, Cgroup: reserved(args[0])}
	r, err := Prepare(shell("echo out; echo err >&2"), o)
	die(err)
	c, err := launch(args[0], r)
	die(err)
	reapAndExit(c)
}

func showLimit([]string) {
	tr, err := Open("gemel-test-limit-" + strconv.Itoa(os.Getpid()))
	die(err)
	defer tr.Close()
	s := shell("echo $(ulimit -Sn) $(ulimit -Hn)")
	g, err := tr.Make("limit", 1, s)
	die(err)
	r, err := Prepare(s, Options{Start: 1, Stdin: 0, Stdout: 1, Stderr: 2, Handover: -1, Cgroup: g})
	die(err)
	c, err := r.Start()
	die(err)
	for {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.PIDFD), Events: unix.POLLIN}}, -1)
		if _, ok, _ := ExitStatus(c.PIDFD, true); ok {
			break
		}
	}
	for g.Remove() != nil {
	}
}

// hog takes memory until it is stopped.
func hog([]string) {
	var all [][]byte
	for range 512 {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 512 {
			b[i] = 1
		}
		all = append(all, b)
	}
	fmt.Println(len(all))
}

// bomb forks for ever, and so does each of its children.
func bomb([]string) {
	for {
		syscall.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0)
	}
}

// deaf ignores what asks it to end, and has a child of a child in a session of its
// own that does the same.
func deaf([]string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	s := shell("trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM HUP INT; echo ready; while :; do sleep 1000; done' &) ; while :; do sleep 1000; done")
	die(syscall.Exec(s.Path, s.Args, os.Environ()))
}

// parent is a shadow in small: it starts what its arguments say, with a handover
// socket as descriptor 0, and waits to be killed.
func parent(args []string) {
	o := Options{Start: 77, Stdin: 1, Stdout: 2, Stderr: -1, Handover: 0, Cgroup: reserved(args[0])}
	r, err := Prepare(shell(args[1]), o)
	die(err)
	_, err = launch(args[0], r)
	die(err)
	for { // select {} would end as a deadlock without cgo
		_, _ = unix.Poll(nil, -1)
	}
}

// parker parks a child, says its pid, and waits to be killed.
func parker([]string) {
	r, err := Prepare(shell("echo it ran"), Options{Start: 78, Stdin: -1, Stdout: 2, Stderr: -1, Handover: -1})
	die(err)
	a, err := r.Park()
	die(err)
	b, err := r.Park()
	die(err)
	fmt.Println(a.PID(), b.PID())
	for { // select {} would end as a deadlock without cgo
		_, _ = unix.Poll(nil, -1)
	}
}

// writer claims rows, starts programs, and waits to be killed.
func writer(args []string) {
	t, err := OpenTable(args[0], "boot-a")
	die(err)
	for i := range 3 {
		slot, err := t.Claim(nextStart(), "program")
		die(err)
		if i == 2 {
			break // claimed, not started
		}
		s := shell("read x")
		r, err := Prepare(s, Options{Start: nextStart(), Stdin: 0, Stdout: -1, Stderr: -1, Handover: -1, Slot: slot})
		die(err)
		c, err := launch(ways[i], r)
		die(err)
		fmt.Println(c.PID)
	}
	fmt.Println("done")
	for { // select {} would end as a deadlock without cgo
		_, _ = unix.Poll(nil, -1)
	}
}
