package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// A plan is what the child works through. It lies on the heap, is kept alive by
// its Ready, and holds no pointer that the child would write.
//
//budget:fields everything one child needs, in the order of use
type plan struct {
	call   [4]uintptr
	args   cloneArgs
	pidfd  int32
	parked bool
	res    result

	row    *row
	hand   hand
	groups groups
	files  files
	pipes  pipes
	mood   mood
	limits []limit
	caps   caps
	ids    ids

	dir, path  *byte
	argv, envv **byte
	strings    [][]*byte // what argv and envv point into
}

// result is what a child that failed leaves behind.
type result struct{ stage, index, errno uint32 }

// hand is the message to the monitor.
type hand struct {
	socket int32
	start  uint64 // the message is start and pid
	pid    uint64
	cmsg   struct {
		head syscall.Cmsghdr
		fd   int32
		_    int32
	}
	iov syscall.Iovec
	msg syscall.Msghdr
}

// groups are the control groups: index 0 is that of v2, the others are of v1.
type groups struct {
	dir    int32  // directory of the v2 group; -1 none
	file   string // its cgroup.procs, where that is opened only if no child can be born in dir; else empty
	joined bool   // the child is born in dir
	n      int
	procs  [4]int32 // cgroup.procs of each, open for writing; -1 none
	zero   [1]byte
}

type files struct {
	from    [3]int32
	cwd     uintptr // AT_FDCWD
	null    [10]byte
	highest int
	below   uintptr // the child begins with the table of the parent and keeps what lies below; 0: it has a copy of all
}

type pipes struct {
	wake, report int32
	hold         int32 // kept until the announcement; -1 none
	byte         [1]byte
}

type mood struct {
	oomFile  [25]byte
	oom      [8]byte
	oomLen   uintptr
	oomSet   bool
	oomSkip  bool // it is that of this process already
	umask    uintptr
	nice     int
	priority int32
	action   [4]uint64 // struct sigaction with SIG_DFL
	cleared  bool      // the kernel gave every signal that is not ignored its default meaning
	ignored  uint64    // signals that this process ignores: bit n-1 is signal n
	mask     uint64
}

type limit struct {
	resource uintptr
	lim      syscall.Rlimit
}

type caps struct {
	nnp  bool
	set  bool
	mild bool // bounding set: it is no matter if the kernel refuses
	keep uint64
	last int
	head unix.CapUserHeader
	data [2]unix.CapUserData
}

type ids struct {
	setGroups, setGID, setUID bool

	n        int
	groups   *uint32
	gid, uid uintptr
}

// stage is what the child was doing when the kernel refused.
type stage uint32

const (
	stageNone stage = iota
	stageClone
	stageTable
	stageSession
	stageCgroup
	stageNull
	stageStdio
	stageGather
	stageOOM
	stageNice
	stageRlimit
	stageNoNewPrivs
	stageKeepCaps
	stageBounding
	stageGroups
	stageGID
	stageUID
	stageCapset
	stageAmbient
	stageChdir
	stageExec
	stagePark
	stageReleased
	stageCount
)

var stageNames = [stageCount]string{
	"", "clone", "table of descriptors", "setsid", "join control group", "open /dev/null", "standard descriptor", "move descriptor",
	"oom_score_adj", "nice", "rlimit", "no_new_privs", "keepcaps", "capability bounding set", "setgroups", "setgid",
	"setuid", "capset", "ambient capability", "chdir", "exec", "wait for release", "release",
}
