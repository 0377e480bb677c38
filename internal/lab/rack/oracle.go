package rack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// afterPause is for how long a node that was paused may go on with what it did before:
// its programs run again before anybody of it has looked at a clock. Below level 3
// nothing closes that (DESIGN 5.3.9); the oracle tells how long it was, and more is a
// violation.
const afterPause = 250 * time.Millisecond

// A Life is one start of the exclusive program, and the spans in which it was active.
type Life struct {
	Node  ha.Node
	PID   string
	Fence ha.Fence
	Spans []between
}

func (l Life) first() ha.Instant { return l.Spans[0].From }

func (l Life) String() string { return fmt.Sprintf("%s (pid %s, fence %s)", l.Node, l.PID, l.Fence) }

// An Oracle knows who was active when, from what the programs themselves noted and
// from what the kernel says of the service address in each node.
type Oracle struct {
	rack  *Rack
	dir   string
	nodes []lookout
	stop  chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	twice  []twice // the service address, on two nodes at once
	failed error   // of looking at the addresses
	looks  int
}

// lookout is a socket inside of a node that asks its kernel for its addresses.
type lookout struct {
	node *Node
	fd   int
}

// twice is the address on two nodes in one instant.
type twice struct {
	a, b *Node
	in   between
}

// observe begins to look.
func observe(r *Rack) (*Oracle, error) {
	o := &Oracle{rack: r, dir: filepath.Join(r.Dir, "beats"), stop: make(chan struct{})}
	if err := os.Mkdir(o.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the place of the beats: %w", err)
	}
	for _, n := range r.nodes {
		l := lookout{node: n}
		err := n.space.do(func() (err error) {
			l.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
			return err
		})
		if err == nil {
			err = unix.SetsockoptTimeval(l.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
		}
		if err != nil {
			return nil, fmt.Errorf("asking for the addresses of node %s: %w", n.Name, err)
		}
		o.nodes = append(o.nodes, l)
	}
	o.wg.Go(o.look)
	return o, nil
}

func (o *Oracle) close() {
	close(o.stop)
	o.wg.Wait()
	for _, l := range o.nodes {
		_ = unix.Close(l.fd)
	}
}

// look looks for the service address every three milliseconds.
func (o *Oracle) look() {
	prompt()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-o.stop:
			return
		case <-tick.C:
		}
		err := o.round()
		o.mu.Lock()
		o.looks++
		if err != nil && o.failed == nil {
			o.failed = err
		}
		o.mu.Unlock()
	}
}

// round asks each node once. Where two have the address, the first is asked again: if
// it still has it, then both had it when the second was asked.
func (o *Oracle) round() error {
	var have []lookout
	for _, l := range o.nodes {
		at := clock.Now()
		yes, err := l.has(o.rack.Address().AsSlice())
		if err != nil {
			return fmt.Errorf("asking for the addresses of node %s: %w", l.node.Name, err)
		}
		if !yes || l.node.absent(at) {
			continue
		}
		for _, other := range have {
			if still, err := other.has(o.rack.Address().AsSlice()); err == nil && still && !other.node.absent(at) {
				o.both(other.node, l.node, at)
			}
		}
		have = append(have, l)
	}
	return nil
}

func (o *Oracle) both(a, b *Node, at ha.Instant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range o.twice {
		if t := &o.twice[i]; t.a == a && t.b == b && at.Sub(t.in.To) < rest {
			t.in.To = at
			return
		}
	}
	o.twice = append(o.twice, twice{a, b, between{at, at}})
}

// has asks the kernel of a node whether it has an address.
func (l lookout) has(ip []byte) (bool, error) {
	req := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(req, uint32(len(req)))
	binary.NativeEndian.PutUint16(req[4:], unix.RTM_GETADDR)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(l.fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, err
	}
	found := false
	b := make([]byte, 16<<10)
	for {
		n, _, err := unix.Recvfrom(l.fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return false, err
		}
		for m := b[:n]; len(m) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.SizeofNlMsghdr || size > len(m) {
				return false, fmt.Errorf("the kernel sent a message of %d bytes in %d", size, len(m))
			}
			switch binary.NativeEndian.Uint16(m[4:]) {
			case unix.NLMSG_DONE:
				return found, nil
			case unix.NLMSG_ERROR:
				return false, errors.New("the kernel refused")
			case unix.RTM_NEWADDR:
				found = found || carries(m[unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg:size], ip)
			}
			m = m[min(len(m), (size+3)&^3):]
		}
	}
}

// carries reports whether attributes of an address name this one.
func carries(attrs, ip []byte) bool {
	for len(attrs) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(attrs))
		if size < unix.SizeofRtAttr || size > len(attrs) {
			return false
		}
		kind := binary.NativeEndian.Uint16(attrs[2:])
		if (kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS) && slices.Equal(attrs[unix.SizeofRtAttr:size], ip) {
			return true
		}
		attrs = attrs[min(len(attrs), (size+3)&^3):]
	}
	return false
}

// Lives reads who was active when, in the order in which they began.
func (o *Oracle) Lives() ([]Life, error) {
	files, err := filepath.Glob(filepath.Join(o.dir, "*-*"))
	if err != nil {
		return nil, err
	}
	known := names(o.rack)
	var all []Life
	for _, f := range files {
		if strings.HasSuffix(f, ".new") {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading a page of beats: %w", err)
		}
		word := func(i int) uint64 { return binary.NativeEndian.Uint64(b[8*i:]) }
		if len(b) != 8*pageWords || word(wordMagic) != pageMagic || known[word(wordNode)] == "" {
			return nil, fmt.Errorf("%s is no page of beats of this rack", f)
		}
		pid, _, _ := strings.Cut(filepath.Base(f), "-")
		l := Life{Node: known[word(wordNode)], PID: pid, Fence: ha.Fence{Era: word(wordEra), Counter: word(wordCounter)}}
		for i := range int(word(wordCount)) {
			l.Spans = append(l.Spans, between{ha.Instant(word(wordSpans + 2*i)), ha.Instant(word(wordSpans + 2*i + 1))})
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Life) int { return int(a.first().Sub(b.first())) })
	return all, nil
}
