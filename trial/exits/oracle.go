package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// life is one start of one program as the oracle saw it.
type life struct {
	name    string
	start   uint64
	pid     int
	code    int
	ended   bool
	leaving bool // asked to stop by SIGTERM
}

// oracle knows the truth about the programs.
type oracle struct {
	l net.Listener

	mu         sync.Mutex
	lives      map[uint64]*life
	running    map[string]*life
	gone       int
	last       bool // the campaign is over: programs are stopped
	violations []string
	wait       sync.WaitGroup
}

func listen(path string) (*oracle, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("starting the oracle: %w", err)
	}
	o := &oracle{l: l, lives: make(map[uint64]*life), running: make(map[string]*life)}
	o.wait.Go(o.serve)
	return o, nil
}

func (o *oracle) serve() {
	for {
		c, err := o.l.Accept()
		if err != nil {
			return
		}
		o.wait.Go(func() { o.hold(c) })
	}
}

func (o *oracle) close() {
	_ = o.l.Close()
	o.wait.Wait()
}

func (o *oracle) hold(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	f := strings.Fields(line)
	if len(f) != 4 {
		o.violate("a program said %q: its environment is not as it should be", line)
		return
	}
	l := &life{name: f[0]}
	l.start, _ = strconv.ParseUint(f[1], 10, 64)
	l.pid, _ = strconv.Atoi(f[2])
	l.code, _ = strconv.Atoi(f[3])
	o.begin(l)
	if _, err := c.Write([]byte{1}); err != nil {
		return
	}
	if rest, _ := r.ReadString('\n'); rest != "" {
		o.mu.Lock()
		l.leaving = true
		if !o.last {
			o.violations = append(o.violations, fmt.Sprintf("start %d of %s (pid %d) was stopped although nobody asked for it", l.start, l.name, l.pid))
		}
		o.mu.Unlock()
		_, _ = r.ReadString('\n')
	}
	o.mu.Lock()
	l.ended = true
	o.gone++
	o.mu.Unlock()
}

// finish says that programs will be stopped from now on.
func (o *oracle) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = true
}

// ended counts the programs that have ended so far.
func (o *oracle) ended() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gone
}

func (o *oracle) begin(l *life) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.lives[l.start]; old != nil {
		o.violations = append(o.violations, fmt.Sprintf("start %d of %s ran twice: pids %d and %d", l.start, l.name, old.pid, l.pid))
	}
	o.lives[l.start] = l
	// The connection of the one before may still be on its way to be seen as
	// closed; a pid that is not there any more tells the same.
	if old := o.running[l.name]; old != nil && !old.ended && alive(old.pid) {
		o.violations = append(o.violations, fmt.Sprintf("%s runs twice: start %d (pid %d) while start %d (pid %d) lives", l.name, l.start, l.pid, old.start, old.pid))
	}
	o.running[l.name] = l
}

func (o *oracle) violate(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.violations = append(o.violations, fmt.Sprintf(format, args...))
}

// alive reports whether the pid is there and not a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	s := string(b)
	i := strings.LastIndexByte(s, ')')
	return i > 0 && i+2 < len(s) && s[i+2] != 'Z' && s[i+2] != 'X'
}
