package rpc

import (
	"context"
	"io"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/access"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// A Backend is what the API speaks for. What is nil is answered as not
// available. Errors that are an *ha.Error, wrapped or not, reach the caller with
// their kind and hint; every other error is of kind failed.
//
//budget:fields it is wiring
type Backend struct {
	Board *status.Board // the picture; needed
	Feed  *status.Feed  // events as they happen; needed
	// History calls each with the recorded events of a greater id than after that
	// are not older than since (zero: all), in order of id, until it returns false.
	History func(ctx context.Context, after uint64, since time.Time, each func(ha.Event) bool) error
	// Output calls each with the last lines of a process's output and, with
	// Follow, with what is written from then on, until ctx ends or each fails. The
	// slice is only valid during the call; the place is that after it, with Follow.
	Output func(ctx context.Context, p ha.Process, from From, each func(b []byte, place string) error) error

	// Look is called before a picture is told: what costs something to measure is
	// measured then, and published. Nil if there is nothing.
	Look func(ctx context.Context)

	Core core
	// Cluster takes what is asked of groups and nodes of a cluster; nil: this machine
	// is of none.
	Cluster func(ctx context.Context, r ha.Request) (ha.Answer, error)
	// Plan says where groups belong; nil: this machine is of no cluster.
	Plan func(ctx context.Context, q *gemelv1.PlanRequest) (*gemelv1.PlanResponse, error)
	// Versions of the cluster's manifest; nil: this machine is of no cluster.
	Versions versions
	Rolls    rolls // nil: this daemon knows nothing of clusters
	Keys     keys  // with Rolls
	Asks     asks
	Life     life
	// Keep keeps a manifest that was replaced and returns the command that puts it
	// in force again, or nothing. Nil keeps none.
	Keep  func(manifest []byte) string
	Audit func(access.Entry) error // keeps who changed what; nil keeps nothing

	Version  string // of the monitor
	Revision string // of its source; may be empty
	Form     string // how it is built: slim or whole
}

// From is what of a process's output is asked for.
type From struct {
	Lines  int    // below zero: none of the past
	Follow bool   // go on with what is written
	After  string // with Follow: a place that was told before; Lines does not count then
}

// core is the part of the engine that takes orders.
type core interface {
	Request(ctx context.Context, r ha.Request) (ha.Answer, error)
	// Apply fails with config.Errors if the manifest is wrong, before any change. It
	// returns what changes, and the version that it is now; if dry, the one in force.
	Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, uint64, error)
	// Current is what is in force on this node. Its version is zero while only the
	// cluster's store knows it.
	Current() (name string, b []byte, version uint64)
}

// A Version is one of the manifests that a cluster has had.
type Version struct {
	Number   uint64
	Name, By string
	At       time.Time
}

// versions are the manifests that a cluster has had.
type versions interface {
	Versions(ctx context.Context) ([]Version, error)
	Version(ctx context.Context, v uint64) (name string, b []byte, err error)
}

// rolls brings machines into the cluster and lets them leave. Its errors are refusals.
type rolls interface {
	Token(ctx context.Context, witness bool, name string, life time.Duration) (text string, until time.Time, at []string, err error)
	Leave(ctx context.Context, by string, with bool) error
	Renew(ctx context.Context) error
	Backup(ctx context.Context, w io.Writer) error
}

// keys are what proves who is who in a cluster. Its errors are refusals.
type keys interface {
	Certificates(ctx context.Context) (status.Keys, error)
	Rotate(ctx context.Context, what []string) error
}

// asks answers questions about the past, in the API's own words.
type asks interface {
	Why(ctx context.Context, q *gemelv1.WhyRequest) (*gemelv1.WhyResponse, error)
	Replay(ctx context.Context, q *gemelv1.ReplayRequest) (*gemelv1.ReplayResponse, error)
	// Evidence returns what was kept under ref, which it must treat as hostile.
	Evidence(ctx context.Context, ref string) ([]byte, error)
}

// life ends or replaces Gemel. Each returns when the end has begun, so that the
// answer still reaches the caller.
type life interface {
	Detach(ctx context.Context) error
	// Upgrade takes an absolute path, or an empty one for the present binary, and
	// returns the versions.
	Upgrade(ctx context.Context, binary string) (from, to string, err error)
	Shutdown(ctx context.Context, why string) error
}
