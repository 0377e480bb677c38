package member

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
	"gemel/internal/store/disk"
)

// TestCluster is three voters in three processes under store.TLS, and all that happens
// to them, one thing after the other.
func TestCluster(t *testing.T) {
	t.Parallel()
	r := newRig(t, how{n: 3, tls: true, nets: 2})
	r.up("a", "b", "c")
	for _, step := range []struct {
		name string
		do   func(*testing.T, *rig)
	}{
		{"semantics", func(t *testing.T, r *rig) { semantics(t, r.client("b")) }},
		{"docs", func(t *testing.T, r *rig) { docs(t, r.client("c")) }},
		{"voters", voters},
		{"latency", latency},
		{"lead", lead},
		{"watch", watch},
		{"failover", failover},
		{"unknown", unknown},
		{"frozen", frozen},
		{"stop", stopping},
		{"wiped", wiped},
		{"flipped", flipped},
		{"older", older},
		{"replace", replace},
		{"other role", otherRole},
	} {
		if !t.Run(step.name, func(t *testing.T) { r.t = t; step.do(t, r) }) {
			break
		}
	}
	r.t = t
}

func voters(t *testing.T, r *rig) {
	lead := r.leader()
	all, err := r.client("a").Voters(ctxFor(t, 5*time.Second))
	if err != nil || len(all) != 3 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, v := range all {
		if v.Learner || !v.Alive || v.Name == "" || v.ID == 0 || !v.Started || v.Leader != (v.Name == lead) {
			t.Errorf("%+v, and %s leads", v, lead)
		}
	}
}

// latency shows what a read and a write cost, at the leader and beside it.
func latency(t *testing.T, r *rig) {
	lead := r.leader()
	for _, by := range []string{lead, r.others(lead)[0]} {
		c := r.client(by)
		var reads, writes []time.Duration
		key := ha.Rev(0)
		for range 200 {
			began := time.Now()
			if got := c.Node(ctxFor(t, 5*time.Second), "l"); got.Error != "" {
				t.Fatal(got.Error)
			} else {
				key = got.Key
			}
			reads = append(reads, time.Since(began))
			began = time.Now()
			mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("l"), Guard: key, Node: member("l", "i")}}})
			writes = append(writes, time.Since(began))
		}
		slices.Sort(reads)
		slices.Sort(writes)
		t.Logf("leader: %v; read p50 %v p99 %v, write p50 %v p99 %v", by == lead, reads[100], reads[198], writes[100], writes[198])
	}
}

// id returns a voter by its name.
func (r *rig) id(by, name string) uint64 {
	r.t.Helper()
	all, err := r.client(by).Voters(ctxFor(r.t, 10*time.Second))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, v := range all {
		if v.Name == name {
			return v.ID
		}
	}
	r.t.Fatalf("%s is no voter: %+v", name, all)
	return 0
}

// others returns the running members but one.
func (r *rig) others(but string) []string {
	var out []string
	for _, n := range names {
		if r.running[n] != nil && n != but {
			out = append(out, n)
		}
	}
	return out
}

// lead moves the leadership, ordered at each member and not only at the leader.
func lead(t *testing.T, r *rig) {
	for _, by := range []string{"a", "b", "c"} {
		to := r.others(r.leader())[0]
		began := time.Now()
		until(t, "move of the leadership", func() error { return r.client(by).Lead(ctxFor(t, 5*time.Second), r.id(by, to)) })
		t.Logf("leadership moved by %s to %s in %v", by, to, time.Since(began))
		if now := r.leader(); now != to {
			t.Errorf("%s leads and not %s", now, to)
		}
	}
	if err := r.client("a").Lead(ctxFor(t, time.Second), 4711); err == nil {
		t.Error("somebody who is not there leads")
	}
}

