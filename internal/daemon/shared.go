package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gemel/internal/config"
	"gemel/internal/engine"
	"gemel/internal/ha"
	"gemel/internal/store"
)

// The manifest of a cluster is in its store: one document that says what is in force,
// and one for each version, so that those before can be brought back.
const (
	manifestNow  = "manifest/now"
	manifestEach = "manifest/version/"
	manifestKept = 20 // versions
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
	docs := []store.Doc{{Key: manifestNow, Rev: now.Rev, Value: head}, {Key: versionKey(next.Version), Value: b}}
	if next.Version > manifestKept {
		old, err := m.client.Doc(ctx, versionKey(next.Version-manifestKept))
		if err != nil {
			return err
		}
		if old.Rev != 0 {
			docs = append(docs, store.Doc{Key: old.Key, Rev: old.Rev})
		}
	}
	_, err = m.client.PutDocs(ctx, docs...)
	return err
}

func versionKey(v uint64) string { return manifestEach + strconv.FormatUint(v, 10) }

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
	if now.Rev == m.took {
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
	m.took = now.Rev
	return nil
}
