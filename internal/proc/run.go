package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPath is the PATH of a program whose manifest gives none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// A Command is a short program that the monitor runs for itself: a check, a
// handler, the start command of an attached program, the reboot, itself to read a manifest.
type Command struct {
	Args    []string
	As      string   // the name that it is told, argv[0]; "": Args[0]
	In      []byte   // what it reads; nil: /dev/null
	Env     []string // nil: PATH alone
	Dir     string   // "": /
	UID     int      // with SetIDs
	GID     int
	Groups  []int // supplementary, with SetIDs
	SetIDs  bool
	Timeout time.Duration // zero: none but ctx
	// Leave lets live on what it started when it ends in time. Then nothing of its
	// output is kept: a pipe that we read would end a program that outlives us by
	// SIGPIPE.
	Leave bool
	Out   *os.File // with Leave: where the output goes; nil: nowhere
	Most  int      // bytes of output that are kept; zero: 4 KiB
}

// Ended is how a Command ended.
type Ended struct {
	Code    int // exit code; -1 if it did not exit by itself
	Signal  int
	Late    bool // it was killed because its time was up
	Output  string
	Clipped bool // there was more output
}

// Run runs a command and waits for it and for what it left behind: whatever
// still holds its session when it ends is killed, unless Leave says otherwise. The output is bounded and the
// rest thrown away, so that a command that prints without end costs nothing. An
// error means that it could not be started; a bad exit is no error.
func Run(ctx context.Context, c Command) (Ended, error) {
	if len(c.Args) == 0 {
		return Ended{}, errors.New("running a command: it is empty")
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	most := c.Most
	if most == 0 {
		most = 4096
	}
	out := &clip{most: most}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	if cmd.Env == nil {
		cmd.Env = []string{"PATH=" + DefaultPath}
	}
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	if c.As != "" {
		cmd.Args[0] = c.As
	}
	if c.In != nil {
		cmd.Stdin = bytes.NewReader(c.In)
	}
	switch {
	case !c.Leave:
		cmd.Stdout, cmd.Stderr = out, out
	case c.Out != nil:
		cmd.Stdout, cmd.Stderr = c.Out, c.Out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if c.SetIDs {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(c.UID), Gid: uint32(c.GID)}
		for _, g := range c.Groups {
			cmd.SysProcAttr.Credential.Groups = append(cmd.SysProcAttr.Credential.Groups, uint32(g))
		}
	}
	// The command leads a session and a process group of its own: the group is
	// killed as one, and a child that holds the output open is not waited for.
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = 100 * time.Millisecond
	if err := calmly(cmd.Start); err != nil {
		return Ended{}, fmt.Errorf("running %s: %w", c.Args[0], err)
	}
	pid := cmd.Process.Pid
	err := cmd.Wait()
	if !c.Leave || ctx.Err() != nil {
		_ = killGroup(pid)
	}
	e := Ended{Code: cmd.ProcessState.ExitCode(), Output: out.String(), Clipped: out.clipped}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = int(ws.Signal())
	}
	e.Late = ctx.Err() != nil && e.Code != 0
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return e, fmt.Errorf("running %s: %w", c.Args[0], err)
	}
	return e, nil
}

// killGroup kills what is left of a command. The leader is dead or a zombie of
// ours, so that its group id cannot have been given to a stranger before Wait;
// after Wait an empty group is the normal case.
func killGroup(pid int) error {
	if err := unix.Kill(-pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return os.ErrProcessDone
}

// clip keeps the first bytes that are written to it.
type clip struct {
	kept    bytes.Buffer // a field, since its ReadFrom would go around Write
	most    int
	clipped bool
}

func (c *clip) String() string { return c.kept.String() }

func (c *clip) Write(b []byte) (int, error) {
	if room := c.most - c.kept.Len(); room < len(b) {
		c.clipped = true
		c.kept.Write(b[:max(room, 0)])
		return len(b), nil
	}
	return c.kept.Write(b)
}
