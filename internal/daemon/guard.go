package daemon

import (
	"context"
	"runtime/debug"

	"gemel/internal/proc"
	"gemel/internal/proc/lapse"
)

// Guard runs the process that ends what is past its deadline when no shadow does. It
// returns when there is nothing to keep any more; see lapse.Guard.
func Guard(ctx context.Context, o Options) error {
	proc.Name()
	if err := o.armed(); err != nil {
		return err
	}
	debug.FreeOSMemory() // what this binary needed to begin: from here on it needs little
	return lapse.Guard(ctx, o.Places.Data, lapse.Config{RunDir: o.Places.Run, Withdraw: o.Withdraw, Reset: o.Reset, Log: o.Log})
}

// armed prepares what a shadow and a guard do at a deadline beside the kill.
func (o *Options) armed() error {
	if o.Identity == nil || o.Withdraw != nil {
		return nil
	}
	var err error
	o.Withdraw, err = withdraw()
	if o.Reset == nil && resets(o.Identity.Level.Reset, served("/")) {
		o.Reset = reset(sysrqTrigger, kernelLog, o.Log)
	}
	return err
}

// guardArgs are the arguments of the guard.
func (o Options) guardArgs() []string {
	return []string{"--data-dir", o.Places.Data, "--run-dir", o.Places.Run, "--socket", o.Places.Socket}
}