func watch(t *testing.T, r *rig) {
	ctx, cancel := context.WithCancel(t.Context())
	lead := r.leader()
	follower := r.others(lead)[0]
	news := make(chan ha.Rev, 1000)
	var done sync.WaitGroup
	for _, by := range []string{lead, follower} {
		c := r.client(by)
		done.Go(func() { c.Watch(ctx, func(at ha.Rev) { news <- at }) })
	}
	heard := func(at ha.Rev, times int) {
		t.Helper()
		end := time.After(10 * time.Second)
		for times > 0 {
			select {
			case got := <-news:
				if got >= at {
					times--
				}
			case <-end:
				t.Fatalf("the change at %d was not told", at)
			}
		}
	}
	heard(1, 2) // that it has begun
	c := r.client(follower)
	began := time.Now()
	heard(mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("w"), Node: member("w", "1")}}}), 2)
	t.Logf("a write and both watches: %v", time.Since(began))
	r.kill(lead)
	var at ha.Rev
	until(t, "write after the leader's death", func() error {
		now := c.Node(ctxFor(t, time.Second), "w")
		got := c.Write(ctxFor(t, time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("w"), Guard: now.Key, Node: member("w", "2")}}})
		if !got.OK {
			return errors.New(got.Error)
		}
		at = got.At
		return nil
	})
	heard(at, 1)
	r.up(lead)
	heard(at, 1) // the one that was away has found its way back
	cancel()
	done.Wait()
}

// failover kills the leader and looks how long reads and writes fail.
func failover(t *testing.T, r *rig) {
	var reads, writes []time.Duration
	for range 2 {
		lead := r.leader()
		c := r.client(r.others(lead)[0])
		was := c.Node(ctxFor(t, 5*time.Second), "f")
		killed := time.Now()
		r.running[lead].signal(syscall.SIGKILL)
		if got := c.Node(ctxFor(t, 10*time.Second), "f"); got.Error != "" || got.At < was.At {
			t.Fatalf("%+v", got)
		}
		reads = append(reads, time.Since(killed).Round(time.Millisecond))
		until(t, "write after the leader's death", func() error {
			now := c.Node(ctxFor(t, time.Second), "f")
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			got := c.Write(ctx, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("f"), Guard: now.Key, Node: member("f", "x")}}})
			if !got.OK {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
		writes = append(writes, time.Since(killed).Round(time.Millisecond))
		r.gone(lead)
		r.up(lead)
	}
	t.Logf("election time-out %v; from the death of the leader to a read %v, to a write %v", r.members["a"].Election, reads, writes)
}

// unknown writes while the leader dies: what is told must agree with what is read
// afterwards.
func unknown(t *testing.T, r *rig) {
	seen := map[string]int{}
	for round := range 2 {
		lead := r.leader()
		c := r.client(r.others(lead)[0])
		key := ha.Node(fmt.Sprintf("u%d", round))
		var told []ha.StoreWritten
		stop := make(chan struct{})
		go func() {
			time.AfterFunc(30*time.Millisecond, func() { r.running[lead].signal(syscall.SIGKILL) })
			time.AfterFunc(120*time.Millisecond, func() { close(stop) })
		}()
		for i := 0; ; i++ {
			// One key for each, so that the fate of each is seen.
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			n := ha.Node(fmt.Sprintf("%s-%d", key, i))
			told = append(told, c.Write(ctx, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey(n), Node: member(n, "i")}}}))
			cancel()
			select {
			case <-stop:
			default:
				continue
			}
			break
		}
		r.gone(lead)
		for i, w := range told {
			n := ha.Node(fmt.Sprintf("%s-%d", key, i))
			got := c.Node(ctxFor(t, 10*time.Second), n)
			switch {
			case got.Error != "":
				t.Fatal(got.Error)
			case w.OK && got.Key != w.At:
				t.Errorf("write %s at %d is told and %d is there", n, w.At, got.Key)
			case w.Refused:
				t.Errorf("%s: %+v", n, w)
			case w.OK:
				seen["ok"]++
			case got.Key != 0:
				seen["unknown and committed"]++
			default:
				seen["unknown and not committed yet"]++
			}
			if !w.OK && !w.Refused && w.Error == "" {
				t.Errorf("%s: an unknown outcome without a reason", n)
			}
		}
		r.up(lead)
	}
	t.Logf("outcomes: %v", seen)
	if seen["ok"] == 0 || len(seen) < 2 {
		t.Errorf("no write met the death of the leader: %v", seen)
	}
}

