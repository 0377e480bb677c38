package access

import (
	"context"
	"errors"
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

const (
	// lookupBound is the longest time that a name service may take for all names
	// of a policy.
	lookupBound = 2 * time.Second
	// keepBound is how long what a name service said holds when it does not answer
	// any more. A name that it says nobody has holds no longer at all.
	keepBound = time.Hour
)

// A Policy knows the roles of the users of this machine. Its methods may be
// called from any goroutine.
type Policy struct {
	own    uint32
	lookup lookup

	mu      sync.Mutex
	turn    uint64 // grows with each Set; what a slow lookup of an older one found is thrown away
	lists   manifest.Access
	known   map[string]known // what the name service said of each entry
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

// known is what the name service said of an entry, and when.
type known struct {
	id uint32
	at time.Time
}

// lookup turns names into ids. Tests have their own.
type lookup struct {
	user  func(name string) (uint32, error)
	group func(name string) (uint32, error)
}

// New returns the policy of the access lists of a manifest. Root, and the user
// own that the daemon runs as, are always admin; everybody else has only the
// role that a list gives. No name service is asked yet: entries that are names let
// nobody in before the first Refresh.
func New(lists manifest.Access, own uint32) *Policy {
	p := &Policy{own: own, lookup: lookup{systemUser, systemGroup}, lists: lists}
	p.take(0, entries(lists))
	return p
}

// Set puts other lists in force and returns the names that nobody on this
// machine has. It may take as long as the name service, at most 2 s.
func (p *Policy) Set(ctx context.Context, lists manifest.Access) (unknown []string) {
	p.mu.Lock()
	p.turn++
	turn := p.turn
	p.lists = lists
	p.mu.Unlock()
	return p.resolve(ctx, turn, lists)
}

// Refresh looks the names of the lists up again: a user may have been made since.
func (p *Policy) Refresh(ctx context.Context) (unknown []string) {
	p.mu.Lock()
	turn, lists := p.turn, p.lists
	p.mu.Unlock()
	return p.resolve(ctx, turn, lists)
}

// resolve looks up every name and puts what it found in force.
func (p *Policy) resolve(ctx context.Context, turn uint64, lists manifest.Access) (unknown []string) {
	all := entries(lists)
	p.ask(ctx, all)
	return p.take(turn, all)
}

// take puts what was found in force, unless other lists were set meanwhile.
func (p *Policy) take(turn uint64, all []entry) (unknown []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn != p.turn {
		return nil
	}
	now := time.Now()
	users, groups, names, keep := map[uint32]grant{}, map[uint32]grant{}, map[uint32]string{}, map[string]known{}
	for _, e := range all {
		switch before, ok := p.known[e.name]; {
		case e.err == nil:
			keep[e.name] = known{e.id, now}
		case ok && !missing(e.err) && now.Sub(before.at) < keepBound:
			e.id, keep[e.name] = before.id, before
		default:
			unknown = append(unknown, e.name)
			continue
		}
		into := users
		if e.group {
			into = groups
		} else if e.name != strconv.FormatUint(uint64(e.id), 10) {
			names[e.id] = e.name
		}
		if e.role > into[e.id].role {
			into[e.id] = grant{e.role, e.name}
		}
	}
	slices.Sort(unknown)
	same := maps.Equal(users, p.users) && maps.Equal(groups, p.groups)
	p.users, p.groups, p.unknown, p.known = users, groups, unknown, keep
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

// Changed returns a channel that is closed when roles may have changed.
func (p *Policy) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// Unknown returns the names of the lists that nobody on this machine has, groups
// with % before them.
func (p *Policy) Unknown() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.unknown)
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
		why := fmt.Sprintf("neither user %d nor a group of the caller is in node.access of the manifest", peer.UID)
		if len(p.unknown) > 0 {
			why += fmt.Sprintf("; nobody answers to %s there", strings.Join(p.unknown, ", "))
		}
		return None, why
	}
	return best.role, fmt.Sprintf("%q is in node.access.%ss of the manifest", best.entry, best.role)
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

// entry is one name of the lists and what was found for it.
type entry struct {
	name  string // as it stands in the list
	role  Role
	group bool
	id    uint32
	err   error
}

// errLate stands for the answer of a name service that did not come in time.
var errLate = errors.New("no answer in time")

// missing reports whether a name service said that nobody has the name, in
// contrast to one that did not answer.
func missing(err error) bool {
	var u user.UnknownUserError
	var g user.UnknownGroupError
	return errors.As(err, &u) || errors.As(err, &g)
}

// entries are the names of the lists; those that are numbers are done.
func entries(lists manifest.Access) []entry {
	var all []entry
	for _, x := range []struct {
		names []string
		role  Role
	}{{lists.Viewers, Viewer}, {lists.Operators, Operator}, {lists.Admins, Admin}} {
		for _, n := range x.names {
			e := entry{name: n, role: x.role, err: errLate}
			bare, group := strings.CutPrefix(n, "%")
			e.group = group
			if id, err := strconv.ParseUint(bare, 10, 32); err == nil {
				e.id, e.err = uint32(id), nil
			}
			all = append(all, e)
		}
	}
	return all
}

// ask looks up those that are not numbers. A name service that does not answer
// in time leaves its goroutine behind until it does; there is one for each call,
// and calls are a minute apart.
func (p *Policy) ask(ctx context.Context, all []entry) {
	ctx, cancel := context.WithTimeout(ctx, lookupBound)
	defer cancel()
	type answer struct {
		i   int
		id  uint32
		err error
	}
	answers := make(chan answer, len(all))
	waiting := 0
	var questions []entry
	var places []int
	for i, e := range all {
		if e.err != nil {
			questions, places = append(questions, e), append(places, i)
			waiting++
		}
	}
	go func() {
		for k, e := range questions {
			look := p.lookup.user
			if e.group {
				look = p.lookup.group
			}
			id, err := look(strings.TrimPrefix(e.name, "%"))
			answers <- answer{places[k], id, err}
		}
	}()
	for ; waiting > 0; waiting-- {
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			all[a.i].id, all[a.i].err = a.id, a.err
		}
	}
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
