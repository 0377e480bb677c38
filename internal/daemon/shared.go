package daemon

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"gemel/internal/config"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/rpc"
	"gemel/internal/store"
)

// The manifest of a cluster is in its store: one document that says what is in force,
// and one for each version, so that those before can be brought back.
const (
	manifestNow  = "manifest/now"
	manifestEach = "manifest/version/"
	manifestTold = "manifest/about/" // of each version what manifestNow says of the last
	manifestKept = 20                // versions
	applyBound   = 30 * time.Second
)

// inStore is what is in force in the cluster.
type inStore struct {
	Version uint64    `json:"version"`
	Name    string    `json:"name"` // where it was read from
	By      string    `json:"by,omitempty"`
	At      time.Time `json:"at"`
}

// core is the engine with a manifest that is the whole cluster's.
type core struct {
	*engine.Engine
	m *member
}

// Apply puts a manifest into force: on a node of a cluster in the store first, from
// where every node takes it. It returns the number that it has there.
func (c core) Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, uint64, error) {
	// What this node cannot run, no node is given.
	changes, err := c.Engine.Apply(ctx, name, b, dry || c.m != nil)
	if err == nil && c.m != nil && !dry {
		version, err := c.m.shared.apply(ctx, name, b)
		return changes, version, err
	}
	_, _, version := c.Current()
	return changes, version, err
}

// Current is what is in force, with the cluster's number of it: zero while that is not
// known here, as before the store answered for the first time.
func (c core) Current() (name string, b []byte, version uint64) {
	name, b, version = c.Engine.Current()
	if c.m != nil {
		version = c.m.shared.number(b)
	}
	return name, b, version
}

// sharing keeps the manifest of a cluster in its store, and puts it into force here.
//
// Whoever does the latter, one who applies or one who saw the store change, holds turn,
// and never replaces a manifest by one that the store had before it: of two who
// apply on two nodes the later one wins everywhere.
type sharing struct {
	store  documents
	engine forced // set before anything runs
	gives  bool   // a cluster that has no manifest yet is given ours

	turn chan struct{} // has room for one

	mu        sync.Mutex // held by who changes these, who holds turn as well
	now, next numbered   // in force here, and about to be
}

// documents are what the store has.
type documents interface {
	Doc(ctx context.Context, key string) (store.Doc, error)
	Docs(ctx context.Context, prefix string) ([]store.Doc, ha.Rev, error)
	PutDocs(ctx context.Context, docs ...store.Doc) (ha.Rev, error)
}

// forced is what has a manifest in force.
type forced interface {
	Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, error)
	Current() (name string, b []byte, version uint64)
}

// numbered is a manifest by its content, and its number in the cluster.
type numbered struct {
	rev     ha.Rev
	version uint64
	sum     [sha256.Size]byte
}

func newSharing(s documents, gives bool) *sharing {
	return &sharing{store: s, gives: gives, turn: make(chan struct{}, 1)}
}

// number is the cluster's number of what is in force here; zero: it is not known.
func (o *sharing) number(b []byte) uint64 {
	sum := sha256.Sum256(b)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range []numbered{o.now, o.next} {
		if n.version != 0 && n.sum == sum {
			return n.version
		}
	}
	return 0
}

// has reports whether what the store had at a revision, or later, is in force here.
func (o *sharing) has(rev ha.Rev) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return rev <= o.now.rev
}

func (o *sharing) note(now, next numbered) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now, o.next = now, next
}

// force puts a version into force here, unless that or a later one is already.
func (o *sharing) force(ctx context.Context, rev ha.Rev, version uint64, name string, b []byte) error {
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if o.has(rev) {
		return nil
	}
	to := numbered{rev, version, sha256.Sum256(b)}
	if _, have, _ := o.engine.Current(); !bytes.Equal(b, have) {
		o.note(o.now, to) // only who holds turn writes it
		if _, err := o.engine.Apply(ctx, name, b, false); err != nil {
			o.note(o.now, numbered{})
			return err
		}
	}
	o.note(to, numbered{})
	return nil
}

// apply makes a manifest the cluster's and puts it into force here. It returns its number.
func (o *sharing) apply(ctx context.Context, name string, b []byte) (uint64, error) {
	rev, version, err := o.publish(ctx, name, b)
	if err != nil {
		return 0, err
	}
	// It is the cluster's, whether the one who asked still waits or not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyBound)
	defer cancel()
	if err := o.force(ctx, rev, version, name, b); err != nil {
		return 0, &ha.Error{Kind: ha.ErrUnavailable, Reason: "not-here", Hint: "this node tries again by itself; gemel events says why it cannot",
			Err: fmt.Errorf("it is in force in the cluster as version %d, but not on this node: %w", version, err)}
	}
	return version, nil
}