// frozen stops the leader: the others go on, and when it goes on it has nothing to
// say.
func frozen(t *testing.T, r *rig) {
	lead := r.leader()
	own, other := r.client(lead), r.client(r.others(lead)[0])
	at := mustWrite(t, own, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("z"), Node: member("z", "1")}}})
	p := r.running[lead]
	r.freeze(p)
	if got := own.Node(ctxFor(t, 200*time.Millisecond), "z"); got.Error == "" {
		t.Errorf("a member that stands still has answered: %+v", got)
	}
	var then ha.Rev
	until(t, "write beside the frozen leader", func() error {
		got := other.Write(ctxFor(t, time.Second), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("z"), Guard: at, Node: member("z", "2")}}})
		if !got.OK && !got.Refused {
			return errors.New(got.Error)
		}
		then = other.Node(ctxFor(t, 5*time.Second), "z").Key
		return nil
	})
	p.signal(syscall.SIGCONT)
	// From its first answer on it must be the present: this is etcd's issue 20418.
	until(t, "answer of the member that stood still", func() error {
		got := own.Node(ctxFor(t, time.Second), "z")
		if got.Error != "" {
			return errors.New(got.Error)
		}
		if got.Key != then || got.Record.Incarnation != "2" {
			t.Errorf("it answers from the past: %+v, and the key was at %d", got, then)
		}
		return nil
	})
}

// stopping ends the leader in order: nobody waits for an election, and a client
// that watches holds nothing up.
func stopping(t *testing.T, r *rig) {
	lead := r.leader()
	c := r.client(r.others(lead)[0])
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	begun := make(chan struct{})
	var once sync.Once
	own := r.client(lead)
	done.Go(func() { own.Watch(ctx, func(ha.Rev) { once.Do(func() { close(begun) }) }) })
	<-begun
	took := make(chan time.Duration)
	go func() {
		began := time.Now()
		r.running[lead].signal(syscall.SIGTERM)
		<-r.running[lead].ended
		took <- time.Since(began)
	}()
	worst := time.Duration(0)
	var all time.Duration
	for all == 0 {
		began := time.Now()
		if got := c.Node(ctxFor(t, 10*time.Second), "z"); got.Error != "" {
			t.Fatal(got.Error)
		}
		worst = max(worst, time.Since(began))
		select {
		case all = <-took:
		default:
		}
	}
	t.Logf("the leader stopped within %v, the longest read beside it took %v", all, worst)
	if all > 10*time.Second {
		t.Errorf("stopping took %v", all)
	}
	cancel()
	done.Wait()
	r.gone(lead)
	r.up(lead)
}

// refused starts a member that must not start.
func refused(t *testing.T, r *rig, n, why string) {
	t.Helper()
	r.start(n)
	p := r.gone(n)
	if !strings.Contains(p.text(), store.ErrForeign.Error()) || !strings.Contains(p.text(), why) {
		t.Fatalf("member %s: %v: %q\n%s", n, p.cmd.ProcessState, p.text(), p.logged())
	}
	t.Log(p.text())
}

func wiped(t *testing.T, r *rig) {
	r.halt("c")
	m := r.members["c"]
	aside := m.Dir + ".aside"
	rename(t, m.Dir, aside)
	refused(t, r, "c", "is gone")
	// With the mark gone as well, as on a new disk, the others know.
	rename(t, disk.MarkPath(m.Dir), aside+".mark")
	refused(t, r, "c", "has served")
	m.Join = true
	r.members["c"] = m
	refused(t, r, "c", "has served")
	_ = os.RemoveAll(m.Dir)
	_ = os.Remove(disk.MarkPath(m.Dir))
	// Data without a mark, and the mark of another.
	rename(t, aside, m.Dir)
	refused(t, r, "c", "no mark")
	b, err := os.ReadFile(disk.MarkPath(r.members["b"].Dir))
	if err != nil {
		t.Fatal(err)
	}
	write(t, disk.MarkPath(m.Dir), strings.Replace(string(b), `"name":"b"`, `"name":"c"`, 1))
	refused(t, r, "c", "its mark says member")
	write(t, disk.MarkPath(m.Dir), "{")
	refused(t, r, "c", "damaged")
	_ = os.Remove(disk.MarkPath(m.Dir))
	rename(t, aside+".mark", disk.MarkPath(m.Dir))
	r.up("c") // and with what it had it is who it was
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// older puts data back from a copy.
func older(t *testing.T, r *rig) {
	r.halt("c")
	m := r.members["c"]
	old := filepath.Join(r.dir, "copy")
	if err := os.CopyFS(old, os.DirFS(m.Dir)); err != nil {
		t.Fatal(err)
	}
	r.up("c")
	for i := range 3 {
		n := ha.Node(fmt.Sprintf("o%d", i))
		mustWrite(t, r.client("c"), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey(n), Node: member(n, "i")}}})
	}
	r.halt("c")
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	rename(t, old, m.Dir)
	if err := os.Chmod(m.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, r, "c", "is older than it was")
}

