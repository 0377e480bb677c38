package roll

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/secret"
	"gemel/internal/store"
)

// The key of the heartbeats is replaced in three steps, each of which begins when every
// machine has taken the one before: all open the new key as well; all seal with it; nobody
// opens the old one any more. A machine that is down holds up the next step, and nothing
// else: each two steps that follow each other have the key in common that the others seal with.
const (
	heartKey  = "cluster/heartbeat"
	heartSeen = "cluster/heartbeat-at/" // and the name: how far that machine is
)

// hearts are the keys of the heartbeats that all machines are to have.
type hearts struct {
	Step uint64   `json:"step"` // grows
	Keys []string `json:"keys"` // hexadecimal; the first seals, all open
	Next string   `json:"next"` // the one that stays
}

func (h hearts) file() string { return strings.Join(h.Keys, "\n") + "\n" }

// step is what follows when all machines are here; false: nothing does.
func (h hearts) step() (hearts, bool) {
	if len(h.Keys) < 2 {
		return h, false
	}
	n := hearts{h.Step + 1, []string{h.Next}, h.Next}
	if h.Keys[0] != h.Next {
		n.Keys = append(n.Keys, h.Keys[0])
	}
	return n, true
}

// at is what a machine says that has these keys. Another one of its name says something else.
func (h hearts) at(n Node) string { return fmt.Sprintf("%d %d", h.Step, n.Joined.Unix()) }

// behind are the machines that do not have these keys yet.
func (h hearts) behind(r Roll, docs map[string]store.Doc) (names []ha.Node) {
	for _, n := range r.Nodes {
		if string(docs[heartSeen+string(n.Name)].Value) != h.at(n) {
			names = append(names, n.Name)
		}
	}
	return names
}

func heartsOf(docs map[string]store.Doc) (h hearts, err error) {
	d, ok := docs[heartKey]
	if !ok {
		return h, nil
	}
	if err := json.Unmarshal(d.Value, &h); err != nil {
		return h, fmt.Errorf("reading the keys of the heartbeats: %w", err)
	}
	return h, nil
}

// beat takes up the keys of the heartbeats, says so, and, on a node, goes on to the next
// step when all have.
func beat(ctx context.Context, c *Clerk, r Roll, docs map[string]store.Doc) error {
	h, err := heartsOf(docs)
	me, in := r.Node(c.me)
	if err != nil || h.Step == 0 || !in {
		return err
	}
	if c.keys != h.file() {
		if err := secret.Write(c.Home.at(keyFile), []byte(h.file())); err != nil {
			return err
		}
		if c.Sealed != nil {
			if err := c.Sealed(); err != nil {
				return err
			}
		}
		c.keys = h.file()
		c.Log.Info("the keys of the heartbeats are others", "step", h.Step, "keys", len(h.Keys))
	}
	if seen := docs[heartSeen+string(c.me)]; string(seen.Value) != h.at(me) {
		_, err := c.Store.PutDoc(ctx, heartSeen+string(c.me), seen.Rev, []byte(h.at(me)))
		return lost(err)
	}
	next, more := h.step()
	if !more || c.role != mtls.Node || len(h.behind(r, docs)) > 0 {
		return nil
	}
	return lost(putHearts(ctx, c, next, docs[heartKey].Rev))
}

// lost is nil for a write that lost against another one: it is looked at again soon.
func lost(err error) error {
	if errors.Is(err, store.ErrRefused) {
		return nil
	}
	return err
}

func putHearts(ctx context.Context, c *Clerk, h hearts, guard ha.Rev) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("writing the keys of the heartbeats: %w", err)
	}
	_, err = c.Store.PutDoc(ctx, heartKey, guard, raw)
	return err
}

// Rotate begins to replace keys of the whole cluster: heartbeats, or the authority of
// nodes or of agents.
func (Ring) Rotate(ctx context.Context, c *Clerk, what []string) error {
	for _, w := range what {
		if w == "store" {
			return errors.New("the authority of the store cannot be replaced while it runs: its members read whom to trust only at their start")
		}
		if w != "heartbeats" && w != "nodes" && w != "agents" {
			return fmt.Errorf("%.40q cannot be replaced: heartbeats, nodes and agents can", w)
		}
	}
	if c.role != mtls.Node {
		return errors.New("this machine is a witness: ask a node")
	}
	_, docs, err := c.books.trust(ctx)
	if err != nil {
		return err
	}
	r, err := parse(docs[rollKey].Value)
	if err != nil {
		return err
	}
	for _, w := range what {
		if w == "heartbeats" {
			err = reseal(ctx, c, r, docs)
		} else {
			var s succession
			if s, err = successionOf(c, map[string]mtls.Role{"nodes": mtls.Node, "agents": mtls.Agent}[w], r, docs); err == nil {
				err = s.begin(ctx)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reseal begins to replace the key of the heartbeats.
func reseal(ctx context.Context, c *Clerk, r Roll, docs map[string]store.Doc) error {
	old, err := heartsOf(docs)
	if err != nil {
		return err
	}
	if len(old.Keys) > 1 {
		return fmt.Errorf("the key of the heartbeats is being replaced already: that waits for %s", listed(old.behind(r, docs)))
	}
	b, err := secret.Read(c.Home.at(keyFile))
	if err != nil {
		return err
	}
	now := strings.Fields(string(b))
	key, err := newKey()
	if err != nil {
		return err
	}
	if len(now) != 1 || len(old.Keys) == 1 && now[0] != old.Keys[0] {
		return errors.New("this machine does not have the key of the heartbeats that the others have yet: try again in a moment")
	}
	return putHearts(ctx, c, hearts{old.Step + 1, []string{now[0], key}, key}, docs[heartKey].Rev)
}

func listed(names []ha.Node) string {
	if len(names) == 0 {
		return "nobody"
	}
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	return strings.Join(out, ", ")
}

// A Ring is what a cluster has of certificates and keys.
type Ring struct {
	List     []mtls.Expiry
	Keys     []string // of the heartbeats on this machine, as they are in their file; the first seals
	UnderWay []string // what is being replaced, in words
}

// Read reads what the cluster has of certificates and keys.
func (Ring) Read(ctx context.Context, c *Clerk) (out Ring, err error) {
	trust, docs, err := c.books.trust(ctx)
	if err != nil {
		return out, err
	}
	for _, role := range planes() {
		t := trust[role.Authority(c.books.cluster).Name]
		if t == nil {
			continue
		}
		list, err := t.List(time.Now())
		if err != nil {
			return out, err
		}
		out.List = append(out.List, list...)
	}
	b, err := secret.Read(c.Home.at(keyFile))
	if err != nil {
		return out, err
	}
	out.Keys = strings.Fields(string(b))
	h, err := heartsOf(docs)
	if err != nil {
		return out, err
	}
	r, err := parse(docs[rollKey].Value)
	if err != nil {
		return out, err
	}
	if wait := h.behind(r, docs); h.Step > 0 && len(wait) > 0 {
		out.UnderWay = append(out.UnderWay, "the key of the heartbeats is replaced; that waits for "+listed(wait))
	} else if len(h.Keys) > 1 {
		out.UnderWay = append(out.UnderWay, "the key of the heartbeats is replaced")
	}
	for _, role := range planes() {
		s, err := successionOf(c, role, r, docs)
		if err != nil {
			return out, err
		}
		if s.underWay() {
			out.UnderWay = append(out.UnderWay, fmt.Sprintf("the authority of %s is replaced by %s (step %q of trust, sign, alone); that waits for %s", s.plane, s.New, s.Stage, listed(s.behind(anyOf))))
		}
	}
	return out, nil
}
