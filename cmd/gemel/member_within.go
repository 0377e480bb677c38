//go:build !slim

package main

import (
	"context"
	"os"

	"gemel/internal/daemon"
	"gemel/internal/voter"
)

// form is how this binary is built.
const form = "whole"

// store runs the member of the store in this process: this is how gemel is built
// without make. All of its processes carry an etcd.
func store(ctx context.Context, o daemon.Options) (int, error) {
	if o.File != "" {
		return 0, voter.Restore(o.File, os.Stdout, o.Log)
	}
	return 0, voter.Run(ctx, o.Places, o.Log)
}
