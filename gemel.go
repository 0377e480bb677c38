// Package gemel is what a program uses that runs under Gemel: it says that it is
// ready, that it ends, and, thread by thread, that it is well.
//
//	beat := gemel.Thread("worker")
//	defer beat.Done()
//	for job := range jobs {
//		beat.Beat()
//		work(job)
//	}
//
// Everything here is safe and does nothing when the program was not started by
// Gemel, so that the same program runs by hand, in a test and under another
// supervisor. The package needs nothing but the standard library.
package gemel

import (
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// A Beat is the sign of life of one thread or goroutine. Make it with Thread.
// The zero Beat, and a nil one, are safe to use and are heard by nobody.
type Beat struct {
	slot atomic.Pointer[slot]
	page *page // nil if nobody listens
}

// Thread claims a place on the beat page for the calling thread or goroutine and
// beats once. Name is for people: it stands in the fault when this thread hangs;
// it is cut to 32 bytes. From now on the thread is missed, and the program is
// recovered, if it is silent for longer than the manifest's watchdog allows;
// call Done before the thread ends on purpose.
//
// Claiming takes some microseconds: claim once for each thread, not for each
// piece of work. A page has 16,384 places; the Beat of a thread beyond them, or
// of a program without a page, is heard by nobody (see Watched).
func Thread(name string) *Beat { return beats().thread(name) }

// Beat says that the thread is well: one store into a cache line of its own, no
// system call, no lock, some nanoseconds. Only the thread that the Beat was made
// for may call it.
//
// The store is a plain aligned one of eight bytes, which is whole on every 64-bit
// machine; its only reader is another process. One of sync/atomic would be ordered
// as well, which nobody needs here, and costs five times as much. The function is
// not inlined, so that no compiler may keep the store for later.
//
//go:noinline
func (b *Beat) Beat() {
	if b == nil {
		return
	}
	if s := b.slot.Load(); s != nil {
		s.counter++
	}
}

// Done gives the place back: a thread that ended on purpose is not missed. Beats
// after it are heard by nobody.
func (b *Beat) Done() {
	if b == nil {
		return
	}
	if s := b.slot.Swap(nil); s != nil {
		b.page.release(s)
	}
}

// Watched reports whether the beats are heard: whether there is a beat page, it
// had a free place, and Done was not called.
func (b *Beat) Watched() bool { return b != nil && b.slot.Load() != nil }

// Ready says that the program can be used now (READY=1). What needs it is started
// from then on, and its ramp-up ends. No error if nobody listens.
func Ready() error { return notify("READY=1") }

// Stopping says that the program is about to end on purpose (STOPPING=1).
func Stopping() error { return notify("STOPPING=1") }

// Status tells in one line, for people, what the program does; `gemel status`
// shows it. Line breaks become spaces, and it is cut to 512 bytes.
func Status(text string) error { return notify("STATUS=" + cut(oneLine(text), 512)) }

// Start returns the number of this start of the program, which grows with each
// start and is never given twice. It is zero when not run under Gemel.
func Start() uint64 {
	n, err := strconv.ParseUint(os.Getenv("GEMEL_START"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Silence returns how long the program may be silent before it is a fault
// (WATCHDOG_USEC), or zero if there is no watchdog. Beat at least twice as often.
func Silence() time.Duration {
	n, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || n <= 0 || n > int64(1<<63-1)/1000 {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}
