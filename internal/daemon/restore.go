package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/roll"
)

const (
	copyTime = 10 * time.Minute
	copyMost = 4 << 20 // bytes of an answer: a list of machines
)

// Restore makes the cluster anew from the backup o.File, with this machine as its only
// node. off are the others that somebody says are off. It is refused while a daemon runs.
func Restore(ctx context.Context, o Options, s roll.Setup, off []string) (roll.Begun, error) {
	if err := o.Places.Make(); err != nil {
		return roll.Begun{}, err
	}
	for _, name := range []string{proc.ShadowLock, proc.MonitorLock} {
		// Both are held until the end: no daemon may begin in the middle of it.
		lock, err := proc.TakeLock(filepath.Join(o.Places.Data, name), time.Second)
		var held *proc.HeldError
		if errors.As(err, &held) {
			return roll.Begun{}, &ha.Error{Kind: ha.ErrRefused, Reason: "running", Hint: "gemel shutdown, then the same command",
				Err: fmt.Errorf("gemel runs here (pid %d), as a node of the era before: what it runs by that has to be stopped first", held.PID)}
		}
		if err != nil {
			return roll.Begun{}, err
		}
		defer lock.Close()
	}
	return roll.Backup{File: o.File, Off: off, Ask: o.copied}.Restore(ctx, s)
}

// copied has the program of the store do something with a backup.
func (o Options) copied(ctx context.Context, c roll.Copy) ([]byte, error) {
	exe, err := o.exe()
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("saying what is to be restored: %w", err)
	}
	f, err := os.CreateTemp(o.Places.Data, ".restore-*")
	if err != nil {
		return nil, fmt.Errorf("saying what is to be restored: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("saying what is to be restored: %w", err)
	}
	e, err := proc.Run(ctx, proc.Command{
		Args: []string{exe, "store", "--data-dir", o.Places.Data, "--run-dir", o.Places.Run, "--socket", o.Places.Socket, f.Name()},
		Env:  os.Environ(), Timeout: copyTime, Most: copyMost,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("running the program of the store: %w", err)
	case e.Code != 0:
		return nil, errors.New(strings.TrimPrefix(strings.TrimSpace(e.Output), "gemel: "))
	}
	return []byte(e.Output), nil
}
