//go:build slim

package main

import (
	"context"
	_ "embed" // for go:embed
	"os"
	"path/filepath"

	"gemel/internal/daemon"
	"gemel/internal/part"
	"gemel/internal/proc"
)

// form is how this binary is built.
const form = "slim"

// packed is gemel-store. scripts/build.sh builds it, and says by an overlay where it is.
//
//go:embed gemel-store.gz
var packed string

// packedSum is the hash of what it holds (-X main.packedSum=...).
var packedSum string

// store puts the member of the store in the place of this process.
func store(ctx context.Context, o daemon.Options) (int, error) {
	// Before anything takes time: a member that died is missed. If it is not allowed, the
	// member itself says so.
	_ = proc.Urgent()
	p := part.Part{Name: "gemel-store", Packed: packed, Sum: packedSum}
	args := []string{os.Args[0], "store", "--data-dir", o.Places.Data, "--run-dir", o.Places.Run, "--socket", o.Places.Socket}
	if o.File != "" {
		args = append(args, o.File) // what is to be done with a backup
	}
	return 1, p.Exec(ctx, filepath.Join(o.Places.Data, "parts"), args, o.Log)
}