// publish makes a manifest the cluster's, if it is not already.
func (o *sharing) publish(ctx context.Context, name string, b []byte) (ha.Rev, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	var err error
	for range wishRepeat {
		var now store.Doc
		if now, err = o.store.Doc(ctx, manifestNow); err != nil {
			break
		}
		var last inStore
		if last, err = headOf(now); err != nil {
			break
		}
		if last.Version != 0 {
			var old store.Doc
			if old, err = o.store.Doc(ctx, versionKey(last.Version)); err != nil {
				break
			}
			if old.Rev != 0 && bytes.Equal(old.Value, b) {
				return now.Rev, last.Version, nil
			}
		}
		var rev ha.Rev
		if rev, err = o.put(ctx, now, inStore{Version: last.Version + 1, Name: name, At: time.Now().UTC()}, b); err == nil {
			return rev, last.Version + 1, nil
		}
		if !errors.Is(err, store.ErrRefused) {
			break
		}
	}
	if errors.Is(err, store.ErrUnknown) {
		return 0, 0, &ha.Error{Kind: ha.ErrUnavailable, Reason: "unknown", Hint: "gemel manifest --versions says whether it is in force; apply it again if not",
			Err: fmt.Errorf("whether the cluster's store took the manifest is not known: %w", err)}
	}
	return 0, 0, &ha.Error{Kind: ha.ErrUnavailable, Reason: "store", Hint: "nothing was changed; gemel status shows which voters are missing",
		Err: fmt.Errorf("the cluster's store did not take the manifest: %w", err)}
}

// headOf is what is in force in the cluster; its zero: nothing yet.
func headOf(now store.Doc) (inStore, error) {
	var head inStore
	if now.Value != nil {
		if err := json.Unmarshal(now.Value, &head); err != nil {
			return head, fmt.Errorf("reading which manifest is in force in the cluster: %w", err)
		}
	}
	return head, nil
}

// put writes the version that follows the one in force, now.
func (o *sharing) put(ctx context.Context, now store.Doc, next inStore, b []byte) (ha.Rev, error) {
	head, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	docs := []store.Doc{{Key: manifestNow, Rev: now.Rev, Value: head}, {Key: versionKey(next.Version), Value: b}, {Key: toldKey(next.Version), Value: head}}
	if next.Version > manifestKept {
		for _, key := range []string{versionKey(next.Version - manifestKept), toldKey(next.Version - manifestKept)} {
			old, err := o.store.Doc(ctx, key)
			if err != nil {
				return 0, err
			}
			if old.Rev != 0 {
				docs = append(docs, store.Doc{Key: old.Key, Rev: old.Rev})
			}
		}
	}
	return o.store.PutDocs(ctx, docs...)
}

func versionKey(v uint64) string { return manifestEach + strconv.FormatUint(v, 10) }

func toldKey(v uint64) string { return manifestTold + strconv.FormatUint(v, 10) }

// Versions are those that the store keeps, oldest first.
func (o *sharing) Versions(ctx context.Context) ([]rpc.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	docs, _, err := o.store.Docs(ctx, manifestTold)
	if err != nil {
		return nil, unread(err)
	}
	var all []rpc.Version
	for _, d := range docs {
		var about inStore
		if json.Unmarshal(d.Value, &about) == nil {
			all = append(all, rpc.Version{Number: about.Version, Name: about.Name, By: about.By, At: about.At})
		}
	}
	slices.SortFunc(all, func(a, b rpc.Version) int { return cmp.Compare(a.Number, b.Number) })
	return all, nil
}

// Version is one of them, byte for byte.
func (o *sharing) Version(ctx context.Context, v uint64) (name string, b []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	doc, err := o.store.Doc(ctx, versionKey(v))
	if err != nil {
		return "", nil, unread(err)
	}
	if doc.Rev == 0 {
		return "", nil, &ha.Error{Kind: ha.ErrNotFound, Reason: "version", Hint: "gemel manifest --versions lists them",
			Err: fmt.Errorf("the cluster keeps no version %d of its manifest: it keeps the last %d", v, manifestKept)}
	}
	told, err := o.store.Doc(ctx, toldKey(v))
	var about inStore
	if err != nil || json.Unmarshal(told.Value, &about) != nil {
		about.Name = "version " + strconv.FormatUint(v, 10)
	}
	return about.Name, doc.Value, nil
}

func unread(err error) error {
	return &ha.Error{Kind: ha.ErrUnavailable, Reason: "store", Hint: "gemel status shows which voters are missing", Err: err}
}

// take puts the cluster's manifest into force here, if another one is. The first node
// of a cluster that has none yet gives its own.
func (o *sharing) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, applyBound)
	defer cancel()
	now, err := o.store.Doc(ctx, manifestNow)
	if err != nil {
		return nil // the store is away; this is asked for again
	}
	if now.Rev == 0 {
		if !o.gives {
			return nil
		}
		name, have, _ := o.engine.Current()
		_, err := o.put(ctx, now, inStore{Version: 1, Name: name, At: time.Now().UTC()}, have)
		if errors.Is(err, store.ErrRefused) {
			return nil // another node was first: its one is taken at the next look
		}
		return err
	}
	if o.has(now.Rev) {
		return nil
	}
	head, err := headOf(now)
	if err != nil {
		return err
	}
	doc, err := o.store.Doc(ctx, versionKey(head.Version))
	if err != nil || doc.Rev == 0 {
		return nil // many others came meanwhile, which is a change to look at
	}
	if err := o.force(ctx, now.Rev, head.Version, head.Name, doc.Value); err != nil {
		return fmt.Errorf("version %d of the cluster's manifest: %w", head.Version, err)
	}
	return nil
}
