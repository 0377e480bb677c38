package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"gemel/internal/ha"
)

const (
	syncWithin = 500 * time.Millisecond // of a write, by Run
	retryAfter = time.Second            // between attempts while the disk refuses
	maxHeld    = 4 << 20                // bytes of records kept while they are not on the disk
	maxQuiet   = 256                    // ticks without actions remembered between records
)

// A Journal is written by one process. Its methods may be called at once from
// several goroutines.
type Journal struct {
	lock *os.File
	wake chan struct{} // to Run: something is to be synced

	// syncing is held over each fsync, and taken before mu: of two fsyncs of one
	// file at once only one is told of an error.
	syncing sync.Mutex

	mu     sync.Mutex
	o      Options
	asked  int64 // o.Segment as it was given
	mem    *memory
	seq    uint64    // of the last record
	cur    writing   // the segment that is being written
	old    []segment // those before it, oldest first
	held   backlog
	quiet  []ha.Instant
	health health
	closed bool
}

// health is whether the disk takes writes.
type health struct {
	trouble error      // nil: it does
	retry   ha.Instant // while there is trouble: not tried again before
}

// bad notes that it does not.
func (h *health) bad(o *Options, err error, at ha.Instant) {
	first := h.trouble == nil
	h.trouble, h.retry = err, at.Add(retryAfter)
	if !first {
		return
	}
	o.Log.Error("the journal cannot be written; what is decided is kept in memory", "error", err)
	if o.Trouble != nil {
		o.Trouble(err)
	}
}

// good notes that it does.
func (h *health) good(o *Options) {
	if h.trouble == nil {
		return
	}
	h.trouble = nil
	o.Log.Info("the journal can be written again")
	if o.Trouble != nil {
		o.Trouble(nil)
	}
}

// writing is a segment that is being written. A nil file means that there is none.
type writing struct {
	file
	path  string
	first uint64
	off   int64
	base  int64 // bytes of its header and base record; they do not count for its size
	fresh bool  // the directory was not synced since it was made
}

// backlog is what is not known to be on the disk.
type backlog struct {
	unsynced []byte // frames written since the last fsync of the segment
	pending  []byte // frames that could not be written
	lost     uint64 // records after those that found no room here
}

// hold keeps a record that could not be written, as long as there is room, and
// numbers it after seq.
func (b *backlog) hold(seq *uint64, payload []byte) {
	if b.lost > 0 || len(b.pending)+len(payload)+frameSize > maxHeld {
		b.lost++
		return
	}
	*seq++
	b.pending = appendFrame(b.pending, *seq, payload)
}

// append writes frames to the segment: all of them or, as far as a reader
// can tell, none.
func (w *writing) append(b []byte, held *backlog) error {
	if _, err := w.WriteAt(b, w.off); err != nil {
		if terr := w.Truncate(w.off); terr != nil {
			err = errors.Join(err, terr)
		}
		return fmt.Errorf("writing the journal: %w", err)
	}
	w.off += int64(len(b))
	held.unsynced = append(held.unsynced, b...)
	return nil
}

// Step records one turn of the core. It returns when the record is written, and
// if s.Sync, when it is on the disk. After an error the record may be missing
// for good; what it says is remembered all the same, and the caller goes on.
// A Tick that led to nothing is not a record of its own; its answer is Trouble's,
// so that it is no news of a disk that is full.
func (j *Journal) Step(s Step) error {
	j.mu.Lock()
	if _, tick := s.Input.(ha.Tick); tick && len(s.Actions) == 0 {
		if len(j.quiet) < maxQuiet {
			j.quiet = append(j.quiet, s.At)
		}
		err := j.health.trouble
		j.mu.Unlock()
		return err
	}
	p, err := encodeStep(s, j.quiet)
	if err != nil {
		j.mu.Unlock()
		return fmt.Errorf("recording a step: %w", err)
	}
	j.quiet = j.quiet[:0]
	j.mem.step(s.Input, s.Actions)
	return j.record(p, s.At, s.Wall, s.Sync)
}

