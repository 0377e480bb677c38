package spawn

import (
	"fmt"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A fork copies the table of descriptors of its parent, and the exec closes the
// copy again: both cost what the parent holds, which is several descriptors for
// each program. A child that begins with the parent's own table and then takes only
// what lies below a number costs the same however many programs there are.

// shelf is a row of low descriptors that are /dev/null except around a clone, when
// they are what the child needs. So all of it lies below one number.
type shelf struct {
	mu     sync.Mutex // held from lay until what was laid is taken back
	null   int
	places [shelfPlaces]int
	below  uintptr // the number after the highest of all these
	off    bool    // closed, because the kernel refused: starts copy the table
}

// shelfPlaces is one for each descriptor that a child of Start may need: the
// handover, the hold, three standard ones and the control groups.
const shelfPlaces = 9

// Reserve takes low descriptors, so that a start costs the same however many
// descriptors this process holds. Without it, and where the kernel cannot do it
// (Linux 5.9), a start copies them all. Call it once, before many are open. Low are
// those of the image before, if this process went through an exec, as Reserved told
// them; they are taken over, and closed if they are of no use.
func (t *Tree) Reserve(low []int) error {
	var have []int
	for _, fd := range low {
		if isNull(fd) {
			unix.CloseOnExec(fd)
			have = append(have, fd)
		}
	}
	for len(have) > shelfPlaces+1 {
		shut(have[len(have)-1])
		have = have[:len(have)-1]
	}
	// The range asked about is beyond any descriptor that can be open.
	if err := unix.CloseRange(1<<31-2, 1<<31-1, 0); err != nil {
		shut(have...)
		return fmt.Errorf("reserve descriptors: closing by range: %w", err)
	}
	for len(have) <= shelfPlaces {
		fd, err := openNull()
		if err != nil {
			shut(have...)
			return fmt.Errorf("reserve descriptors: %w", err)
		}
		have = append(have, fd)
	}
	s := &shelf{null: have[0]}
	copy(s.places[:], have[1:])
	for _, fd := range have {
		s.below = max(s.below, uintptr(fd)+1)
	}
	t.shelf = s
	return nil
}

// Reserved are the descriptors that Reserve took, for the next image of this process.
func (t *Tree) Reserved() []int {
	if t.shelf == nil {
		return nil
	}
	return t.shelf.all()
}

func (s *shelf) all() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.off {
		return nil
	}
	return append([]int{s.null}, s.places[:]...)
}

// close gives the shelf up: starts copy the table from here on.
func (s *shelf) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *shelf) drop() {
	if !s.off {
		shut(s.null)
		shut(s.places[:]...)
		s.off = true
	}
}

// openNull opens /dev/null above the standard descriptors.
func openNull() (int, error) {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/null: %w", err)
	}
	if fd > 2 {
		return fd, nil
	}
	defer shut(fd)
	return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
}

// isNull makes sure of a descriptor that is about to be overwritten: what others
// hold must not be.
func isNull(fd int) bool {
	var st unix.Stat_t
	return fd > 2 && unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)
}

// lay puts what the child of p needs on the shelf, and its numbers into p. With ok
// the shelf is the caller's until back: then all is as before, and nothing that was
// laid stays open. What cannot be laid is for a start without the shelf to tell.
func (s *shelf) lay(p *plan) (back func(), ok bool) {
	s.mu.Lock()
	if s.off {
		s.mu.Unlock()
		return nil, false
	}
	socket, hold, from, procs := p.hand.socket, p.pipes.hold, p.files.from, p.groups.procs
	used := 0
	back = func() {
		defer s.mu.Unlock()
		lost := false
		p.hand.socket, p.pipes.hold, p.files.from, p.groups.procs = socket, hold, from, procs
		p.files.below = 0
		for _, fd := range s.places[:used] {
			lost = unix.Dup3(s.null, fd, unix.O_CLOEXEC) != nil || lost
		}
		if lost {
			s.drop() // what was laid must not stay open
		}
	}
	need := [shelfPlaces]*int32{&p.hand.socket, &p.pipes.hold, &p.files.from[0], &p.files.from[1], &p.files.from[2],
		&p.groups.procs[0], &p.groups.procs[1], &p.groups.procs[2], &p.groups.procs[3]}
	for _, fd := range need {
		if *fd < 0 || uintptr(*fd) < s.below {
			continue
		}
		place := s.places[used]
		if err := unix.Dup3(int(*fd), place, unix.O_CLOEXEC); err != nil {
			back()
			return nil, false
		}
		*fd = int32(place)
		used++
	}
	p.files.below = s.below
	return back, true
}

// fork makes the child of Start and returns after its exec or end. If the kernel
// does not let it have a part of the table, it gets a copy of all.
func (r *Ready) fork() (pid int, errno syscall.Errno) {
	p := r.plan
	var s *shelf
	if r.group != nil && r.group.tree != nil {
		s = r.group.tree.shelf
	}
	if s == nil {
		return p.fork(true)
	}
	back, ok := s.lay(p)
	if !ok {
		return p.fork(true)
	}
	pid, errno = p.fork(true)
	back()
	why := errno
	if errno == 0 {
		if stage(p.res.stage) != stageTable {
			return pid, 0
		}
		why = syscall.Errno(p.res.errno)
		reap(pid)
		r.closeFD()
		p.res = result{}
	}
	if scarce(errno) {
		return 0, errno
	}
	pid, errno = p.fork(true)
	if errno == 0 && !scarce(why) {
		s.close()
	}
	return pid, errno
}
