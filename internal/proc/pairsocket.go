package proc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// PairEnv names the environment variable that tells a monitor the number of its
// end of the socket to the shadow.
const PairEnv = "GEMEL_PAIR_FD"

const (
	// packetSize bounds one packet; a message is cut into as many as it needs. It
	// is well below the kernel's smallest default of a socket buffer.
	packetSize = 48 << 10
	// packetFDs is the number of descriptors that go along with one message; the
	// kernel takes 253.
	packetFDs = 250
	// outboxBytes bounds what waits for a peer that does not read. A peer that is
	// so far behind is as good as dead.
	outboxBytes = 64 << 20

	packetLast = 'J' // the message ends with this packet
	packetMore = 'M' // the message goes on
	// handoverSize is the length of the message that a child sends before its
	// exec; no packet of the halves has it.
	handoverSize = 16
)

// ErrFull says that the peer has not read for so long that nothing more is kept
// for it.
var ErrFull = errors.New("the other half does not read")

type packet struct {
	body []byte
	fds  []int
}

// Sender is the writing side of one end of the pair socket: SEQPACKET, JSON,
// descriptors along with the last packet of a message. It never blocks: what the
// socket does not take waits for Flush. It is not safe for several goroutines.
type Sender struct {
	fd      int
	waiting []packet
	size    int
}

// NewSender writes to fd, which stays the caller's and must be non-blocking.
func NewSender(fd int) *Sender { return &Sender{fd: fd} }

// Put sends a message as far as the socket takes it. It takes fds over and closes
// them, also when it fails.
func (s *Sender) Put(message any, fds []int) error {
	body, err := json.Marshal(message)
	if err != nil {
		closeAll(fds)
		return fmt.Errorf("encoding a message: %w", err)
	}
	if len(fds) > packetFDs {
		closeAll(fds)
		return fmt.Errorf("%d descriptors in one message; %d are the most", len(fds), packetFDs)
	}
	if s.size+len(body) > outboxBytes {
		closeAll(fds)
		return ErrFull
	}
	for len(body) > packetSize {
		s.add(packetMore, body[:packetSize], nil)
		body = body[packetSize:]
	}
	s.add(packetLast, body, fds)
	_, err = s.Flush()
	return err
}

func (s *Sender) add(mark byte, body []byte, fds []int) {
	b := make([]byte, 0, len(body)+2)
	b = append(append(b, mark), body...)
	if len(b) == handoverSize {
		b = append(b, ' ') // white space at the end, or between two parts, is JSON's own
		if mark == packetMore {
			panic("proc: a packet of a long message is short")
		}
	}
	s.waiting = append(s.waiting, packet{b, fds})
	s.size += len(b)
}

// Flush sends what waits and reports whether something still does.
func (s *Sender) Flush() (pending bool, err error) {
	for len(s.waiting) > 0 {
		p := s.waiting[0]
		var oob []byte
		if len(p.fds) > 0 {
			oob = unix.UnixRights(p.fds...)
		}
		err := unix.Sendmsg(s.fd, p.body, oob, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch {
		case err == nil:
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ETOOMANYREFS):
			return true, nil
		default:
			s.Drop()
			return false, fmt.Errorf("sending to the other half: %w", err)
		}
		closeAll(p.fds)
		s.size -= len(p.body)
		s.waiting[0] = packet{}
		s.waiting = s.waiting[1:]
	}
	s.waiting = nil
	return false, nil
}

// Drop forgets what waits.
func (s *Sender) Drop() {
	for _, p := range s.waiting {
		closeAll(p.fds)
	}
	s.waiting, s.size = nil, 0
}

// Message is what a Receiver took from the socket: either the JSON of an order or
// a report, or the handover of a child.
type Message struct {
	JSON  []byte // valid until the next Take; nil for a handover
	Child []byte // the raw handover of a child: start id and pid; nil for JSON
	FDs   []int  // the receiver owns them
	// Short says that descriptors were lost because this process has none left.
	Short bool
}

// Receiver is the reading side of one end of the pair socket. It is not safe for
// several goroutines.
type Receiver struct {
	buf, oob []byte
	long     []byte // parts of a message that goes on
}

// NewReceiver makes a Receiver.
func NewReceiver() *Receiver {
	return &Receiver{buf: make([]byte, packetSize+2), oob: make([]byte, unix.CmsgSpace(253*4))}
}

// Take reads one message from a non-blocking fd. It returns unix.EAGAIN when there
// is none, and io.EOF when the other end is closed everywhere.
func (r *Receiver) Take(fd int) (Message, error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, r.buf, r.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET):
			return Message{}, io.EOF
		case err != nil:
			return Message{}, err
		case n == 0:
			return Message{}, io.EOF
		}
		fds, err := rights(r.oob[:oobn])
		if err != nil {
			return Message{}, err
		}
		m := Message{FDs: fds, Short: flags&unix.MSG_CTRUNC != 0}
		switch {
		case flags&unix.MSG_TRUNC != 0:
			closeAll(fds)
			return Message{}, errors.New("a packet of the other half is longer than any may be")
		case n == handoverSize:
			m.Child = r.buf[:n]
			return m, nil
		case r.buf[0] == packetMore:
			closeAll(fds)
			r.long = append(r.long, r.buf[1:n]...)
			if len(r.long) > outboxBytes {
				return Message{}, errors.New("a message of the other half has no end")
			}
			continue
		case r.long != nil:
			m.JSON, r.long = append(r.long, r.buf[1:n]...), nil
			return m, nil
		}
		m.JSON = r.buf[1:n]
		return m, nil
	}
}

func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("reading descriptors: %w", err)
	}
	var fds []int
	for i := range cms {
		if cms[i].Header.Level != unix.SOL_SOCKET || cms[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		got, err := unix.ParseUnixRights(&cms[i])
		if err != nil {
			closeAll(fds)
			return nil, fmt.Errorf("reading descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// duplicate copies descriptors, close-on-exec; on failure it has made none.
func duplicate(fds []int) ([]int, error) {
	var out []int
	for _, fd := range fds {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("duplicating descriptor %d: %w", fd, err)
		}
		out = append(out, n)
	}
	return out, nil
}

// Unsent is a packet that a shadow leaves to the version that takes its place.
type Unsent struct {
	Body []byte `json:"body"`
	FDs  []int  `json:"fds,omitempty"`
}

// Unsent lists what waits; it stays the Sender's.
func (s *Sender) Unsent() []Unsent {
	var out []Unsent
	for _, p := range s.waiting {
		out = append(out, Unsent{p.body, p.fds})
	}
	return out
}

// Again queues what another Sender had left, and owns its descriptors.
func (s *Sender) Again(u Unsent) {
	s.waiting = append(s.waiting, packet{u.Body, u.FDs})
	s.size += len(u.Body)
}
