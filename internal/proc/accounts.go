package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// account is one line of /etc/passwd.
type account struct {
	name     string
	uid, gid int // gid -1: not known
	home     string
	shell    string
}

// accounts are the users and groups of this machine.
type accounts struct {
	users  []account
	groups []groupLine
}

// groupLine is one line of /etc/group.
type groupLine struct {
	name    string
	gid     int
	members []string
}

// known keeps the accounts until one of the two files is another or has changed: a
// manifest of a thousand programs would read them a thousand times.
type known struct {
	mu   sync.Mutex
	of   [2]mark
	have bool
	accounts
}

// mark tells one content of a file from another.
type mark struct {
	inode, size   int64
	change, write int64 // ns
}

func markOf(name string) mark {
	var st unix.Stat_t
	if unix.Stat(name, &st) != nil {
		return mark{}
	}
	return mark{int64(st.Ino), st.Size, st.Ctim.Nano(), st.Mtim.Nano()}
}

// accounts are those of both files. A machine without them has no names, but
// numbers work all the same.
func (r *resolver) accounts() accounts {
	k := r.w.known
	if k == nil {
		return r.read()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	now := [2]mark{markOf("/etc/passwd"), markOf("/etc/group")}
	if k.have && now == k.of {
		return k.accounts
	}
	wrong := len(r.errs)
	k.accounts = r.read()
	k.of, k.have = now, len(r.errs) == wrong
	return k.accounts
}

func (r *resolver) read() accounts {
	var a accounts
	for _, f := range r.lines("user", "/etc/passwd", 7) {
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil {
			continue // a line of NIS, or a damaged one, names nobody
		}
		u := account{name: f[0], uid: uid, gid: gid, home: f[5], shell: f[6]}
		if u.home == "" {
			u.home = "/"
		}
		if u.shell == "" {
			u.shell = "/bin/sh"
		}
		a.users = append(a.users, u)
	}
	for _, f := range r.lines("group", "/etc/group", 4) {
		gid, err := strconv.Atoi(f[2])
		if err != nil {
			continue
		}
		g := groupLine{name: f[0], gid: gid}
		if f[3] != "" {
			g.members = strings.Split(f[3], ",")
		}
		a.groups = append(a.groups, g)
	}
	return a
}

// lines returns the lines of a file of fields with colons.
func (r *resolver) lines(key, name string, fields int) [][]string {
	b, err := r.w.ReadFile(name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			r.fail(key, "look up users and groups: %v", err)
		}
		return nil
	}
	var out [][]string
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Split(line, ":"); len(f) == fields && f[0] != "" && line[0] != '#' {
			out = append(out, f)
		}
	}
	return out
}

func (a accounts) byID(uid int) (account, bool) {
	i := slices.IndexFunc(a.users, func(u account) bool { return u.uid == uid })
	if i < 0 {
		return account{}, false
	}
	return a.users[i], true
}

// user finds a user by name, else by number. A number need not be in the file.
func (a accounts) user(s string) (account, error) {
	if i := slices.IndexFunc(a.users, func(u account) bool { return u.name == s }); i >= 0 {
		return a.users[i], nil
	}
	uid, err := strconv.Atoi(s)
	if err != nil || uid < 0 {
		return account{}, fmt.Errorf("user %q does not exist on this machine; one that is not in /etc/passwd is given by its number", s)
	}
	if u, ok := a.byID(uid); ok {
		return u, nil
	}
	return account{name: s, uid: uid, gid: -1, home: "/", shell: "/bin/sh"}, nil
}

// group finds a group by name, else by number.
func (a accounts) group(s string) (int, error) {
	if i := slices.IndexFunc(a.groups, func(g groupLine) bool { return g.name == s }); i >= 0 {
		return a.groups[i].gid, nil
	}
	gid, err := strconv.Atoi(s)
	if err != nil || gid < 0 {
		return -1, fmt.Errorf("group %q does not exist on this machine; one that is not in /etc/group is given by its number", s)
	}
	return gid, nil
}

// groupsOf returns the supplementary groups of a user, in the order of the file.
func (a accounts) groupsOf(user string) []int {
	out := []int{}
	for _, g := range a.groups {
		if slices.Contains(g.members, user) && !slices.Contains(out, g.gid) {
			out = append(out, g.gid)
		}
	}
	return out
}
