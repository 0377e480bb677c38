package spawn

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"gemel/internal/ha"
	"gemel/internal/proc"
)

// Options is what a start needs beside its Spec. Descriptors are numbers of this
// process; they stay the caller's and must stay open until Ready.Close.
//
//budget:fields parameters of one start
type Options struct {
	Start  ha.StartID
	Cgroup *Cgroup // nil: none, and no limit of a group
	Slot   *Slot   // nil: the start is not written down

	Stdin, Stdout, Stderr int // -1: /dev/null

	Env []string // KEY=value, wins over the same key of the Spec; GEMEL_PROCESS and GEMEL_START are added if missing

	// Handover is a unix SEQPACKET socket to the monitor; -1: none. Before its exec
	// the child sends 16 bytes over it: its start id and its pid, 8 bytes each in
	// the byte order of the machine, with its pidfd as SCM_RIGHTS. Nothing waits for
	// it: a message that finds the socket full or closed is lost.
	Handover int
	// Hold is a descriptor that the child keeps open until it has announced itself;
	// 0 or -1: none. A parked child closes all others: through a lock in Hold it
	// shows that one more start may be about to begin.
	Hold int
}

// Ready holds everything one start needs, made beforehand. It starts one program
// at a time, and may be used again after a start that failed. It is not safe for
// use by several goroutines at once.
type Ready struct {
	plan  *plan
	start ha.StartID
	path  string
	dir   string
	names []string // of the limits, for errors
	group *Cgroup
	slot  *Slot
	own   []int // descriptors made by Prepare
	apart bool  // exec may hang: never share memory with the child

	ranges bool // the kernel can mark descriptors by range
}

// Prepare makes a start ready. An error tells what of the Spec cannot be done,
// as a string with a NUL.
func Prepare(s *proc.Spec, o Options) (*Ready, error) {
	r := &Ready{plan: &plan{}, start: o.Start, path: s.Path, dir: s.Dir, group: o.Cgroup, slot: o.Slot}
	p := r.plan
	p.pidfd, p.hand.socket, p.pipes.wake, p.pipes.report, p.pipes.hold = -1, -1, -1, -1, -1
	steps := []func(*proc.Spec, *Options) error{r.strings, r.handover, r.join, r.descriptors, r.temper, r.limits, r.caps, r.ids}
	for _, step := range steps {
		if err := step(s, &o); err != nil {
			r.Close()
			return nil, fmt.Errorf("prepare start %s of %s: %w", o.Start, s.Process, err)
		}
	}
	if o.Slot != nil {
		p.row = o.Slot.row
	}
	at := &mounts{}
	if o.Cgroup != nil && o.Cgroup.tree != nil {
		at = &o.Cgroup.tree.mounts
	} else {
		defer at.close()
	}
	r.apart = at.mayHang(s.Path, s.Dir)
	r.ranges = closeRange()
	return r, nil
}

// Close gives back what Prepare made, apart from the caller's own things. A
// program that was started goes on.
func (r *Ready) Close() {
	for _, fd := range r.own {
		_ = unix.Close(fd) // nothing was written through it that could be lost
	}
	r.own = nil
}

func (r *Ready) strings(s *proc.Spec, o *Options) (err error) {
	p := r.plan
	if s.Path == "" {
		return errors.New("no path of a program")
	}
	if p.path, err = syscall.BytePtrFromString(s.Path); err != nil {
		return fmt.Errorf("path %q: a NUL byte cannot be part of it", s.Path)
	}
	if s.Dir != "" {
		if p.dir, err = syscall.BytePtrFromString(s.Dir); err != nil {
			return fmt.Errorf("directory %q: a NUL byte cannot be part of it", s.Dir)
		}
	}
	args := s.Args
	if len(args) == 0 {
		args = []string{s.Path}
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return fmt.Errorf("arguments %q: a NUL byte cannot be part of one", args)
	}
	env := environ(s, o)
	envv, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return errors.New("environment: a NUL byte cannot be part of a value")
	}
	p.strings = [][]*byte{argv, envv}
	p.argv, p.envv = &argv[0], &envv[0]
	return nil
}