// Manifest records the bytes of a manifest that is in force from now on. It
// returns when they are on the disk.
func (j *Journal) Manifest(version uint64, name string, b []byte) error {
	j.mu.Lock()
	j.mem.manifest, j.mem.name, j.mem.version = b, name, version
	at, wall := j.o.Now()
	p, err := json.Marshal(wire{Kind: KindManifest, At: at, Wall: nanos(wall), Version: version, Name: name, Bytes: b})
	if err != nil {
		j.mu.Unlock()
		return fmt.Errorf("recording a manifest: %w", err)
	}
	return j.record(p, at, wall, true)
}

// Boot opens a life of the monitor: its first record. What l leaves out of the
// time, the boot id and the first start id is filled in.
func (j *Journal) Boot(l Life) error {
	j.mu.Lock()
	if l.Wall.IsZero() {
		l.At, l.Wall = j.o.Now()
	}
	if l.Boot == "" {
		l.Boot = j.o.Boot
	}
	if l.First == 0 {
		l.First = j.mem.nextStart
	}
	j.mem.boot = l.Boot
	p, err := json.Marshal(wire{Kind: KindBoot, At: l.At, Wall: nanos(l.Wall),
		Life: &wireLife{l.Boot, l.Version, l.PID, l.First}})
	if err != nil {
		j.mu.Unlock()
		return fmt.Errorf("recording a life: %w", err)
	}
	return j.record(p, l.At, l.Wall, false)
}

// record writes one payload. It is called with mu held and gives it back.
func (j *Journal) record(payload []byte, at ha.Instant, wall time.Time, synced bool) error {
	err := j.put(payload, at, wall)
	synced = synced || len(j.held.unsynced) > maxHeld || j.cur.off-j.cur.base > j.o.Segment+j.o.Segment/4
	j.mu.Unlock()
	if err == nil && synced {
		return j.Sync()
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return err
}

func (j *Journal) put(payload []byte, at ha.Instant, wall time.Time) error {
	if j.closed {
		return errors.New("the journal is closed")
	}
	if len(payload) > maxRecord {
		return fmt.Errorf("a record of %d bytes is larger than %d", len(payload), maxRecord)
	}
	j.mem.lastAt, j.mem.lastWall, j.mem.ended = at, wall, false
	if err := j.catchUp(at, wall, false); err != nil {
		j.held.hold(&j.seq, payload)
		return err
	}
	b := appendFrame(nil, j.seq+1, payload)
	if err := j.cur.append(b, &j.held); err != nil {
		j.held.hold(&j.seq, payload)
		return j.failed(err, at, wall)
	}
	j.seq++
	return nil
}

// catchUp writes what is pending, in a new segment if there is none. While there
// is trouble it tries only once in a while, unless now is set.
func (j *Journal) catchUp(at ha.Instant, wall time.Time, now bool) error {
	if j.cur.file != nil && len(j.held.pending) == 0 && j.held.lost == 0 {
		return nil
	}
	if j.health.trouble != nil && at < j.health.retry && !now {
		return j.health.trouble
	}
	if j.cur.file == nil {
		if err := j.begin(at, wall); err != nil {
			j.health.bad(&j.o, err, at)
			return err
		}
	}
	if err := j.drain(at, wall); err != nil {
		return j.failed(err, at, wall)
	}
	j.health.good(&j.o)
	return nil
}

// drain writes what is pending and says what is missing.
func (j *Journal) drain(at ha.Instant, wall time.Time) error {
	if len(j.held.pending) > 0 {
		if err := j.cur.append(j.held.pending, &j.held); err != nil {
			return err
		}
		j.held.pending = nil
	}
	if j.held.lost > 0 {
		p, err := json.Marshal(wire{Kind: KindGap, At: at, Wall: nanos(wall), Lost: j.held.lost,
			Note: fmt.Sprintf("%d records could not be written: %v", j.held.lost, j.health.trouble)})
		if err != nil {
			return err
		}
		if err := j.cur.append(appendFrame(nil, j.seq+1, p), &j.held); err != nil {
			return err
		}
		j.seq++
		j.held.lost = 0
	}
	return nil
}

// failed follows a failed write. A full disk is waited for; after any other error
// the file is not trusted any more.
func (j *Journal) failed(err error, at ha.Instant, wall time.Time) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		j.health.bad(&j.o, err, at)
		return err
	}
	return j.giveUp(err, at, wall)
}

