package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"gemel/internal/ha"
	"gemel/internal/proc"
	"gemel/internal/status"
)

// roles tells programs where their groups stand, by a file for each group below the run
// directory. It is news and no proof: what stands there may be as old as this monitor is
// dead.
type roles struct {
	o     Options
	board *status.Board
}

// run keeps the files until ctx ends.
func (r roles) run(ctx context.Context) error {
	told := map[ha.Group]string{}
	said := ""
	for {
		shot, changed := r.board.Last()
		if shot != nil {
			err := r.tell(shot, told)
			if err != nil && err.Error() != said {
				r.o.Log.Error("programs are not told where their groups stand", "error", err)
			}
			if said = ""; err != nil {
				said = err.Error()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// tell writes the files of the groups whose standing has changed, and takes those away
// of which the manifest does not know any more.
func (r roles) tell(s *status.Snapshot, told map[ha.Group]string) error {
	dir := proc.RoleDir(r.o.Places.Run)
	var errs []error
	known := map[ha.Group]bool{}
	for _, g := range s.Groups {
		known[g.Name] = true
		text := standing(g)
		if told[g.Name] == text {
			continue
		}
		path := filepath.Join(dir, string(g.Name))
		if err := replaceFile(path, text); err != nil {
			errs = append(errs, err)
			continue
		}
		told[g.Name] = text
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, e := range entries {
		if known[ha.Group(e.Name())] {
			continue
		}
		delete(told, ha.Group(e.Name()))
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// standing is what the file of a group says; a shell can read it in.
func standing(g status.GroupStatus) string {
	role := "standby"
	if g.State == "active" || g.State == "starting" {
		role = "active"
	}
	fence := ""
	if g.Fence != (ha.Fence{}) {
		fence = g.Fence.String()
	}
	return fmt.Sprintf("group=%s\nrole=%s\nfence=%s\nnode=%s\n", g.Name, role, fence, g.Node)
}

// replaceFile writes a file that nobody ever sees half.
func replaceFile(path, text string) error {
	temp := filepath.Join(filepath.Dir(path), ".new."+strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o644); err != nil { // whatever the umask is
		return err
	}
	return os.Rename(temp, path)
}