// environ joins the environments; of several values of one key the last wins, and
// a text without "=" is left out, because programs may not rely on it.
func environ(s *proc.Spec, o *Options) []string {
	env := make([]string, 0, len(s.Env)+len(o.Env)+2)
	at := make(map[string]int, cap(env))
	add := func(kv string) {
		key, _, ok := strings.Cut(kv, "=")
		if !ok || key == "" {
			return
		}
		if i, old := at[key]; old {
			env[i] = kv
			return
		}
		at[key] = len(env)
		env = append(env, kv)
	}
	for _, kv := range s.Env {
		add(kv)
	}
	add("GEMEL_PROCESS=" + string(s.Process))
	add(envStart + o.Start.String())
	if o.Cgroup != nil && o.Cgroup.tree != nil {
		add(envTree + o.Cgroup.tree.name)
	}
	for _, kv := range o.Env {
		add(kv)
	}
	return env
}

const messageSize = 16

const (
	envStart = "GEMEL_START="
	envTree  = "GEMEL_TREE=" // which instance: each counts its own starts
)

func (r *Ready) handover(_ *proc.Spec, o *Options) error {
	h := &r.plan.hand
	socket, err := r.above(o.Handover)
	if err != nil {
		return err
	}
	h.socket = int32(socket)
	if o.Hold > 0 {
		hold, err := r.above(o.Hold)
		if err != nil {
			return err
		}
		r.plan.pipes.hold = int32(hold)
	}
	h.start = uint64(o.Start)
	h.cmsg.head = syscall.Cmsghdr{Len: uint64(syscall.CmsgLen(4)), Level: syscall.SOL_SOCKET, Type: syscall.SCM_RIGHTS}
	h.iov = syscall.Iovec{Base: (*byte)(unsafe.Pointer(&h.start)), Len: messageSize}
	h.msg = syscall.Msghdr{Iov: &h.iov, Iovlen: 1, Control: (*byte)(unsafe.Pointer(&h.cmsg))}
	return nil
}

func (r *Ready) join(_ *proc.Spec, o *Options) error {
	g := &r.plan.groups
	g.dir, g.zero = -1, [1]byte{'0'}
	for i := range g.procs {
		g.procs[i] = -1
	}
	if o.Cgroup == nil {
		return nil
	}
	g.n = len(g.procs)
	if g0 := o.Cgroup.joins()[0]; g0 != "" {
		fd, err := unix.Open(g0, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open control group %s: %w", g0, err)
		}
		r.own = append(r.own, fd)
		g.dir = int32(fd)
	}
	for i, dir := range o.Cgroup.joins() {
		if dir == "" {
			continue
		}
		if i == 0 && o.Cgroup.tree.born.Load() {
			g.file = dir + "/cgroup.procs" // not one more descriptor for each program
			continue
		}
		fd, err := unix.Open(dir+"/cgroup.procs", unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open control group %s: %w", dir, err)
		}
		r.own = append(r.own, fd)
		g.procs[i] = int32(fd)
	}
	return nil
}

// descriptors keeps every source away from the targets 0 to 2, unless it is its
// own target: then no order of duplication can overwrite one that is needed.
func (r *Ready) descriptors(_ *proc.Spec, o *Options) error {
	f := &r.plan.files
	f.cwd = ^uintptr(99) // AT_FDCWD
	copy(f.null[:], "/dev/null")
	for i, fd := range []int{o.Stdin, o.Stdout, o.Stderr} {
		if fd != i {
			var err error
			if fd, err = r.above(fd); err != nil {
				return err
			}
		}
		f.from[i] = int32(fd)
	}
	return nil
}

// above gives a descriptor a number that no standard descriptor can overwrite.
func (r *Ready) above(fd int) (int, error) {
	if fd < 0 || fd > 2 {
		return fd, nil
	}
	to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("keep descriptor %d: %w", fd, err)
	}
	r.own = append(r.own, to)
	return to, nil
}

