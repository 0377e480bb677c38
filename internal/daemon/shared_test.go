package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/store"
)

// shelf is a store of documents, as etcd keeps them.
type shelf struct {
	mu   sync.Mutex
	rev  ha.Rev
	docs map[string]store.Doc
	err  error // of the next write
	lost bool  // the next write is done, and its answer is lost
}

func (s *shelf) Doc(_ context.Context, key string) (store.Doc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.docs[key]
	d.Key = key
	return d, nil
}

func (s *shelf) Docs(_ context.Context, prefix string) ([]store.Doc, ha.Rev, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []store.Doc
	for key, d := range s.docs {
		if strings.HasPrefix(key, prefix) {
			all = append(all, d)
		}
	}
	return all, s.rev, nil
}

func (s *shelf) PutDocs(_ context.Context, docs ...store.Doc) (ha.Rev, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	for _, d := range docs {
		if s.docs[d.Key].Rev != d.Rev {
			return 0, store.ErrRefused
		}
	}
	s.rev++
	for _, d := range docs {
		if d.Rev = s.rev; d.Value == nil {
			delete(s.docs, d.Key)
			continue
		}
		s.docs[d.Key] = d
	}
	if s.lost {
		s.lost = false
		return 0, store.ErrUnknown
	}
	return s.rev, nil
}

// one is what one node has in force.
type one struct {
	mu     sync.Mutex
	name   string
	b      []byte
	err    error
	before func(name string) // called before a manifest is put into force
}

func (f *one) Current() (string, []byte, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.name, f.b, 1000
}

