package access

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gemel/internal/manifest"
)

// overflow is the id under which the kernel shows an id that has no meaning
// here: that of a process in another user namespace. Nobody is let in by it.
const overflow = 65534

// lookupBound is the longest time that a name service may take for all names of
// a policy. Names that it did not answer in time match nobody until the next
// refresh.
const lookupBound = 2 * time.Second

// A Policy knows the roles of the users of this machine. Its methods may be
// called from any goroutine.
type Policy struct {
	own    uint32
	lookup lookup

	mu      sync.Mutex
	lists   manifest.Access
	users   map[uint32]grant
	groups  map[uint32]grant
	names   map[uint32]string // of users met in the lists or asked for
	unknown []string          // names of the lists that nothing answers to
	changed chan struct{}     // closed when roles may have changed
}

// grant is a role and the entry of the manifest that gives it.
type grant struct {
	role  Role
	entry string
}

// lookup turns names into ids. Tests have their own.
type lookup struct {
	user  func(name string) (uint32, error)
	group func(name string) (uint32, error)
}

// New returns the policy of the access lists of a manifest. Root, and the user
// own that the daemon runs as, are always admin; everybody else has only the
// role that a list gives. Call Set for the names in the lists to be looked up
// with a deadline of the caller's.
func New(lists manifest.Access, own uint32) *Policy {
	p := &Policy{own: own, lookup: lookup{systemUser, systemGroup}}
	p.Set(context.Background(), lists)
	return p
}

// Set puts other lists in force at once and returns the names that nobody on
// this machine has. It may take as long as the name service, at most 2 s.
func (p *Policy) Set(ctx context.Context, lists manifest.Access) (unknown []string) {
	users, groups, names, unknown := resolve(ctx, p.lookup, lists)
	p.mu.Lock()
	defer p.mu.Unlock()
	same := maps.Equal(users, p.users) && maps.Equal(groups, p.groups)
	p.lists, p.users, p.groups, p.unknown = lists, users, groups, unknown
	if p.names == nil {
		p.names = map[uint32]string{}
	}
	maps.Copy(p.names, names)
	if !same && p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	return unknown
}

// Refresh looks the names of the lists up again: a user may have been made since.
func (p *Policy) Refresh(ctx context.Context) (unknown []string) {
	p.mu.Lock()
	lists := p.lists
	p.mu.Unlock()
	return p.Set(ctx, lists)
}

// Changed returns a channel that is closed when roles may have changed.
func (p *Policy) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// Shared reports whether anybody but root and the daemon's own user has a role,
// so that the socket must let others connect.
func (p *Policy) Shared() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.users)+len(p.groups)+len(p.unknown) > 0
}

// Role returns the greatest role that the peer has, and why, in one sentence.
func (p *Policy) Role(peer Peer) (Role, string) {
	switch {
	case peer.UID == 0:
		return Admin, "root is always admin"
	case peer.UID == p.own:
		return Admin, "the user that Gemel runs as is always admin"
	case peer.UID == overflow || peer.UID == ^uint32(0):
		return None, fmt.Sprintf("user %d stands for users of another user namespace, and nobody is let in by it", peer.UID)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	best := p.users[peer.UID]
	for _, g := range append([]uint32{peer.GID}, peer.Groups...) {
		if got := p.groups[g]; g != overflow && got.role > best.role {
			best = got
		}
	}
	if best.role == None {
		why := fmt.Sprintf("neither user %d nor a group of the caller is in the access lists of the manifest", peer.UID)
		if len(p.unknown) > 0 {
			why += fmt.Sprintf("; nobody answers to %s there", strings.Join(p.unknown, ", "))
		}
		return None, why
	}
	return best.role, fmt.Sprintf("%q is in access.%ss of the manifest", best.entry, best.role)
}

// Name returns the name of a user, or its number. It asks no name service, only
// what the lists and /etc/passwd told before.
func (p *Policy) Name(uid uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n, ok := p.names[uid]; ok {
		return n
	}
	n := passwdName(uid)
	if len(p.names) < 4096 {
		p.names[uid] = n
	}
	return n
}

// resolved is one answer of the name service.
type resolved struct {
	entry string
	role  Role
	group bool
	id    uint32
	err   error
}

// resolve looks up every name of the lists. A name service that does not answer
// in time leaves its goroutine behind until it does; there is one at most for
// each call, and calls are a minute apart.
func resolve(ctx context.Context, l lookup, lists manifest.Access) (users, groups map[uint32]grant, names map[uint32]string, unknown []string) {
	ctx, cancel := context.WithTimeout(ctx, lookupBound)
	defer cancel()
	type entry struct {
		name string
		role Role
	}
	var all []entry
	for _, x := range []struct {
		names []string
		role  Role
	}{{lists.Viewers, Viewer}, {lists.Operators, Operator}, {lists.Admins, Admin}} {
		for _, n := range x.names {
			all = append(all, entry{n, x.role})
		}
	}
	answers := make(chan resolved, len(all))
	go func() {
		for _, e := range all {
			name, group := strings.CutPrefix(e.name, "%")
			r := resolved{entry: e.name, role: e.role, group: group}
			if group {
				r.id, r.err = number(name, l.group)
			} else {
				r.id, r.err = number(name, l.user)
			}
			answers <- r
		}
	}()
	users, groups, names = map[uint32]grant{}, map[uint32]grant{}, map[uint32]string{}
	for i := range all {
		select {
		case <-ctx.Done():
			for _, e := range all[i:] {
				unknown = append(unknown, e.name)
			}
			return users, groups, names, unknown
		case r := <-answers:
			into := users
			if r.group {
				into = groups
			}
			switch {
			case r.err != nil:
				unknown = append(unknown, r.entry)
			case r.role > into[r.id].role:
				into[r.id] = grant{r.role, r.entry}
			}
			if r.err == nil && !r.group && r.entry != strconv.FormatUint(uint64(r.id), 10) {
				names[r.id] = r.entry
			}
		}
	}
	slices.SortFunc(unknown, cmp.Compare[string])
	return users, groups, names, unknown
}

// number reads a number, or asks.
func number(name string, ask func(string) (uint32, error)) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	return ask(name)
}

func systemUser(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(n), err
}

func systemGroup(name string) (uint32, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err
}
