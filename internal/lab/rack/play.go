package rack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// A page of beats is words: who beats, and in which spans. It is mapped by the
// program alone, into a file of the machine that all nodes share, so that no fault of
// a network touches it; the oracle reads it at any time, also after the program's
// death.
const (
	pageMagic = 0x67656d656c6c6162
	pageWords = 8192
	pageSpans = (pageWords - wordSpans) / 2

	wordMagic = iota - 3
	wordNode  // the inode of the network namespace: nobody tells it, so nobody is wrong
	wordEra
	wordCounter
	wordCount
	wordSpans
)

// rest is how long a program that runs may go without a beat on a loaded machine. After
// more it did not run, and what it does next is a span of its own.
const rest = 50 * time.Millisecond

// port of the service.
const port = 7077

// Play is the exclusive program of a rack's group. It notes each millisecond that it
// is active, and answers datagrams at the service address with who it is. The
// arguments are those that the rack's manifest ends with: the directory for the
// beats, and the address.
func Play(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("the program of a rack takes a directory and an address, not %q", args)
	}
	at, err := netip.ParseAddr(args[1])
	if err != nil {
		return fmt.Errorf("the program of a rack: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return fmt.Errorf("looking where this program runs: %w", err)
	}
	fence, err := parseFence(os.Getenv("GEMEL_FENCE"))
	if err != nil {
		return err
	}
	p, err := newPage(args[0], st.Ino, fence)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- answer(at, st.Ino, fence) }()
	tick := time.NewTicker(time.Millisecond)
	for {
		p.beat(clock.Now())
		select {
		case err := <-failed:
			return err
		case <-tick.C:
		}
	}
}

func parseFence(s string) (ha.Fence, error) {
	era, counter, ok := strings.Cut(s, ".")
	e, err := strconv.ParseUint(era, 10, 64)
	c, err2 := strconv.ParseUint(counter, 10, 64)
	if !ok || err != nil || err2 != nil || c == 0 {
		return ha.Fence{}, fmt.Errorf("GEMEL_FENCE is %q: the program of a group must be told its fence", s)
	}
	return ha.Fence{Era: e, Counter: c}, nil
}

// page is the writing end.
type page struct{ words *[pageWords]uint64 }

// newPage makes the page of this process. It has its name only when it is whole.
func newPage(dir string, node uint64, f ha.Fence) (page, error) {
	began, err := startTime(os.Getpid())
	if err != nil {
		return page{}, err
	}
	name := filepath.Join(dir, fmt.Sprintf("%d-%s", os.Getpid(), began))
	file, err := os.OpenFile(name+".new", os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return page{}, fmt.Errorf("making a page of beats: %w", err)
	}
	defer file.Close()
	if err := file.Truncate(pageWords * 8); err != nil {
		return page{}, fmt.Errorf("making a page of beats: %w", err)
	}
	b, err := unix.Mmap(int(file.Fd()), 0, pageWords*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return page{}, fmt.Errorf("mapping a page of beats: %w", err)
	}
	p := page{(*[pageWords]uint64)(unsafe.Pointer(unsafe.SliceData(b)))}
	p.words[wordMagic], p.words[wordNode], p.words[wordEra], p.words[wordCounter] = pageMagic, node, f.Era, f.Counter
	p.beat(clock.Now())
	if err := os.Rename(name+".new", name); err != nil {
		return page{}, fmt.Errorf("naming a page of beats: %w", err)
	}
	return p, nil
}

// beat notes that the program is active now.
func (p page) beat(now ha.Instant) {
	n := atomic.LoadUint64(&p.words[wordCount])
	if n > 0 {
		end := &p.words[wordSpans+2*(n-1)+1]
		if now.Sub(ha.Instant(atomic.LoadUint64(end))) <= rest || n == pageSpans {
			atomic.StoreUint64(end, uint64(now))
			return
		}
	}
	p.words[wordSpans+2*n], p.words[wordSpans+2*n+1] = uint64(now), uint64(now)
	atomic.StoreUint64(&p.words[wordCount], n+1)
}

// reply is what the program answers: number of the question, who, fence, when.
const replySize = 5 * 8

// answer answers questions, 8 bytes each, until that fails.
func answer(at netip.Addr, node uint64, f ha.Fence) error {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if at.Is4() {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1)
			} else {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
		return errors.Join(err, failed)
	}}
	c, err := lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(at, port).String())
	if err != nil {
		return fmt.Errorf("listening at the service address: %w", err)
	}
	u := c.(*net.UDPConn)
	b := make([]byte, replySize)
	for {
		n, from, err := u.ReadFromUDPAddrPort(b)
		if err != nil {
			return fmt.Errorf("waiting for questions: %w", err)
		}
		if n != 8 {
			continue
		}
		for i, w := range []uint64{node, f.Era, f.Counter, uint64(clock.Now())} {
			binary.BigEndian.PutUint64(b[8*(i+1):], w)
		}
		// Not there any more, no way there: who asked will ask again.
		_, _ = u.WriteToUDPAddrPort(b, from)
	}
}