// giveUp abandons the segment and writes all that is not known to be safe to a
// new one. It returns nil if that worked.
func (j *Journal) giveUp(cause error, at ha.Instant, wall time.Time) error {
	j.o.Log.Error("a segment of the journal is given up", "path", j.cur.path, "error", cause)
	j.cur.Close() // its errors tell nothing that cause does not
	j.old = append(j.old, segment{j.cur.first, j.cur.path, j.cur.off})
	j.cur = writing{}
	j.held.pending = append(j.held.unsynced, j.held.pending...)
	j.held.unsynced = nil
	err := j.begin(at, wall)
	if err == nil {
		if err = j.drain(at, wall); err == nil {
			j.health.good(&j.o)
			return nil
		}
	}
	err = errors.Join(cause, err)
	j.health.bad(&j.o, err, at)
	return err
}

// begin makes a new segment with its base record and goes on in it.
func (j *Journal) begin(at ha.Instant, wall time.Time) error {
	p, err := json.Marshal(wire{Kind: KindBase, At: at, Wall: nanos(wall), Base: j.mem.toWire()})
	if err != nil {
		return fmt.Errorf("recording the state: %w", err)
	}
	seq, path, f, err := create(j.o.disk, j.o.Dir, j.seq+1)
	if err != nil {
		return fmt.Errorf("beginning a segment of the journal: %w", err)
	}
	b := appendFrame(segmentHeader(seq), seq, p)
	if _, err := f.WriteAt(b, 0); err != nil {
		return errors.Join(fmt.Errorf("beginning a segment of the journal: %w", err), f.Close(), j.o.disk.Remove(path))
	}
	if j.cur.file != nil {
		if err := j.cur.Close(); err != nil {
			j.o.Log.Warn("closing a segment of the journal", "path", j.cur.path, "error", err)
		}
		j.old = append(j.old, segment{j.cur.first, j.cur.path, j.cur.off})
	}
	j.cur = writing{file: f, path: path, first: seq, off: int64(len(b)), base: int64(len(b)), fresh: true}
	j.seq = seq
	return nil
}

// Bound sets the size bound, as a manifest says; zero is the default.
func (j *Journal) Bound(limit int64) {
	j.mu.Lock()
	j.o.Limit, j.o.Segment = limit, j.asked
	j.o.defaults()
	j.mu.Unlock()
}

// Trouble returns why the journal cannot be written now; nil if it can.
func (j *Journal) Trouble() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.health.trouble
}

// Run syncs what was written within a second, keeps the size bound and tries
// again while the disk refuses. It ends with ctx.
func (j *Journal) Run(ctx context.Context) error {
	t := time.NewTimer(syncWithin)
	t.Stop()
	defer t.Stop()
	for armed := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-j.wake:
			if !armed {
				armed = true
				t.Reset(syncWithin)
			}
		case <-t.C:
			armed = false
			if err := j.Sync(); err != nil {
				armed = true
				t.Reset(retryAfter)
			}
		}
	}
}

// Close ends the journal in order and gives its lock back.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	at, wall := j.o.Now()
	p, err := json.Marshal(wire{Kind: kindEnd, At: at, Wall: nanos(wall)})
	if err == nil {
		err = j.put(p, at, wall)
		j.mem.ended = err == nil
	}
	j.mu.Unlock()
	if err == nil {
		err = j.Sync()
	}
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	if j.cur.file != nil {
		err = errors.Join(err, j.cur.Close())
		j.cur = writing{}
	}
	return errors.Join(err, j.lock.Close())
}