func (r *Ready) temper(s *proc.Spec, _ *Options) error {
	m := &r.plan.mood
	copy(m.oomFile[:], "/proc/self/oom_score_adj")
	m.oomLen = uintptr(copy(m.oom[:], strconv.Itoa(s.OOMScore)))
	m.oomSet = s.OOMScore != 0
	if b, err := slurp("/proc/self/oom_score_adj"); err == nil {
		m.oomSkip = strings.TrimSpace(string(b)) == strconv.Itoa(s.OOMScore)
	}
	m.ignored = ignored()
	m.umask = uintptr(s.Umask)
	m.nice = s.Nice
	return nil
}

// ignored are the signals that this process ignores, and whose meaning a child
// would keep over its exec. One that cannot be asked about counts as ignored.
func ignored() (set uint64) {
	for sig := uintptr(1); sig <= 64; sig++ {
		var now [4]uint64
		_, _, e := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, uintptr(unsafe.Pointer(&now)), 8, 0, 0)
		if e != 0 || now[0] == 1 { // SIG_IGN
			set |= 1 << (sig - 1)
		}
	}
	return set
}

func (r *Ready) limits(s *proc.Spec, o *Options) error {
	p := r.plan
	files := false
	for _, l := range s.Limits {
		files = files || l.Resource == unix.RLIMIT_NOFILE
		p.limits = append(p.limits, limit{uintptr(l.Resource), syscall.Rlimit{Cur: infinite(l.Soft), Max: infinite(l.Hard)}})
		r.names = append(r.names, limitName(l.Resource))
	}
	if !files && o.Cgroup != nil && o.Cgroup.tree != nil && o.Cgroup.tree.files != nil {
		p.limits = append(p.limits, limit{unix.RLIMIT_NOFILE, *o.Cgroup.tree.files})
		r.names = append(r.names, "nofile")
	}
	return nil
}

func infinite(n int64) uint64 {
	if n < 0 {
		return ^uint64(0)
	}
	return uint64(n)
}

func limitName(resource int) string {
	names := [...]string{"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
		"sigpending", "msgqueue", "nice", "rtprio", "rttime"}
	if resource >= 0 && resource < len(names) {
		return names[resource]
	}
	return strconv.Itoa(resource)
}

func (r *Ready) caps(s *proc.Spec, _ *Options) error {
	c := &r.plan.caps
	c.nnp, c.set, c.mild = s.NoNewPrivs, s.SetCaps, s.NoNewPrivs
	if !c.set {
		return nil
	}
	c.last = lastCap()
	for _, n := range s.Caps {
		if n < 0 || n > c.last {
			return fmt.Errorf("capability %d: this kernel knows 0 to %d", n, c.last)
		}
		c.keep |= 1 << uint(n)
	}
	c.head.Version = unix.LINUX_CAPABILITY_VERSION_3
	for i := range c.data {
		half := uint32(c.keep >> (32 * i))
		c.data[i] = unix.CapUserData{Effective: half, Permitted: half, Inheritable: half}
	}
	return nil
}

func lastCap() int {
	b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap")
	if err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < 64 {
			return n
		}
	}
	return unix.CAP_LAST_CAP
}

// ids leaves out every call that would change nothing, so that a plain user may
// name itself.
func (r *Ready) ids(s *proc.Spec, _ *Options) error {
	if !s.SetIDs {
		return nil
	}
	d := &r.plan.ids
	now, err := os.Getgroups()
	if err != nil {
		return fmt.Errorf("read own groups: %w", err)
	}
	want := slices.Clone(s.Groups)
	slices.Sort(now)
	slices.Sort(want)
	d.setGroups = !slices.Equal(slices.Compact(now), slices.Compact(want))
	if d.setGroups && len(want) > 0 {
		list := make([]uint32, len(want))
		for i, g := range want {
			list[i] = uint32(g)
		}
		d.n, d.groups = len(list), &list[0]
	}
	d.setGID = s.GID >= 0 && (s.GID != os.Getgid() || s.GID != os.Getegid())
	d.setUID = s.UID >= 0 && (s.UID != os.Getuid() || s.UID != os.Geteuid())
	d.gid, d.uid = uintptr(s.GID), uintptr(s.UID)
	return nil
}
