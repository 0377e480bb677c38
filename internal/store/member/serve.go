package member

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	_ "unsafe" // for go:linkname

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"golang.org/x/sys/unix"

	"gemel/internal/store"
	"gemel/internal/store/disk"
)

const (
	markEvery = 2 * time.Second
	closeTime = 2 * time.Second // how long an end may take after all is on the disk
	readAgain = 60 * time.Millisecond
)

// readIndexRetryTime is how long etcd waits for an answer to the question of each
// linearizable read before it asks again. All reads of a member go through one
// loop, so that one lost datagram of half a second, its default, is the end of
// every authority of this machine. There is no setting for it. A test fails when
// etcd does not have the variable any more.
//
//go:linkname readIndexRetryTime go.etcd.io/etcd/server/v3/etcdserver/read.readIndexRetryTime
var readIndexRetryTime time.Duration

// Serve runs a voter in this process until ctx ends or the member does. etcd ends
// the process by itself on what it cannot bear, as a full disk: give it one of its
// own. Serve sets the umask and the directory of the process, and variables of
// etcd.
func Serve(ctx context.Context, m Member, log *slog.Logger) error {
	m, err := m.checked()
	if err != nil {
		return err
	}
	unix.Umask(0o077)
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(m.Dir)), 0o700); err != nil {
		return fmt.Errorf("making room for the store: %w", err)
	}
	unlock, err := disk.Lock(m.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	z := zapTo(log)
	tune()
	fresh, err := identify(m)
	if err != nil {
		return err
	}
	w, err := newWire(m, log)
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	if fresh {
		if err := admitted(ctx, &m, w); err != nil || ctx.Err() != nil {
			return err
		}
		// What a start that was cut off has left is of no use, and nobody's.
		if err := os.RemoveAll(filepath.Join(m.Dir, "member")); err != nil {
			return fmt.Errorf("making room for the store: %w", err)
		}
		if err := (mark{Name: m.Name}).write(m.Dir); err != nil {
			return err
		}
	}
	if err := disk.Clear(m.Socket); err != nil {
		return err
	}
	at, err := disk.PlaceOf(m.Socket)
	if err != nil {
		return err
	}
	defer at.Close()
	c := m.config(at.Addr, z)
	var running atomic.Pointer[embed.Etcd]
	c.UserHandlers = map[string]http.Handler{store.LeadPath: leadHandler(&running)}
	e, err := embed.StartEtcd(c)
	if err != nil {
		if strings.Contains(err.Error(), "has already been bootstrapped") {
			return fmt.Errorf("%w: the cluster knows member %s and its data is not here: %w", store.ErrForeign, m.Name, err)
		}
		return fmt.Errorf("starting the store: %w", err)
	}
	running.Store(e)
	if err := os.Chmod(at.Addr, 0o600); err != nil {
		return errors.Join(fmt.Errorf("the store's socket: %w", err), stop(e))
	}
	return watchOver(ctx, m, e, w)
}

// tune sets what etcd has no settings for.
func tune() {
	// Its way to other voters asks the environment for a proxy.
	_ = os.Setenv("NO_PROXY", "*") // fails only for a name that is none
	readIndexRetryTime = readAgain
	wal.SegmentSizeBytes = walSegment
}

// watchOver keeps the mark, and ends the member.
func watchOver(ctx context.Context, m Member, e *embed.Etcd, w *wire) error {
	// Before it is of use to anybody: from now on its data is missed.
	last := markOf(m, e)
	early := last
	early.Index, early.Term = 0, 0
	if old, err := readMark(m.Dir); err == nil && old != nil {
		early.Index, early.Term = old.Index, old.Term
	}
	if err := early.write(m.Dir); err != nil {
		return errors.Join(err, stop(e))
	}
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	ready := e.Server.ReadyNotify()
	odd := make(chan string, 1)
	var looking sync.WaitGroup
	look, enough := context.WithCancel(ctx)
	defer looking.Wait()
	defer enough()
	stop := func(e *embed.Etcd) error { // what is compared is read from what is closed then
		enough()
		looking.Wait()
		return stop(e)
	}
	for {
		select {
		case <-ctx.Done():
			err := stop(e)
			// All of it is on the disk now.
			return errors.Join(err, markOf(m, e).write(m.Dir))
		case <-e.Server.StopNotify():
			err := errors.Join(stop(e), errors.New("the store ended by itself"))
			if e.Server.IsIDRemoved(uint64(e.Server.MemberID())) {
				return fmt.Errorf("%w: member %s was removed from the cluster", store.ErrForeign, e.Server.MemberID())
			}
			return err
		case err := <-e.Err():
			return errors.Join(fmt.Errorf("serving the store: %w", err), stop(e))
		case <-ready:
			ready = nil
			if m.Ready != nil {
				m.Ready()
			}
			looking.Go(func() { comparing(look, e, w.log, odd) })
		case why := <-odd:
			last.Odd = why
			return errors.Join(last.write(m.Dir), stop(e), fmt.Errorf("%w: the data in %s is damaged: %s", store.ErrForeign, m.Dir, why))
		case cluster := <-m.Moved:
			if err := w.move(cluster); err != nil {
				w.log.Error("the voters' new addresses are not used", "error", err)
			}
		case <-tick.C:
			// What is applied may be on its way to the disk still. What was applied at
			// the tick before is there, unless the disk has stood still since: then the
			// mark is too high, and the member joins anew for nothing.
			now := markOf(m, e)
			if now.Index != last.Index && last.Index != 0 {
				if err := last.write(m.Dir); err != nil {
					w.log.Warn("the mark of the store cannot be written: data that is put back from a copy may go unnoticed", "error", err)
				}
			}
			last = now
		}
	}
}

