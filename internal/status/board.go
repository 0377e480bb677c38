package status

import "sync"

// A Board holds the last published Snapshot. The zero value is ready.
type Board struct {
	mu      sync.Mutex
	last    *Snapshot
	changed chan struct{} // closed at the next publication
}

// Publish makes s the present picture and wakes those who wait.
func (b *Board) Publish(s *Snapshot) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last = s
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

// Last returns the present picture, nil before the first, and a channel that is
// closed when a newer one is published.
func (b *Board) Last() (*Snapshot, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed == nil {
		b.changed = make(chan struct{})
	}
	return b.last, b.changed
}