func (f *one) Apply(ctx context.Context, name string, b []byte, _ bool) ([]config.Change, error) {
	if f.before != nil {
		f.before(name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := errors.Join(f.err, ctx.Err()); err != nil {
		return nil, err
	}
	f.name, f.b = name, b
	return nil, nil
}

// pair is two nodes of one cluster.
func pair(t *testing.T) (s *shelf, a, b *sharing) {
	t.Helper()
	s = &shelf{docs: map[string]store.Doc{}}
	a, b = newSharing(s, true), newSharing(s, true)
	for _, o := range []*sharing{a, b} {
		o.engine = &one{name: "begin", b: []byte("begin")}
		for range 2 { // the first look gives it, or finds it given
			if err := o.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s, a, b
}

// has says what a node has in force, and under which number.
func has(t *testing.T, o *sharing, version uint64, name string) {
	t.Helper()
	n, b, _ := o.engine.Current()
	if v := o.number(b); n != name || v != version {
		t.Errorf("%q is in force as version %d; want %q as %d", n, v, name, version)
	}
}

// Of two who apply on two nodes the later one wins on both, also where a node sees the
// other's change before it has put its own into force.
func TestLaterWins(t *testing.T) {
	_, a, b := pair(t)
	has(t, a, 1, "begin")
	// What stands between the store's answer to a and its own engine: b's write, and a's look at it.
	a.store = between{a.store, func() {
		if v, err := b.apply(t.Context(), "y", []byte("y")); v != 3 || err != nil {
			t.Errorf("b: version %d, %v", v, err)
		}
		if err := a.take(t.Context()); err != nil {
			t.Error(err)
		}
	}}
	if v, err := a.apply(t.Context(), "x", []byte("x")); v != 2 || err != nil {
		t.Errorf("a was told version %d, %v; it is 2", v, err)
	}
	has(t, a, 3, "y")
	has(t, b, 3, "y")
}

// between calls f once after a write of the store, before who wrote hears of it.
type between struct {
	documents
	f func()
}

func (w between) PutDocs(ctx context.Context, docs ...store.Doc) (ha.Rev, error) {
	rev, err := w.documents.PutDocs(ctx, docs...)
	w.f()
	return rev, err
}

// A write of which nobody knows whether it happened is not called one that did not; nor
// is one that is in force everywhere but here.
func TestNotChangedIsTrue(t *testing.T) {
	s, a, b := pair(t)
	s.lost = true
	_, err := a.apply(t.Context(), "x", []byte("x"))
	var told *ha.Error
	if !errors.As(err, &told) || told.Reason != "unknown" || strings.Contains(told.Hint, "nothing was changed") {
		t.Errorf("of an unknown outcome: %+v", told)
	}
	if err := b.take(t.Context()); err != nil {
		t.Error(err)
	}
	has(t, b, 2, "x")

	a.engine.(*one).err = &ha.Error{Kind: ha.ErrRefused, Hint: "nothing was changed", Err: errors.New("no room")}
	_, err = a.apply(t.Context(), "y", []byte("y"))
	if !errors.As(err, &told) || told.Reason != "not-here" || strings.Contains(told.Hint, "nothing was changed") {
		t.Errorf("of one that is in the store and not here: %+v", told)
	}
	a.engine.(*one).err = nil
	if err := a.take(t.Context()); err != nil {
		t.Error(err)
	}
	has(t, a, 3, "y")

	if err := untaken(fmt.Errorf("writing: %w", store.ErrUnknown)); !strings.Contains(err.Error(), "not known") {
		t.Errorf("of a wish that may have been taken: %v", err)
	}

	s.err = fmt.Errorf("%w: away", store.ErrRefused)
	if _, err = a.apply(t.Context(), "z", []byte("z")); !errors.As(err, &told) || !strings.Contains(told.Hint, "nothing was changed") {
		t.Errorf("of one that the store did not take: %+v", told)
	}
}

// A node that is behind applies what it still has in force: it is not in force already.
func TestApplyOfOldOne(t *testing.T) {
	_, a, b := pair(t)
	if v, err := b.apply(t.Context(), "y", []byte("y")); v != 2 || err != nil {
		t.Fatal(v, err)
	}
	has(t, a, 1, "begin")
	if v, err := a.apply(t.Context(), "begin", []byte("begin")); v != 3 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	if err := b.take(t.Context()); err != nil {
		t.Error(err)
	}
	has(t, b, 3, "begin")
	if v, err := b.apply(t.Context(), "begin", []byte("begin")); v != 3 || err != nil {
		t.Errorf("the same again: version %d, %v", v, err)
	}
}

// The number that is told of a manifest is its own at each instant, and the cluster's.
func TestNumberOfManifest(t *testing.T) {
	s, a, b := pair(t)
	a.engine.(*one).before = func(string) { has(t, a, 1, "begin") }
	if _, err := b.apply(t.Context(), "y", []byte("y")); err != nil {
		t.Fatal(err)
	}
	if err := a.take(t.Context()); err != nil {
		t.Error(err)
	}
	has(t, a, 2, "y")
	fresh := newSharing(s, true) // a monitor that was started again
	fresh.engine = a.engine
	has(t, fresh, 0, "y")
	a.engine.(*one).before = nil
	if err := fresh.take(t.Context()); err != nil {
		t.Error(err)
	}
	has(t, fresh, 2, "y")
}

// The asker who is gone after the store took it does not keep it from being put into force.
func TestAskerGone(t *testing.T) {
	_, a, _ := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	a.store = between{a.store, cancel}
	if v, err := a.apply(ctx, "x", []byte("x")); v != 2 || err != nil {
		t.Errorf("version %d, %v", v, err)
	}
	has(t, a, 2, "x")
}

// The store keeps the last versions.
func TestKeptVersions(t *testing.T) {
	s, a, _ := pair(t)
	for i := range manifestKept + 5 {
		if _, err := a.apply(t.Context(), "x", []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := a.Versions(t.Context())
	if err != nil || len(all) != manifestKept || all[len(all)-1].Number != manifestKept+6 || len(s.docs) != 2*manifestKept+1 {
		t.Errorf("%d versions, %d documents, %v: %v", len(all), len(s.docs), err, all)
	}
}