func markOf(m Member, e *embed.Etcd) mark {
	s := e.Server
	out := mark{
		Cluster: s.Cluster().ID().String(), Member: s.MemberID().String(), Name: m.Name,
		Index: s.AppliedIndex(), Term: s.Term(),
	}
	if kv := s.KV(); kv != nil {
		out.Rev = kv.Rev()
	}
	return out
}

// stop ends a member. Leadership is handed over first and clients are not waited
// for: etcd would give those that watch seven seconds to leave, and lead nobody
// meanwhile.
func stop(e *embed.Etcd) error {
	e.Server.Stop() // moves the leadership, and returns when all is on the disk
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Close()
	}()
	t := time.NewTimer(closeTime)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C: // connections that are left end with the process
		for _, l := range e.Clients {
			_ = l.Close() // takes the socket away
		}
	}
	return nil
}

const (
	admitSoon = 100 * time.Millisecond // between two questions to the voters, at first
	admitLate = 2 * time.Second        // at last
	admitTell = time.Minute            // between two words about that in the log
)

// admitted returns when a member without data and mark may start. One that joins waits
// until a voter knows it: whoever adds it tells this machine and the voters, and who of
// them reads that first is chance. It waits for as long as it takes; ctx ends it. Where the voters are is kept current meanwhile.
func admitted(ctx context.Context, m *Member, w *wire) error {
	var told time.Time
	for pause := admitSoon; ; pause = min(2*pause, admitLate) {
		known, err := strangers(ctx, *m)
		if errors.Is(err, store.ErrForeign) || !m.Join {
			return err
		}
		if known || ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = errors.New("those that answer have not added it")
		}
		if time.Since(told) >= admitTell {
			told = time.Now()
			w.log.Warn("this member waits until a voter of the cluster knows it", "member", m.Name, "error", err)
		}
		next := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case cluster := <-m.Moved:
			m.Cluster = cluster
			if err := w.move(cluster); err != nil {
				w.log.Error("the voters' new addresses are not used", "error", err)
			}
			pause = admitSoon
		case <-next.C:
		}
		next.Stop()
	}
}

// strangers asks the other voters, before a member without data and mark starts,
// whether it has ever served. etcd would start it as the one that they know, with
// an empty log. Known says that one of them has added it.
func strangers(ctx context.Context, m Member) (known bool, err error) {
	var peers []string
	for name := range m.Cluster {
		if name != m.Name {
			peers = append(peers, name)
		}
	}
	if len(peers) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	type answer struct {
		all []*membership.Member
		err error
	}
	answers := make(chan answer, len(peers))
	for _, p := range peers {
		go func() {
			all, err := membersAt(ctx, p)
			answers <- answer{all, err}
		}()
	}
	var failed []error
	for range peers {
		a := <-answers
		if a.err != nil {
			failed = append(failed, a.err)
		}
		for _, k := range a.all {
			if !slices.Contains(k.PeerURLs, store.PeerURL(m.Name)) {
				continue
			}
			if known = true; len(k.ClientURLs) > 0 {
				return true, fmt.Errorf("%w: the cluster knows member %s (%s) as one that has served, and there is no data of it here", store.ErrForeign, k.ID, k.Name)
			}
		}
	}
	if m.Join && len(failed) == len(peers) {
		return false, fmt.Errorf("no voter answers: %w", errors.Join(failed...))
	}
	return known, nil
}

// membersAt asks one voter whom it knows.
func membersAt(ctx context.Context, name string) ([]*membership.Member, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://voter/members", nil)
	if err != nil {
		return nil, err
	}
	resp, err := over(door(name)).RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("voter %s: %w", name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("voter %s: %s", name, resp.Status)
	}
	var known []*membership.Member
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(&known); err != nil {
		return nil, fmt.Errorf("voter %s: %w", name, err)
	}
	return known, nil
}

// leadHandler moves the leadership of the cluster. etcd's own call for it must be
// made at the leader, whose socket is on another machine; its log carries the
// request there.
func leadHandler(running *atomic.Pointer[embed.Etcd]) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, err := strconv.ParseUint(r.URL.Query().Get("to"), 16, 64)
		e := running.Load()
		switch {
		case r.Method != http.MethodPost:
			http.Error(w, "POST only", http.StatusMethodNotAllowed)
			return
		case err != nil:
			http.Error(w, "to must be the id of a member in hex", http.StatusBadRequest)
			return
		case e == nil:
			http.Error(w, "the store is not up yet", http.StatusServiceUnavailable)
			return
		}
		from := e.Server.Lead()
		if from == uint64(types.ID(to)) {
			return
		}
		if err := e.Server.MoveLeader(r.Context(), from, to); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
}
