package daemon

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"gemel/internal/config"
	"gemel/internal/manifest"
	"gemel/internal/proc"
)

const (
	// apartFrom is from how many bytes on a manifest is read in a process of its own.
	// That takes a few milliseconds more; what it saves is 3 KiB for each program.
	apartFrom = 128 << 10
	apartTime = 30 * time.Second
	apartMost = 1 << 30 // bytes; a manifest of 4 MiB makes 40
)

// ReadManifest is the other side of Options.parse: it reads a manifest from in and
// hands it on through out. It says nothing of what is wrong: who asked reads it
// again and does.
func ReadManifest(name string, in io.Reader, out io.Writer) error {
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	m, err := config.Parse(name, b)
	if err != nil {
		return err
	}
	made, err := config.Hand(m)
	if err != nil {
		return err
	}
	_, err = out.Write(made)
	return err
}

// parse reads a manifest, a large one apart: trees of syntax are many times the
// size of what remains of them, and what remains would lie scattered over all the
// memory that they took. Where that does not work out, for whatever reason, it is
// read here.
func (o Options) parse(ctx context.Context, name string, b []byte) (*manifest.Manifest, error) {
	m, err := o.read(ctx, name, b)
	if err != nil {
		return nil, err
	}
	own, err := o.own()
	if err != nil {
		return nil, err
	}
	return m.With(own), nil
}

func (o Options) read(ctx context.Context, name string, b []byte) (*manifest.Manifest, error) {
	if len(b) >= apartFrom {
		m, err := o.apart(ctx, name, b)
		if err == nil {
			return m, nil
		}
		o.Log.Debug("the manifest was not read apart", "file", name, "error", err)
	}
	return config.Parse(name, b)
}

func (o Options) apart(ctx context.Context, name string, b []byte) (*manifest.Manifest, error) {
	e, err := proc.Run(ctx, proc.Command{
		// This very build, even if another has taken its place on disk: the two must
		// agree on what a manifest is.
		Args: []string{"/proc/self/exe", "read-manifest", "--", name}, As: os.Args[0],
		In: b, Env: os.Environ(), Timeout: apartTime, Most: apartMost,
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading it in a process of its own: %w", err)
	case e.Code != 0 || e.Clipped:
		return nil, fmt.Errorf("reading it in a process of its own: exit code %d, signal %d, %d bytes", e.Code, e.Signal, len(e.Output))
	}
	return config.Take([]byte(e.Output))
}
