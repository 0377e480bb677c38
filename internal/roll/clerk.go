package roll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/mtls/join"
	"gemel/internal/secret"
	"gemel/internal/store"
)

// A Clerk keeps a machine in step with its cluster, while the daemon runs. On a node
// it also brings others in. Its fields are set before Run.
type Clerk struct {
	Home  Home
	Store *store.Client
	Log   *slog.Logger
	// Manifest is what runs, for newcomers; nil: they get none.
	Manifest func() []byte
	// Changed is called when the roll has changed, and after a change of what this
	// machine is in it; the files are written by then.
	Changed func(r Roll)
	// Warn is given what somebody should hear of, at most once an hour each.
	Warn func(text string)
	// Ends is told, each hour, which certificates of this machine should have been renewed;
	// nil: nobody listens.
	Ends func(list []mtls.Expiry)
	// Sealed is called when the keys of the heartbeats are others, in their file; nil: the
	// next start takes them up.
	Sealed func() error
	// Free returns why a second node would be one too many now: because something of a
	// group runs on the first by no right. Nil: nothing ever does.
	Free func(ctx context.Context) error

	books ledger
	own
	known
}

// own is what a Clerk is.
type own struct {
	me    ha.Node
	role  mtls.Role
	files *mtls.Files // of role

	turn sync.Mutex // held while the files are brought in step
	over bool       // this machine has left: nothing is written any more
	keys string     // of the heartbeats, as they are in force

	judged struct { // the roll as the store had it last
		raw  []byte
		roll Roll
	}
}

// known is what a Clerk last read.
type known struct {
	mu     sync.Mutex
	roll   Roll
	voters []store.Voter
}

// Open reads what this machine is. It has to be called before everything else.
func (c *Clerk) Open() error {
	id, err := c.Home.identity()
	if err != nil {
		return err
	}
	if id == nil {
		return fmt.Errorf("this machine is of no cluster: %w", fs.ErrNotExist)
	}
	r, err := c.Home.Read()
	if err != nil {
		return err
	}
	c.me, c.role, c.roll = id.Name, mtls.Node, r
	if id.Witness {
		c.role = mtls.Witness
	}
	if b, err := secret.Read(c.Home.at(keyFile)); err == nil {
		c.keys = string(b)
	}
	c.books = ledger{home: c.Home, store: c.Store, cluster: r.Cluster.ID, manifest: c.Manifest}
	c.files = c.Home.Files(c.role)
	c.files.Tell = c.Warn
	return c.files.Load()
}

// Roll is who is in the cluster, as this machine knows it.
func (c *Clerk) Roll() Roll {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roll
}

// Token makes a token for a newcomer and returns it with its end, and the addresses at
// which it is good. name makes it good for that name alone, also for one that is in
// the cluster: its machine is replaced.
func (c *Clerk) Token(ctx context.Context, witness bool, name string, life time.Duration) (text string, until time.Time, at []string, err error) {
	r, kind := c.Roll(), mtls.Node
	if witness {
		kind = mtls.Witness
	}
	if c.role != mtls.Node {
		return "", until, nil, errors.New("this machine is a witness and signs nothing: ask a node for a token")
	}
	if old, ok := r.Node(ha.Node(name)); ok && old.Witness != witness {
		return "", until, nil, fmt.Errorf("%s is a %s in the cluster; a token for its name is for one as well", name, map[bool]string{true: "witness", false: "node"}[old.Witness])
	}
	signer, err := c.Home.open(mtls.Node, r.Cluster.ID)
	if err != nil {
		return "", until, nil, err
	}
	token, ticket, err := join.Mint(signer.Identity(), kind, name, time.Now(), life)
	if err != nil {
		return "", until, nil, err
	}
	if err := (book{c.Store}).Add(ctx, ticket); err != nil {
		return "", until, nil, fmt.Errorf("keeping the ticket: %w", err)
	}
	me, _ := r.Node(c.me)
	return token.Text(), token.Expires, doors(me), nil
}
