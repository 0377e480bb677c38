package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"gemel/internal/deadman"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/journal"
	"gemel/internal/manifest"
	"gemel/internal/proc"
	"gemel/internal/proc/shadow"
)

// Shadow runs the half that is the parent of every program, and returns the exit
// status of the process.
func Shadow(ctx context.Context, o Options) (int, error) {
	if err := o.Places.Make(); err != nil {
		return 1, err
	}
	if err := o.stayed(); err != nil {
		return 1, err
	}
	proc.Name()
	if err := o.armed(); err != nil {
		return 1, err
	}
	exe, err := o.exe()
	if err != nil {
		return 1, err
	}
	own, err := claim(o.Places, 5*time.Second)
	if err != nil {
		return 1, err
	}
	defer own.Close()
	sayCrash(o, ha.KindShadow)
	// A host that is given another name while we run must not make the next monitor
	// stop what on: narrows to the old one.
	o.Name = o.node()
	_, silence := pace(watchdog())
	g := newGroup(context.WithoutCancel(ctx))
	g.start(giveBack)
	defer func() {
		g.cancel(errStopped)
		_ = g.wait() // says that it was stopped
	}()
	var watch *shadow.Watch
	if id := o.Identity; id != nil && id.Level.Watchdog != "" && !id.Witness {
		watch = &shadow.Watch{Time: id.Level.WatchdogTime, Timers: id.Timers, Open: func() (deadman.Dog, error) {
			return deadman.Open(id.Level.Watchdog, id.Level.WatchdogTime)
		}}
	}
	var guard []string // none: the level is 0 then
	if o.Identity == nil || o.Identity.Level.Guard {
		guard = append([]string{exe, "guard"}, o.guardArgs()...)
	}
	// The shadow takes signals itself, and takes the end of a context for one more:
	// a caller's context that ends by SIGTERM would make two of each, and the second
	// one means at once.
	code, err := shadow.Run(context.WithoutCancel(ctx), shadow.Config{
		DataDir: o.Places.Data, RunDir: o.Places.Run, Name: instance(o.Places), Version: o.Version,
		Monitor: append([]string{exe, "monitor"}, o.monitorArgs()...), Log: o.Log, Notify: notifier(o), Silence: silence,
		First: fresh(o),
		Guard: guard, Watch: watch, Withdraw: o.Withdraw, Reset: o.Reset, RealTime: o.Identity != nil,
	})
	if errors.Is(err, shadow.ErrComplete) && proc.Managed() {
		// The monitor's own new shadow was faster than the service manager: one pair
		// is there, and that is all that was asked for. The manager, which would start
		// this again and again, is told whom to look at.
		o.Log.Warn("nothing to do", "why", err)
		var held *proc.HeldError
		if tell := notifier(o); tell != nil && errors.As(proc.ProbeLock(filepath.Join(o.Places.Data, proc.ShadowLock), 0), &held) && held.PID != 0 {
			tell(fmt.Sprintf("MAINPID=%d\nREADY=1", held.PID))
		}
		return 0, nil
	}
	if errors.Is(err, shadow.ErrComplete) {
		err = &ha.Error{Kind: ha.ErrFailed, Reason: "running", Err: err,
			Hint: "gemel status shows what it runs, gemel apply FILE changes that; a second one needs its own --data-dir and --run-dir"}
	}
	return code, err
}

// fresh reports whether nothing was ever applied to this instance.
func fresh(o Options) bool {
	list, err := os.ReadDir(filepath.Join(o.Places.Data, "journal"))
	return err != nil || len(list) == 0
}

// firstManifest looks at the file of a fresh instance before anything is written.
// A manifest with errors ends the first monitor, and with it the shadow, which
// would else start monitors for ever. It is read by the monitor alone: of a
// thousand programs that takes as long as to start half of them.
func firstManifest(ctx context.Context, o Options) (inForce, error) {
	f, err := begin(ctx, o, journal.Past{})
	if err != nil {
		return inForce{}, err
	}
	world := proc.ThisMachine()
	_, err = engine.Resolve(f.m, ha.Node(o.node()), func(p manifest.Process) (proc.Spec, error) { return proc.Resolve(p, world) })
	return f, err
}

// notifier tells the service manager of our state (sd_notify), nil without one.
func notifier(o Options) func(string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	return func(state string) {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err == nil {
			_, err = c.Write([]byte(state))
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			o.Log.Debug("the service manager was not told", "error", fmt.Errorf("sd_notify: %w", err))
		}
	}
}
