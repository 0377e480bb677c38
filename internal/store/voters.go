package store

import (
	"bufio"
	"context"
	hexcode "encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"

	"gemel/internal/store/etcdpb"
)

// LeadPath is beside etcd's own calls on the socket of a member of ours: it moves the
// leadership.
const LeadPath = "/gemel/lead"

// What etcd refuses and is told apart. A test compares it with etcd's own.
var (
	unhealthy  = refusal{connect.CodeUnavailable, "etcdserver: unhealthy cluster"}
	notReady   = refusal{connect.CodeFailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader"}
	notLeader  = refusal{connect.CodeFailedPrecondition, "etcdserver: not leader"}
	notLearner = refusal{connect.CodeFailedPrecondition, "etcdserver: can only promote a learner member"}
	compacted  = refusal{connect.CodeOutOfRange, "etcdserver: mvcc: required revision has been compacted"}
	notFound   = refusal{connect.CodeNotFound, "etcdserver: member not found"}
	isThere    = refusal{connect.CodeFailedPrecondition, "etcdserver: Peer URLs already exists"}
)

// settle bounds a change of the voters whose ctx has no deadline. etcd refuses one
// until every voter has been connected for five seconds.
const settle = 15 * time.Second

// attempt bounds one try of a change. Raft takes one change of the voters at a time, and
// none before a new leader has applied what was there before it; another one it drops
// without a word, and etcd, which waits for it to be applied, never answers.
const attempt = 3 * time.Second

// A Voter is a member of the store as the one that was asked sees it.
type Voter struct {
	ID      uint64
	Name    string // the node's
	Started bool   // it has served at some time
	Learner bool   // it follows, and has no vote
	Leader  bool
	// Alive says that it speaks to the one that was asked. With an external etcd it
	// says only that the cluster has answered.
	Alive bool
}

// Voters lists the members of the store. It is linearizable, but for who leads and
// who is alive.
func (c *Client) Voters(ctx context.Context) ([]Voter, error) {
	type view struct {
		list   *etcdpb.MemberListResponse
		status *etcdpb.StatusResponse
		by     *end
	}
	v, err := repeat(ctx, &c.pool, func(ctx context.Context, e *end) (view, error) {
		l, err := c.fit(ctx, e)
		if err != nil {
			return view{}, err
		}
		list, err := ask[etcdpb.MemberListRequest, etcdpb.MemberListResponse](ctx, l, "Cluster/MemberList", &etcdpb.MemberListRequest{Linearizable: true})
		if err != nil {
			return view{}, plain(err)
		}
		s, err := ask[etcdpb.StatusRequest, etcdpb.StatusResponse](ctx, l, "Maintenance/Status", &etcdpb.StatusRequest{})
		return view{list, s, e}, plain(err)
	})
	if err != nil {
		return nil, fmt.Errorf("listing the voters: %w", err)
	}
	self := v.status.GetHeader().GetMemberId()
	alive, err := c.active(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing the voters: %w", err)
	}
	var out []Voter
	for _, m := range v.list.GetMembers() {
		out = append(out, Voter{
			ID: m.GetId(), Name: nameOf(m), Learner: m.GetIsLearner(),
			Started: len(m.GetClientUrls()) > 0,
			Leader:  m.GetId() == v.status.GetLeader(),
			Alive:   m.GetId() == self || c.c.Socket == "" || alive[hex(m.GetId())],
		})
	}
	return out, nil
}

// active says to whom the member of this machine has a connection. etcd tells that
// in its metrics only.
func (c *pool) active(ctx context.Context) (map[string]bool, error) {
	if c.c.Socket == "" {
		return nil, nil
	}
	resp, err := c.local(ctx, http.MethodGet, "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]bool{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "etcd_network_active_peers{")
		labels, n, _ := strings.Cut(rest, "} ")
		_, remote, _ := strings.Cut(labels, `Remote="`)
		if id, _, found := strings.Cut(remote, `"`); ok && found {
			out[id] = n != "0"
		}
	}
	return out, lines.Err()
}

// local makes a call over HTTP to the member of this machine.
func (c *pool) local(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://store"+path, nil)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{DisableKeepAlives: true, DisableCompression: true, DialContext: c.near}
	return t.RoundTrip(req)
}

// Add adds a member that has no vote yet and returns its id, also if it is there already,
// because two asked for it or an answer was lost. It starts with Join after that, and the
// others are told by Moved where it is.
func (c *Client) Add(ctx context.Context, name string) (uint64, error) {
	id, err := change(ctx, &c.pool, func(ctx context.Context, l *line) (uint64, error) {
		resp, err := ask[etcdpb.MemberAddRequest, etcdpb.MemberAddResponse](ctx, l, "Cluster/MemberAdd", &etcdpb.MemberAddRequest{PeerUrls: []string{PeerURL(name)}, IsLearner: true})
		if !isThere.is(err) {
			return resp.GetMember().GetId(), err
		}
		list, err := ask[etcdpb.MemberListRequest, etcdpb.MemberListResponse](ctx, l, "Cluster/MemberList", &etcdpb.MemberListRequest{Linearizable: true})
		for _, m := range list.GetMembers() {
			if nameOf(m) == name {
				return m.GetId(), nil
			}
		}
		if err == nil {
			err = errors.New("it was there already, and is no more")
		}
		return 0, err
	})
	if err != nil {
		return 0, fmt.Errorf("adding %s to the store: %w", name, err)
	}
	return id, nil
}

// PeerURL is where etcd finds another voter: a socket that is named after it. A port
// must be there, or HTTP adds one.
func PeerURL(name string) string { return "unix://" + hexcode.EncodeToString([]byte(name)) + ":1" }

func hex(id uint64) string { return strconv.FormatUint(id, 16) }

// nameOf returns the name of a member, which etcd does not know before it has
// started. Of an etcd that is not ours the name is what it says.
func nameOf(m *etcdpb.Member) string {
	for _, u := range m.GetPeerUrls() {
		code, ours := strings.CutPrefix(u, "unix://")
		if name, err := hexcode.DecodeString(strings.TrimSuffix(code, ":1")); ours && err == nil {
			return string(name)
		}
	}
	return m.GetName()
}

// Promote gives a member its vote, as soon as it has caught up with the leader.
func (c *Client) Promote(ctx context.Context, id uint64) error {
	_, err := change(ctx, &c.pool, func(ctx context.Context, l *line) (*etcdpb.MemberPromoteResponse, error) {
		r, err := ask[etcdpb.MemberPromoteRequest, etcdpb.MemberPromoteResponse](ctx, l, "Cluster/MemberPromote", &etcdpb.MemberPromoteRequest{Id: id})
		if notLearner.is(err) {
			return r, nil // it has its vote: an answer before this one was lost
		}
		return r, err
	})
	if err != nil {
		return fmt.Errorf("giving member %x its vote: %w", id, err)
	}
	return nil
}

// Remove takes a member out for ever. If it leads, somebody else does first: etcd
// would leave the cluster without a leader for seconds.
func (c *Client) Remove(ctx context.Context, id uint64) error {
	ctx, cancel := bounded(ctx, settle)
	defer cancel()
	all, err := c.Voters(ctx)
	if err != nil {
		return err
	}
	leads, other := false, uint64(0)
	for _, v := range all {
		if v.ID == id {
			leads = v.Leader
		} else if !v.Learner && v.Alive {
			other = v.ID
		}
	}
	if leads && other != 0 && c.c.Socket != "" {
		if err := c.Lead(ctx, other); err != nil {
			return fmt.Errorf("removing the leader %x: %w", id, err)
		}
	}
	_, err = change(ctx, &c.pool, func(ctx context.Context, l *line) (*etcdpb.MemberRemoveResponse, error) {
		r, err := ask[etcdpb.MemberRemoveRequest, etcdpb.MemberRemoveResponse](ctx, l, "Cluster/MemberRemove", &etcdpb.MemberRemoveRequest{Id: id})
		if notFound.is(err) {
			return r, nil // it is gone: an answer before this one was lost
		}
		return r, err
	})
	if err != nil {
		return fmt.Errorf("removing member %x from the store: %w", id, err)
	}
	return nil
}

// Lead makes a voter the leader, and returns when the member of this machine has
// seen it lead. It is for a store of our own only.
func (c *Client) Lead(ctx context.Context, id uint64) error {
	if c.c.Socket == "" {
		return fmt.Errorf("making member %x the leader: an external etcd chooses its own", id)
	}
	ctx, cancel := bounded(ctx, c.c.Bound)
	defer cancel()
	resp, err := c.local(ctx, http.MethodPost, LeadPath+"?to="+hex(id))
	if err != nil {
		return fmt.Errorf("making member %x the leader: %w", id, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	why, _ := bufio.NewReader(resp.Body).ReadString('\n')
	return fmt.Errorf("making member %x the leader: %s", id, strings.TrimSpace(why))
}

func bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}

// change carries a change of the voters out. It is repeated when etcd has said that it did
// not take it, because somebody was not connected for long enough or has not caught up, and
// when it does not answer: a change that was made already is refused by a word that do
// knows.
func change[T any](ctx context.Context, c *pool, do func(context.Context, *line) (T, error)) (T, error) {
	ctx, cancel := bounded(ctx, settle)
	defer cancel()
	unknown := false // an attempt may come about yet
	for {
		var v T
		within, over := context.WithTimeout(ctx, attempt)
		l, err := c.fit(within, c.ends[int(c.first.Load())%len(c.ends)])
		if err == nil {
			v, err = do(within, l)
		}
		// The other end counts the time as well, and may be first.
		late := within.Err() != nil || connect.CodeOf(err) == connect.CodeDeadlineExceeded
		unknown = unknown || err != nil && l != nil && late
		again := unhealthy.is(err) || notReady.is(err) || notLeader.is(err) || late
		over()
		if err == nil || !again {
			return v, plain(err)
		}
		wait(ctx, 500*time.Millisecond)
		if ctx.Err() == nil {
			continue
		}
		if unknown && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return v, fmt.Errorf("%w: %w", ErrUnknown, plain(err))
		}
		return v, plain(err)
	}
}
