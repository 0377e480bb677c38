package cli

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
)

func applyCommand(t *tool) *cobra.Command {
	var dry bool
	c := &cobra.Command{
		Use: "apply FILE", GroupID: "file", Args: args(1, 1),
		Short: "put a manifest into force; only what changed restarts",
		Long: `Puts a manifest into force and prints what changes. A manifest with an error changes
nothing. What is applied is kept and is the truth from then on, also after a restart of
Gemel; the file is not looked at again before the next apply or SIGHUP. FILE may be - for
standard input.

The manifest that was in force before is kept below the user's cache directory
(~/.cache/gemel), so that it can be taken back.`,
		Example:           "  gemel apply --dry-run gemel.yaml\n  gemel apply gemel.yaml",
		ValidArgsFunction: manifests,
		RunE: func(c *cobra.Command, args []string) error {
			return apply(c.Context(), t, args[0], dry)
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would change")
	return c
}

func apply(ctx context.Context, t *tool, file string, dry bool) error {
	b, err := t.read(file)
	if err != nil {
		return err
	}
	// Told here already, in full, without asking: the daemon would say the same.
	if _, err := config.Parse(file, b); err != nil {
		return err
	}
	name := file
	if abs, err := filepath.Abs(file); err == nil && file != "-" {
		name = abs
	}
	return put(ctx, t, name, b, dry)
}

// put puts a manifest into force, and tells what that changes.
func put(ctx context.Context, t *tool, name string, b []byte, dry bool) error {
	client, err := t.dial()
	if err != nil {
		return err
	}
	var before *gemelv1.ManifestResponse
	if !dry {
		if before, err = client.Manifest(ctx, &gemelv1.ManifestRequest{}); err != nil {
			return err
		}
	}
	r, err := client.Apply(ctx, &gemelv1.ApplyRequest{Manifest: b, Name: name, DryRun: dry})
	if err != nil {
		return err
	}
	undo := r.GetUndo()
	if r.GetApplied() {
		// The daemon's own copy is for its user alone; this one can be read here.
		undo = cmp.Or(takeBack(before.GetManifest()), undo)
	}
	if t.json {
		o := object(r)
		if undo != "" {
			o["undo"] = undo
		}
		if err := t.printJSON(o); err != nil {
			return err
		}
	} else {
		showApplied(t, r, dry, undo)
	}
	if refusedBy(r.GetProblems()) {
		return exitStatus(ExitInvalid)
	}
	return nil
}

func showApplied(t *tool, r *gemelv1.ApplyResponse, dry bool, undo string) {
	bad := refusedBy(r.GetProblems())
	if !bad {
		showChanges(t, r.GetChanges())
	}
	showProblems(t, r.GetProblems())
	switch {
	case bad:
		fmt.Fprintln(t.w.Err, "gemel: nothing was changed")
	case dry:
		fmt.Fprintln(t.out, "nothing was changed (--dry-run)")
	case r.GetApplied():
		fmt.Fprintf(t.out, "applied as version %d\n", r.GetVersion())
		if undo != "" {
			fmt.Fprintf(t.out, "  to take it back: %s\n", t.command(undo))
		}
	}
}

// refusedBy reports whether problems stood in the way.
func refusedBy(ps []*gemelv1.Problem) bool {
	return slices.ContainsFunc(ps, func(p *gemelv1.Problem) bool { return !p.GetWarning() })
}

func showChanges(t *tool, cs []*gemelv1.ManifestChange) {
	if len(cs) == 0 {
		fmt.Fprintln(t.out, "no difference to the manifest in force")
		return
	}
	for _, c := range cs {
		fmt.Fprintln(t.out, clean(c.GetText()))
	}
}

func showProblems(t *tool, ps []*gemelv1.Problem) {
	for _, p := range ps {
		kind := ""
		if p.GetWarning() {
			kind = "warning: "
		}
		fmt.Fprintf(t.w.Err, "%s:%d:%d: %s: %s%s\n", p.GetFile(), p.GetLine(), p.GetColumn(), p.GetPath(), kind, clean(p.GetText()))
		if p.GetHint() != "" {
			fmt.Fprintln(t.w.Err, "  "+clean(p.GetHint()))
		}
	}
}

// keepManifests is how many manifests are kept to be taken back.
const keepManifests = 20

// takeBack keeps a manifest that is no longer in force and returns the command
// that puts it into force again, or "" if it cannot be kept: that is no reason
// for an apply to fail.
func takeBack(manifest []byte) string {
	cache, err := os.UserCacheDir()
	if err != nil || len(manifest) == 0 {
		return ""
	}
	dir := filepath.Join(cache, "gemel")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ""
	}
	sum := sha256.Sum256(manifest)
	path := filepath.Join(dir, "manifest-"+hex.EncodeToString(sum[:6])+".yaml")
	// It may hold secrets. The name says what is in it: the same is written again so
	// that it counts as new.
	if err := os.WriteFile(path, manifest, 0o600); err != nil {
		return ""
	}
	forget(dir)
	return "gemel apply " + quoted(path)
}

// forget removes the oldest of the manifests that are kept.
func forget(dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "manifest-*.yaml"))
	if err != nil || len(files) <= keepManifests {
		return
	}
	age := make(map[string]time.Time)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			age[f] = st.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Compare(age[a].UnixNano(), age[b].UnixNano()) })
	for _, f := range files[:len(files)-keepManifests] {
		_ = os.Remove(f) // the next apply tries again
	}
}
