package roll

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/mtls/join"
	"gemel/internal/secret"
	"gemel/internal/store"
	"gemel/internal/store/disk"
)

const (
	lookEvery  = 5 * time.Second // in case a change was missed
	hurryEvery = time.Second     // while members of the store come and go
	lookTime   = 20 * time.Second
	renewEvery = time.Hour
)

// Run keeps this machine in step until ctx ends.
func (c *Clerk) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c.Store.WatchDocs(ctx, clusterKeys, func(ha.Rev) {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	wg.Go(func() { c.renewals(ctx) })
	told := ""
	for {
		within, end := context.WithTimeout(ctx, lookTime)
		busy, err := c.look(within)
		end()
		every := lookEvery
		if busy || err != nil {
			every = hurryEvery
		}
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			c.Log.Warn("the cluster's list of machines could not be kept in step; it is tried again", "error", err)
		} else if err == nil {
			told = ""
		}
		again := time.NewTimer(every)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// look brings this machine to where the store says that it is. busy: there is more to
// be done soon.
func (c *Clerk) look(ctx context.Context) (busy bool, err error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.over {
		return false, nil
	}
	if err := c.books.sow(ctx); err != nil {
		return true, fmt.Errorf("beginning the store: %w", err)
	}
	trust, docs, err := c.books.trust(ctx)
	if err != nil {
		return true, err
	}
	if err := c.Home.adopt(trust, docs[crlKey].Value); err != nil {
		return true, err
	}
	r, err := c.read(docs[rollKey])
	if err != nil {
		return true, err
	}
	if r.Cluster.ID != c.books.cluster {
		return true, fmt.Errorf("the keys of this cluster in the store are those of the cluster %s (%s): two clusters were given one prefix and one id", r.Cluster.Name, r.Cluster.ID)
	}
	if err := errors.Join(beat(ctx, c, r, docs), succeed(ctx, c, r, docs)); err != nil {
		return true, err
	}
	if busy, err = c.members(ctx, r); err != nil {
		return true, err
	}
	if c.role == mtls.Node && !busy {
		if err := c.books.bury(ctx, r, c.seen(), docs); err != nil {
			return true, err
		}
	}
	return busy, c.take(r)
}

// read understands the roll. It is judged as a whole, which is the dearest part of a look,
// and the same one each time but for a few in a year.
func (c *Clerk) read(d store.Doc) (Roll, error) {
	if len(d.Value) > 0 && bytes.Equal(d.Value, c.judged.raw) {
		return c.judged.roll, nil
	}
	r, err := parse(d.Value)
	if err == nil {
		c.judged.raw, c.judged.roll = d.Value, r
	}
	return r, err
}

// take takes up a roll that is another one than before.
func (c *Clerk) take(r Roll) error {
	old := c.Roll()
	me, in := r.Node(c.me)
	if same(old, r) || !in { // who was taken out is told by who did it
		return nil
	}
	was, _ := old.Node(c.me)
	if me.Voter && !was.Voter {
		// What is left of a membership of before is no member of this one.
		if err := errors.Join(disk.Wipe(c.Home.StoreDir()), secret.Write(c.Home.at(joiningFile), nil)); err != nil {
			return err
		}
	}
	if err := c.Home.write(r, c.me); err != nil {
		return err
	}
	c.mu.Lock()
	c.roll = r
	c.mu.Unlock()
	if c.Changed != nil {
		c.Changed(r)
	}
	return nil
}

// same compares what two rolls say, not how it is written.
func same(a, b Roll) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && string(x) == string(y) || reflect.DeepEqual(a, b)
}

// members makes those the members of the store that the roll says. All that are
// missing are added as learners, which vote for nothing; when all of them follow, they
// get their votes one after the other; and only then is anybody removed. So there are
// two voters for an instant only, with both of them alive.
func (c *Clerk) members(ctx context.Context, r Roll) (busy bool, err error) {
	if r.Store != nil {
		return false, nil // they are another's to look after
	}
	have, err := c.Store.Voters(ctx)
	if err != nil {
		return true, err
	}
	c.mu.Lock()
	c.voters = have
	c.mu.Unlock()
	want := r.voters()
	if i := member(have, string(c.me)); i >= 0 && !have[i].Learner && c.Home.Joining() {
		if err := os.Remove(c.Home.at(joiningFile)); err != nil {
			return true, fmt.Errorf("noting that this machine votes: %w", err)
		}
	}
	if _, in := r.Node(c.me); !in || c.role != mtls.Node {
		return false, nil // others do it
	}
	if i := slices.IndexFunc(want, func(n string) bool { return member(have, n) < 0 }); i >= 0 {
		_, err := c.Store.Add(ctx, want[i])
		return true, err
	}
	var wait []store.Voter
	ready := true
	for _, n := range want {
		if v := have[member(have, n)]; v.Learner {
			wait = append(wait, v)
			ready = ready && v.Started && v.Alive
		}
	}
	for _, v := range wait {
		if !ready {
			return true, nil
		}
		if err := c.Store.Promote(ctx, v.ID); err != nil {
			return true, err
		}
		c.Log.Info("a member of the store has its vote", "node", v.Name)
	}
	for _, v := range have {
		if !slices.Contains(want, v.Name) {
			if err := c.Store.Remove(ctx, v.ID); err != nil {
				return true, fmt.Errorf("%s: %w", v.Name, err)
			}
			c.Log.Info("a member of the store was removed", "node", v.Name)
			busy = true
		}
	}
	return busy || len(wait) > 0, nil
}

// Settled waits until a store that was restored has been told who is in the cluster now:
// until then nobody may decide by what it says. It is an error if ctx ends before.
func (h Home) Settled(ctx context.Context) error {
	for {
		var s seed
		raw, err := secret.Read(h.at(seedFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && json.Unmarshal(raw, &s) == nil && !s.Restored {
			return nil
		}
		if pause(ctx, sowPause); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// seeded reports that the store has yet to be told what it begins with.
func (h Home) seeded() bool {
	_, err := os.Stat(h.at(seedFile))
	return err == nil
}

// seen are the members of the store as they were seen last.
func (c *Clerk) seen() []store.Voter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.voters
}

func member(have []store.Voter, name string) int {
	return slices.IndexFunc(have, func(v store.Voter) bool { return v.Name == name })
}

// Lacks says what the cluster lacks, as far as this machine knows; empty: nothing.
func (c *Clerk) Lacks() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := c.roll.Lacks(); text != "" {
		return text
	}
	if c.roll.Store != nil {
		return ""
	}
	if c.voters == nil {
		return "which of its machines have a vote is not known here yet"
	}
	var late []string
	for _, n := range c.roll.voters() {
		if i := member(c.voters, n); i < 0 || c.voters[i].Learner {
			late = append(late, n)
		}
	}
	if len(late) > 0 {
		return fmt.Sprintf("%s joined and has no vote in the store yet: it gets it when all that joined run. Until then only %s votes: run gemel there",
			strings.Join(late, " and "), strings.Join(slices.DeleteFunc(c.roll.voters(), func(n string) bool { return slices.Contains(late, n) }), " and "))
	}
	return ""
}

// renewals renews certificates that are due, and tells of those that end.
func (c *Clerk) renewals(ctx context.Context) {
	first := time.NewTimer(time.Minute)
	defer first.Stop()
	every := time.NewTicker(renewEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-first.C:
		case <-every.C:
		}
		within, cancel := context.WithTimeout(ctx, askTime)
		if err := c.Renew(within, false); err != nil && ctx.Err() == nil {
			c.Log.Warn("certificates could not be renewed; it is tried again in an hour", "error", err)
		}
		cancel()
		ending(c, time.Now())
	}
}

// ending tells which certificates of this machine end.
func ending(c *Clerk, now time.Time) {
	var all []mtls.Expiry
	for _, role := range c.roles() {
		list, err := c.Home.Files(role).Warn(now)
		if err != nil {
			c.Log.Warn("a certificate cannot be read", "role", string(role), "error", err)
		}
		for _, e := range list {
			if !slices.ContainsFunc(all, func(o mtls.Expiry) bool { return o.Name == e.Name && o.Until.Equal(e.Until) }) {
				all = append(all, e)
			}
		}
	}
	if c.Ends != nil {
		c.Ends(all)
	}
}

// roles are the certificates that this machine has.
func (c *Clerk) roles() []mtls.Role {
	if c.role == mtls.Witness {
		return []mtls.Role{mtls.Witness, mtls.Peer}
	}
	return []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}
}

// Renew gets new certificates: those that are due, or all. The old ones stay good, so
// that nothing that is under way is cut.
func (c *Clerk) Renew(ctx context.Context, all bool) error {
	var roles []mtls.Role
	for _, role := range c.roles() {
		due, err := c.Home.Files(role).Due()
		if err != nil {
			return err
		}
		if all || time.Now().After(due) {
			roles = append(roles, role)
		}
	}
	return renew(ctx, c, roles)
}

// renew gets new certificates for some roles.
func renew(ctx context.Context, c *Clerk, roles []mtls.Role) error {
	files := map[mtls.Role]*mtls.Files{}
	for _, role := range roles {
		files[role] = c.Home.Files(role)
	}
	if len(files) == 0 {
		return nil
	}
	csrs, err := join.Ask(files)
	if err != nil {
		return err
	}
	req := join.Request{Kind: c.role, Name: string(c.me), CSRs: csrs}
	var answer join.Answer
	if _, err := os.Stat(c.Home.signer("nodes")); err == nil {
		answer, err = c.sign(ctx, req)
		if err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking for what signs: %w", err)
	} else {
		config, err := c.files.Client(nil, mtls.Name{Cluster: c.Roll().Cluster.ID, Role: mtls.Node})
		if err != nil {
			return err
		}
		if answer, err = (join.Door{Addresses: c.others(), Path: certificates}).Renew(ctx, config, req); err != nil {
			return err
		}
	}
	if err := answer.Install(files); err != nil {
		return err
	}
	c.Log.Info("certificates were renewed", "roles", len(files))
	return nil
}

// sign renews the certificates of a node, which has the keys that sign.
func (c *Clerk) sign(ctx context.Context, req join.Request) (join.Answer, error) {
	a := join.Applicant{Request: req, Names: map[mtls.Role]mtls.Name{}}
	id := c.Roll().Cluster.ID
	for role := range req.CSRs {
		a.Names[role] = mtls.Name{Cluster: id, Role: role, Name: string(c.me)}
	}
	answer, err := c.books.admit(ctx, a)
	answer.Name = mtls.Name{Cluster: id, Role: c.role, Name: string(c.me)}
	return answer, err
}

// others are the addresses of the other nodes.
func (c *Clerk) others() []string {
	var out []string
	for _, n := range c.Roll().Nodes {
		if n.Name != c.me && !n.Witness {
			out = append(out, doors(n)...)
		}
	}
	return out
}

// May says why this machine cannot leave, before anything is stopped for it.
func (c *Clerk) May(with bool) error {
	r := c.Roll()
	names := []ha.Node{c.me}
	for _, n := range r.Nodes {
		if with && n.Witness {
			names = append(names, n.Name)
		}
	}
	_, err := r.without(names...)
	return err
}

// Depart asks another node to take this machine out. with takes the witnesses out too.
func (c *Clerk) Depart(ctx context.Context, with bool) error {
	config, err := c.files.Client([]string{overHTTP}, mtls.Name{Cluster: c.Roll().Cluster.ID, Role: mtls.Node})
	if err != nil {
		return err
	}
	if _, err := (asker{config}).ask(ctx, c.others(), leavePath, leaving{string(c.me), with}); err != nil {
		return err
	}
	return nil
}

// Forget takes what this machine was to its cluster off its disk. It says so in a
// file, so that nothing of the cluster's is begun here by mistake.
func (c *Clerk) Forget() error {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.over = true
	r := c.Roll()
	note := fmt.Sprintf("%s left the cluster %s (%s) at %s\n", c.me, r.Cluster.Name, r.Cluster.ID, time.Now().Format(time.RFC3339))
	if err := secret.Write(LeftFile(c.Home), []byte(note)); err != nil {
		return err
	}
	if err := secret.Remove(c.Home.Node); err != nil {
		return err
	}
	return os.RemoveAll(c.Home.dir())
}

// LeftFile is there on a machine that has left its cluster.
func LeftFile(h Home) string { return h.Data + "/left" }
