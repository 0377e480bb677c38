package daemon

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
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
// where every node takes it.
func (c core) Apply(ctx context.Context, name string, b []byte, dry bool) ([]config.Change, error) {
	if c.m == nil || dry {
		return c.Engine.Apply(ctx, name, b, dry)
	}
	// What this node cannot run, no node is given.
	changes, err := c.Engine.Apply(ctx, name, b, true)
	if err != nil {
		return nil, err
	}
	if err := (sharing{c.m}).publish(ctx, name, b); err != nil {
		return nil, err
	}
	if _, err := c.Engine.Apply(ctx, name, b, false); err != nil {
		return nil, err
	}
	return changes, nil
}

// Current is what is in force, with the cluster's number of it.
func (c core) Current() (name string, b []byte, version uint64) {
	name, b, version = c.Engine.Current()
	if c.m != nil {
		if v := c.m.took.version.Load(); v != 0 {
			version = v
		}
	}
	return name, b, version
}

// sharing keeps the manifest of a cluster in its store.
type sharing struct{ m *member }

// publish makes a manifest the cluster's.
func (o sharing) publish(ctx context.Context, name string, b []byte) error {
	m := o.m
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	var err error
	for range wishRepeat {
		var now store.Doc
		if now, err = m.client.Doc(ctx, manifestNow); err != nil {
			break
		}
		if err = o.put(ctx, now, inStore{Name: name, At: time.Now().UTC()}, b); err == nil || !errors.Is(err, store.ErrRefused) {
			break
		}
	}
	if err == nil {
		return nil
	}
	return &ha.Error{Kind: ha.ErrUnavailable, Reason: "store", Hint: "nothing was changed; gemel status shows which voters are missing",
		Err: fmt.Errorf("the cluster's store did not take the manifest: %w", err)}
}

// put writes the version that follows the one in force.
func (o sharing) put(ctx context.Context, now store.Doc, next inStore, b []byte) error {
	m := o.m
	var last inStore
	if now.Value != nil {
		if err := json.Unmarshal(now.Value, &last); err != nil {
			return fmt.Errorf("reading which manifest is in force: %w", err)
		}
	}
	next.Version = last.Version + 1
	head, err := json.Marshal(next)
	if err != nil {
		return err
	}
	docs := []store.Doc{{Key: manifestNow, Rev: now.Rev, Value: head}, {Key: versionKey(next.Version), Value: b}, {Key: toldKey(next.Version), Value: head}}
	if next.Version > manifestKept {
		for _, key := range []string{versionKey(next.Version - manifestKept), toldKey(next.Version - manifestKept)} {
			old, err := m.client.Doc(ctx, key)
			if err != nil {
				return err
			}
			if old.Rev != 0 {
				docs = append(docs, store.Doc{Key: old.Key, Rev: old.Rev})
			}
		}
	}
	if _, err = m.client.PutDocs(ctx, docs...); err == nil {
		m.took.version.Store(next.Version)
	}
	return err
}

func versionKey(v uint64) string { return manifestEach + strconv.FormatUint(v, 10) }

func toldKey(v uint64) string { return manifestTold + strconv.FormatUint(v, 10) }

// Versions are those that the store keeps, oldest first.
func (o sharing) Versions(ctx context.Context) ([]rpc.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	docs, _, err := o.m.client.Docs(ctx, manifestTold)
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
func (o sharing) Version(ctx context.Context, v uint64) (name string, b []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, wishBound)
	defer cancel()
	doc, err := o.m.client.Doc(ctx, versionKey(v))
	if err != nil {
		return "", nil, unread(err)
	}
	if doc.Rev == 0 {
		return "", nil, &ha.Error{Kind: ha.ErrNotFound, Reason: "version", Hint: "gemel manifest --versions lists them",
			Err: fmt.Errorf("the cluster keeps no version %d of its manifest: it keeps the last %d", v, manifestKept)}
	}
	told, err := o.m.client.Doc(ctx, toldKey(v))
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
func (o sharing) take(ctx context.Context) error {
	m := o.m
	ctx, cancel := context.WithTimeout(ctx, applyBound)
	defer cancel()
	now, err := m.client.Doc(ctx, manifestNow)
	if err != nil {
		return nil // the store is away; this is asked for again
	}
	name, have, _ := m.h.engine.Current()
	if now.Rev == 0 {
		if m.o.Identity.Witness {
			return nil
		}
		err := o.put(ctx, now, inStore{Name: name, At: time.Now().UTC()}, have)
		if errors.Is(err, store.ErrRefused) {
			return nil // another node was first: its one is taken at the next look
		}
		return err
	}
	if now.Rev == m.took.rev {
		return nil
	}
	var head inStore
	if err := json.Unmarshal(now.Value, &head); err != nil {
		return fmt.Errorf("reading which manifest is in force in the cluster: %w", err)
	}
	doc, err := m.client.Doc(ctx, versionKey(head.Version))
	if err != nil {
		return nil
	}
	if !bytes.Equal(doc.Value, have) {
		if _, err := m.h.engine.Apply(ctx, head.Name, doc.Value, false); err != nil {
			return fmt.Errorf("version %d of the cluster's manifest: %w", head.Version, err)
		}
	}
	m.took.rev = now.Rev
	m.took.version.Store(head.Version)
	return nil
}