// replace takes the member out whose data is worth nothing and adds it anew.
func replace(t *testing.T, r *rig) {
	c := r.client("a")
	// Its id is known although it is dead.
	dead := r.id("a", "c")
	began := time.Now()
	if err := c.Remove(ctxFor(t, 20*time.Second), dead); err != nil {
		t.Fatal(err)
	}
	t.Logf("removing a dead member took %v", time.Since(began))
	if err := c.Remove(ctxFor(t, 20*time.Second), dead); err != nil {
		t.Fatalf("removing it again: %v", err)
	}
	refused(t, r, "c", "older")
	m := r.members["c"]
	if err := disk.Wipe(m.Dir); err != nil {
		t.Fatal(err)
	}
	m.Join = true
	r.members["c"] = m
	// It may be started before the others know of it.
	p := r.start("c")
	until(t, "word of its waiting", func() error {
		if log := p.logged(); !strings.Contains(log, "those that answer have not added it") {
			return errors.New(log)
		}
		return nil
	})
	began = time.Now()
	id, err := c.Add(ctxFor(t, 20*time.Second), "c")
	if err != nil || id == dead {
		t.Fatalf("%x, %v", id, err)
	}
	added := time.Since(began)
	select {
	case <-p.ready:
	case <-p.ended:
		t.Fatalf("it ended: %s\n%s", p.text(), p.logged())
	case <-time.After(30 * time.Second):
		t.Fatalf("it is not ready\n%s", p.logged())
	}
	if got := r.client("c").Node(ctxFor(t, 300*time.Millisecond), "z"); got.Error == "" {
		t.Error("a member without a vote gives an authority")
	}
	up := time.Since(began)
	if err := c.Promote(ctxFor(t, 20*time.Second), id); err != nil {
		t.Fatal(err)
	}
	t.Logf("added after %v, up after %v, with a vote after %v", added, up, time.Since(began))
	if err := c.Promote(ctxFor(t, 20*time.Second), id); err != nil {
		t.Fatalf("giving it its vote again: %v", err)
	}
	until(t, "read at the new member", func() error {
		if got := r.client("c").Node(ctxFor(t, time.Second), "z"); got.Error != "" || got.Record.Incarnation != "2" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	// The leader goes as well, while it lives: it ends by itself, and says why.
	lead := r.leader()
	began = time.Now()
	by := r.others(lead)[0]
	if err := r.client(by).Remove(ctxFor(t, 20*time.Second), r.id(by, lead)); err != nil {
		t.Fatal(err)
	}
	t.Logf("removing the leader took %v", time.Since(began))
	began = time.Now()
	at := r.client(by).Node(ctxFor(t, 5*time.Second), "z")
	mustWrite(t, r.client(by), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("z"), Guard: at.Key, Node: member("z", "3")}}})
	t.Logf("a read and a write after that: %v", time.Since(began))
	if p := r.gone(lead); !strings.Contains(p.text(), store.ErrForeign.Error()) {
		t.Errorf("it ended with %q", p.text())
	}
}

// otherRole starts a member whose certificate is of the same authority and of
// another role: it is let in nowhere, lets nobody in, and waits until it is told to end.
func otherRole(t *testing.T, r *rig) {
	gone := ""
	for _, n := range []string{"a", "b", "c"} {
		if r.running[n] == nil {
			gone = n
		}
	}
	by := r.others(gone)[0]
	m := r.members[gone]
	if err := disk.Wipe(m.Dir); err != nil {
		t.Fatal(err)
	}
	m.Join, m.TLS = true, r.ca.issue("thief", "gemel://test/agent")
	r.members[gone] = m
	r.start(gone)
	p := r.running[gone]
	until(t, "word of its waiting", func() error {
		if log := p.logged(); !strings.Contains(log, "this member waits until a voter of the cluster knows it") || !strings.Contains(log, "no voter answers") {
			return errors.New(log)
		}
		return nil
	})
	until(t, "word of the refusal at a voter", func() error {
		if log := r.running[by].logged(); !strings.Contains(log, "connection to the store was refused") || !strings.Contains(log, "gemel://test/agent") {
			return errors.New(log)
		}
		return nil
	})
	if took := r.halt(gone); took > 2*time.Second {
		t.Errorf("its end took %v", took)
	}
}
