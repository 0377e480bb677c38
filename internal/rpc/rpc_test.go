package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/api/gemel/v1/gemelv1connect"
	"gemel/internal/access"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

// patience bounds waiting for something that must happen.
const patience = 30 * time.Second

// world is a server with a made-up daemon behind it.
type world struct {
	socket string
	server *Server
	policy *access.Policy
	board  *status.Board
	feed   *status.Feed
	stop   func() error

	mu      sync.Mutex
	asked   []ha.Request
	audit   []access.Entry
	history []ha.Event
	called  []string
	failing error
	applied []byte
}

func (w *world) Request(_ context.Context, r ha.Request) (ha.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, r)
	if w.failing != nil {
		return ha.Answer{}, w.failing
	}
	if r.Verb == ha.VerbStart {
		return ha.Answer{OK: false, Why: ha.Reason{Rule: "request.start", Text: "it runs already"}}, nil
	}
	return ha.Answer{OK: true, Undo: "gemel start " + r.Target.Name, Why: ha.Reason{Rule: "request", Text: "as asked",
		Facts: []ha.Fact{{Name: "value", Value: r.Value}}}}, nil
}

func (w *world) Why(_ context.Context, q *gemelv1.WhyRequest) (*gemelv1.WhyResponse, error) {
	return &gemelv1.WhyResponse{Text: "because\n", ChainJson: `{"n":18446744073709551615}`}, nil
}

func (w *world) Replay(context.Context, *gemelv1.ReplayRequest) (*gemelv1.ReplayResponse, error) {
	panic("a failure inside")
}

func (w *world) Evidence(_ context.Context, ref string) ([]byte, error) {
	if ref == "none" {
		return nil, fmt.Errorf("reading evidence: %w", &ha.Error{Kind: ha.ErrNotFound, Reason: "no-evidence", Hint: "it may have been too old", Err: errors.New("there is no evidence")})
	}
	return []byte("\x00\xff" + ref), nil
}

func (w *world) say(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = append(w.called, s)
}

func (w *world) Detach(context.Context) error { w.say("detach"); return nil }
func (w *world) Upgrade(_ context.Context, b string) (string, string, error) {
	w.say("upgrade " + b)
	return "1.0", "1.1", nil
}
func (w *world) Shutdown(_ context.Context, why string) error { w.say("shutdown " + why); return nil }

func (w *world) output(ctx context.Context, p ha.Process, from From, each func([]byte, string) error) error {
	if err := each([]byte(fmt.Sprintf("%s %d %v\n", p, from.Lines, from.Follow)), from.After+"+1"); err != nil || !from.Follow {
		return err
	}
	if err := each(bytes.Repeat([]byte{0xff}, 3*logPiece+1), "end"); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// record keeps an event and tells it, as the engine does.
func (w *world) record(e ha.Event) {
	w.mu.Lock()
	e.ID = uint64(len(w.history) + 1)
	e.Wall = time.Unix(1e9+int64(e.ID), 0)
	if e.Code == 0 {
		e.Code, e.Subject = ha.ProcessStarted, ha.OfProcess("web")
	}
	w.history = append(w.history, e)
	w.mu.Unlock()
	w.feed.Tell(e)
}

func (w *world) past(_ context.Context, after uint64, since time.Time, each func(ha.Event) bool) error {
	w.mu.Lock()
	all := slices.Clone(w.history)
	w.mu.Unlock()
	for _, e := range all {
		if e.ID > after && !e.Wall.Before(since) && !each(e) {
			break
		}
	}
	return nil
}

func picture(rev uint64, names ...string) *status.Snapshot {
	s := &status.Snapshot{Revision: rev, At: 100e9, Wall: time.Unix(1e9, 0), Node: status.NodeStatus{Name: "alpha", Version: "1.0", Admin: status.Unlocked, Op: status.Enabled, Since: 40e9, Budget: []ha.Instant{50e9}}}
	for i, n := range names {
		s.Processes = append(s.Processes, status.ProcessStatus{Name: ha.Process(n), State: "running", PID: 100 + i, Since: 90e9,
			Admin: status.Unlocked, Op: status.Enabled, Severity: ha.Major, Recovery: ha.RecoveryRestart, Escalation: ha.EscalationFailover,
			Last: &ha.ExitStatus{Code: -1, Signal: 9}, Status: "bad \xff byte"})
	}
	s.Checks = []status.CheckStatus{{Name: "pages", State: "passing", Last: 99e9, Covers: []ha.Process{"web"}}}
	s.Alarms = []ha.Event{{ID: 7, Code: ha.ExistenceRecovering, Subject: ha.OfProcess("web"), Change: ha.Assert, Severity: ha.Critical, Fault: ha.FaultExistence}}
	return s
}

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rpc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serve(t testing.TB, lists manifest.Access) *world {
	t.Helper()
	w := &world{board: &status.Board{}, feed: status.NewFeed(0), policy: access.New(lists, uint32(os.Geteuid()))}
	w.board.Publish(picture(1, "cache", "web"))
	w.server = NewServer(Backend{
		Board: w.board, Feed: w.feed, History: w.past, Output: w.output, Core: w, Asks: w, Life: w,
		Audit: func(e access.Entry) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.audit = append(w.audit, e)
			return nil
		},
		Version: "1.0", Revision: "abc",
	}, w.policy, slog.New(slog.DiscardHandler))
	start(t, w, filepath.Join(shortDir(t), "api.sock"))
	return w
}

func start(t testing.TB, w *world, socket string) {
	t.Helper()
	w.socket = socket
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(ctx, l) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-served:
			return err
		case <-time.After(patience):
			return errors.New("Serve did not return")
		}
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

func dial(t testing.TB, w *world) *Client {
	t.Helper()
	c, err := Dial(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// plain is an HTTP client of the socket, as curl is.
func plain(t testing.TB, w *world) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", w.socket)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

func wantKind(t *testing.T, err error, kind ha.ErrorKind, parts ...string) {
	t.Helper()
	var e *ha.Error
	if !errors.As(Explain(err), &e) {
		t.Fatalf("got %v; want an error of kind %v", err, kind)
	}
	text := e.Error() + " | " + e.Reason + " | " + e.Hint
	if e.Kind != kind {
		t.Errorf("kind %v of %q; want %v", e.Kind, text, kind)
	}
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}

func TestStatus(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	res, err := c.Status(t.Context(), &gemelv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	s := res.Snapshot
	p := s.Processes[1]
	if s.Revision != 1 || p.Name != "web" || p.Pid != 101 || p.Severity != gemelv1.Severity_SEVERITY_MAJOR ||
		p.Recovery != gemelv1.Recovery_RECOVERY_RESTART || p.Escalation != gemelv1.Escalation_ESCALATION_FAILOVER ||
		p.Last.Text != "signal 9 (SIGKILL)" || p.Status != "bad \uFFFD byte" || p.Started != nil {
		t.Errorf("got %v", p)
	}
	if at := p.Since.AsTime().Unix(); at != 1e9-10 {
		t.Errorf("since %d; want ten seconds before the picture", at)
	}
	if s.Alarms[0].Severity != gemelv1.Severity_SEVERITY_CRITICAL || s.Alarms[0].Change != gemelv1.Change_CHANGE_ASSERT || s.Alarms[0].Word != "existence-fault" || !s.Alarms[0].Classic {
		t.Errorf("got %v", s.Alarms[0])
	}
	a, err := c.Alarms(t.Context(), &gemelv1.AlarmsRequest{})
	if err != nil || len(a.Alarms) != 1 || a.Alarms[0].Do == "" {
		t.Errorf("got %v, %v", a, err)
	}
	if c.Daemon.Version != "1.0" || c.Daemon.Monitor != int32(os.Getpid()) || c.Skew("1.0") != "" || c.Skew("2.0") == "" {
		t.Errorf("got %v", c.Daemon)
	}
	w.board.Publish(nil)
	_, err = c.Status(t.Context(), &gemelv1.StatusRequest{})
	wantKind(t, err, ha.ErrUnavailable, "starting")
}

func TestWatchStatus(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	s, err := c.WatchStatus(t.Context(), &gemelv1.WatchStatusRequest{ChangesOnly: true, IntervalMs: 1})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Receive() || s.Msg().Partial || len(s.Msg().Snapshot.Processes) != 2 {
		t.Fatalf("first: %v, %v", s.Msg(), s.Err())
	}
	now := picture(2, "cache", "new")
	now.Processes[0].PID = 4711
	now.Wall = now.Wall.Add(time.Microsecond)
	w.board.Publish(now)
	if !s.Receive() {
		t.Fatal(s.Err())
	}
	m := s.Msg()
	if !m.Partial || m.Snapshot.Revision != 2 || len(m.Snapshot.Processes) != 2 || !slices.Equal(m.GoneProcesses, []string{"web"}) || len(m.Snapshot.Checks) != 0 {
		t.Errorf("second: %v", m)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	for s.Receive() {
	}
	wantKind(t, s.Err(), ha.ErrUnavailable, "ending")
}

func TestRequest(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	web := &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: "web"}
	res, err := c.Request(t.Context(), &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_SET_RECOVERY, Target: web, Value: "failover-restart"})
	if err != nil || !res.Ok || res.Undo != "gemel start web" || res.Reason.Facts[0].Value != "failover-restart" {
		t.Fatalf("got %v, %v", res, err)
	}
	if res, err = c.Request(t.Context(), &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_START, Target: web}); err != nil || res.Ok {
		t.Fatalf("got %v, %v", res, err)
	}
	for _, x := range []struct {
		req  *gemelv1.RequestRequest
		kind ha.ErrorKind
		say  string
	}{
		{&gemelv1.RequestRequest{}, ha.ErrInvalid, "verb"},
		{&gemelv1.RequestRequest{Verb: 99, Target: web}, ha.ErrInvalid, "no verb 99"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP}, ha.ErrInvalid, "stop is for a process"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP, Target: &gemelv1.Subject{Kind: 99, Name: "web"}}, ha.ErrInvalid, "stop is for a process"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS}}, ha.ErrInvalid, "no name"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: "wed"}}, ha.ErrNotFound, "did you mean web?"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP, Target: web, Value: "x"}, ha.ErrInvalid, "takes no value"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_SET_RECOVERY, Target: web}, ha.ErrInvalid, "allowed: none"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_SET_ESCALATION, Target: web, Value: "restart"}, ha.ErrInvalid, "allowed: none, failover"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_LOCK, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_CHECK, Name: "nope"}}, ha.ErrNotFound, "no check"},
		{&gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_LOCK, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: strings.Repeat("x", 300)}}, ha.ErrInvalid, "300 bytes"},
	} {
		_, err := c.Request(t.Context(), x.req)
		wantKind(t, err, x.kind, x.say)
	}
	w.mu.Lock()
	w.failing = fmt.Errorf("asking the core: %w", &ha.Error{Kind: ha.ErrRefused, Reason: "ending", Hint: "wait", Err: errors.New("it ends")})
	w.mu.Unlock()
	_, err = c.Request(t.Context(), &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_LOCK, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_NODE}})
	wantKind(t, err, ha.ErrRefused, "asking the core: it ends", "wait")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) != 3 || w.asked[0].Target != ha.OfProcess("web") || !strings.Contains(w.asked[0].By, "(uid ") {
		t.Errorf("asked %+v", w.asked)
	}
	var results []string
	for _, e := range w.audit {
		results = append(results, e.Target+": "+e.Result)
	}
	if len(results) != 14 || results[0] != "set-recovery process web failover-restart: ok" || results[1] != "start process web: refused" || results[13] != "lock node: failed" {
		t.Errorf("audit %q", results)
	}
}

func TestLife(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	if r, err := c.Detach(t.Context(), &gemelv1.DetachRequest{}); err != nil || r.Running != 2 {
		t.Errorf("got %v, %v", r, err)
	}
	if r, err := c.Upgrade(t.Context(), &gemelv1.UpgradeRequest{Binary: "/x/gemel"}); err != nil || r.To != "1.1" {
		t.Errorf("got %v, %v", r, err)
	}
	_, err := c.Upgrade(t.Context(), &gemelv1.UpgradeRequest{Binary: "gemel"})
	wantKind(t, err, ha.ErrInvalid, "begin with /")
	if _, err := c.Shutdown(t.Context(), &gemelv1.ShutdownRequest{Reason: "moving"}); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.called) != 3 || w.called[1] != "upgrade /x/gemel" || !strings.HasSuffix(w.called[2], ": moving") {
		t.Errorf("called %q", w.called)
	}
}

func TestQuestions(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	if r, err := c.Why(t.Context(), &gemelv1.WhyRequest{Question: &gemelv1.WhyRequest_Event{Event: 3}}); err != nil || r.Text != "because\n" {
		t.Errorf("got %v, %v", r, err)
	}
	_, err := c.Why(t.Context(), &gemelv1.WhyRequest{})
	wantKind(t, err, ha.ErrInvalid, "nothing was asked")
	if r, err := c.Evidence(t.Context(), &gemelv1.EvidenceRequest{Ref: "x"}); err != nil || string(r.Data) != "\x00\xffx" {
		t.Errorf("got %v, %v", r, err)
	}
	_, err = c.Evidence(t.Context(), &gemelv1.EvidenceRequest{Ref: "none"})
	wantKind(t, err, ha.ErrNotFound, "no evidence", "too old")
	_, err = c.Replay(t.Context(), &gemelv1.ReplayRequest{})
	wantKind(t, err, ha.ErrFailed, "failed inside")
	if r, err := c.WhoAmI(t.Context(), &gemelv1.WhoAmIRequest{}); err != nil || r.Access != gemelv1.Access_ACCESS_ADMIN || r.Uid != uint32(os.Geteuid()) || r.Pid != int32(os.Getpid()) {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestLogs(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.Logs(ctx, &gemelv1.LogsRequest{Process: "web", Follow: true, FromNow: true})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Receive() || string(s.Msg().Data) != "web -1 true\n" {
		t.Fatalf("got %q, %v", s.Msg().Data, s.Err())
	}
	if at := s.Msg().GetPlace(); at != "+1" {
		t.Errorf("the first line ends at %q", at)
	}
	for n := 0; n < 3*logPiece+1; n += len(s.Msg().Data) {
		if !s.Receive() {
			t.Fatal(s.Err())
		}
	}
	if at := s.Msg().GetPlace(); at != "end" {
		t.Errorf("the last piece ends at %q", at)
	}
	s, err = c.Logs(ctx, &gemelv1.LogsRequest{Process: "web", Follow: true, After: "7:7"})
	if err != nil || !s.Receive() || s.Msg().GetPlace() != "7:7+1" {
		t.Errorf("a place that was given came back as %q, %v", s.Msg().GetPlace(), err)
	}
	cancel()
	if s.Receive() {
		t.Error("the stream goes on")
	}
	s, err = c.Logs(t.Context(), &gemelv1.LogsRequest{Process: "nope"})
	if err == nil {
		s.Receive()
		err = s.Err()
	}
	wantKind(t, err, ha.ErrNotFound, "no-process")
	s, err = c.Logs(t.Context(), &gemelv1.LogsRequest{Process: "web", After: "7:7"})
	if err == nil {
		s.Receive()
		err = s.Err()
	}
	wantKind(t, err, ha.ErrInvalid, "after")
}

// TestFollowersAreBounded: each holds an inotify instance, of which a user has few.
func TestFollowersAreBounded(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	w.server.following.Store(maxFollowers)
	s, err := c.Logs(t.Context(), &gemelv1.LogsRequest{Process: "web", Follow: true, FromNow: true})
	if err == nil {
		s.Receive()
		err = s.Err()
	}
	wantKind(t, err, ha.ErrBound, "followers")
	if n := w.server.following.Load(); n != maxFollowers {
		t.Errorf("%d are counted", n)
	}
}

func TestEvents(t *testing.T) {
	w := serve(t, manifest.Access{})
	for i := range 20 {
		e := ha.Event{}
		if i%2 == 1 {
			e = ha.Event{Code: ha.ExistenceRecovering, Subject: ha.OfProcess("cache"), Change: ha.Assert, Severity: ha.Major}
		}
		w.record(e)
	}
	c := dial(t, w)
	for _, x := range []struct {
		name string
		req  *gemelv1.EventsRequest
		want string
	}{
		{"newest", &gemelv1.EventsRequest{Limit: 3}, "18 19 20 more last 20"},
		{"after", &gemelv1.EventsRequest{After: 15, Limit: 2}, "16 17 more last 17"},
		{"all after", &gemelv1.EventsRequest{After: 18}, "19 20 last 20"},
		{"severity", &gemelv1.EventsRequest{After: 15, Filter: &gemelv1.EventFilter{Severity: gemelv1.Severity_SEVERITY_MAJOR}}, "16 18 20 last 20"},
		{"code", &gemelv1.EventsRequest{After: 15, Filter: &gemelv1.EventFilter{Codes: []uint32{uint32(ha.ProcessStarted)}}}, "17 19 last 20"},
		{"classic", &gemelv1.EventsRequest{After: 15, Limit: 1, Filter: &gemelv1.EventFilter{Classic: true}}, "16 more last 17"},
		{"alarms", &gemelv1.EventsRequest{Limit: 2, Filter: &gemelv1.EventFilter{Alarms: true}}, "18 20 more last 20"},
		{"subject", &gemelv1.EventsRequest{After: 16, Filter: &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{{Name: "web"}}}}, "17 19 last 20"},
		{"kind", &gemelv1.EventsRequest{After: 16, Filter: &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{{Kind: gemelv1.Kind_KIND_CHECK}}}}, "last 20"},
		{"time", &gemelv1.EventsRequest{Filter: &gemelv1.EventFilter{Since: wallOf(time.Unix(1e9+5, 0)), Until: wallOf(time.Unix(1e9+7, 0))}}, "5 6 last 20"},
	} {
		res, err := c.Events(t.Context(), x.req)
		if err != nil {
			t.Fatal(x.name, err)
		}
		var got []string
		for _, e := range res.Events {
			got = append(got, fmt.Sprint(e.Id))
		}
		if res.More {
			got = append(got, "more")
		}
		if s := strings.Join(append(got, fmt.Sprintf("last %d", res.LastId)), " "); s != x.want {
			t.Errorf("%s: %s; want %s", x.name, s, x.want)
		}
	}
	_, err := c.Events(t.Context(), &gemelv1.EventsRequest{Limit: 1 << 30})
	wantKind(t, err, ha.ErrInvalid, "at most 10000")
	_, err = c.Events(t.Context(), &gemelv1.EventsRequest{Filter: &gemelv1.EventFilter{Severity: 9}})
	wantKind(t, err, ha.ErrInvalid, "severity")
}

// TestNewest finds what is far back in a long record, and says whether there is
// more.
func TestNewest(t *testing.T) {
	w := serve(t, manifest.Access{})
	for i := range 6000 {
		e := ha.Event{}
		if i == 10 || i == 2000 || i == 5900 {
			e = ha.Event{Code: ha.ExitUnknown, Subject: ha.OfProcess("cache")}
		}
		w.record(e)
	}
	c := dial(t, w)
	for limit, want := range map[uint32]string{1: "[5901] true", 2: "[2001 5901] true", 3: "[11 2001 5901] false", 9: "[11 2001 5901] false"} {
		res, err := c.Events(t.Context(), &gemelv1.EventsRequest{Limit: limit, Filter: &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{{Name: "cache"}}}})
		if err != nil {
			t.Fatal(err)
		}
		ids := []uint64{}
		for _, e := range res.Events {
			ids = append(ids, e.Id)
		}
		if got := fmt.Sprint(ids, res.More); got != want || res.LastId != 6000 {
			t.Errorf("limit %d: %s up to %d; want %s", limit, got, res.LastId, want)
		}
	}
	s, err := c.WatchEvents(t.Context(), &gemelv1.WatchEventsRequest{Past: 2, Filter: &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{{Name: "cache"}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint64{2001, 5901, 0} {
		if !s.Receive() || s.Msg().GetEvent().GetId() != want {
			t.Fatalf("got %v, %v; want %d", s.Msg(), s.Err(), want)
		}
	}
	if !s.Msg().Live || s.Msg().LastId != 6000 {
		t.Errorf("the mark is %v", s.Msg())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestFollow reads through a replaced monitor: each event once, in order.
func TestFollow(t *testing.T) {
	w := serve(t, manifest.Access{})
	for range 5 {
		w.record(ha.Event{})
	}
	c := dial(t, w)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got := make(chan uint64, 100)
	ended := make(chan error, 1)
	enough := errors.New("enough")
	go func() {
		ended <- c.Follow(ctx, &gemelv1.WatchEventsRequest{Past: 2}, func(m *gemelv1.WatchEventsResponse) error {
			got <- m.GetEvent().GetId()
			if m.GetEvent().GetId() == 8 {
				return enough
			}
			return nil
		})
	}()
	want := func(ids ...uint64) {
		t.Helper()
		for _, id := range ids {
			select {
			case g := <-got:
				if g != id {
					t.Fatalf("got %d; want %d", g, id)
				}
			case <-ctx.Done():
				t.Fatalf("no event %d", id)
			}
		}
	}
	want(4, 5, 0)
	w.record(ha.Event{})
	want(6)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	w.record(ha.Event{}) // while nobody answers
	w.server = NewServer(w.server.b, w.policy, slog.New(slog.DiscardHandler))
	start(t, w, w.socket)
	want(7)
	w.record(ha.Event{})
	want(8)
	if err := <-ended; !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
}

// TestLaggard does not read; the feed goes on, and the reader is told.
func TestLaggard(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	s, err := c.WatchEvents(t.Context(), &gemelv1.WatchEventsRequest{})
	if err != nil || !s.Receive() || !s.Msg().Live {
		t.Fatalf("no mark: %v, %v", err, s.Err())
	}
	long := strings.Repeat("x", 8<<10)
	for range 4000 {
		w.record(ha.Event{Code: ha.ProcessStarted, Subject: ha.OfProcess("web"), Detail: long})
	}
	last := uint64(0)
	for s.Receive() {
		if id := s.Msg().Event.Id; id != last+1 {
			t.Fatalf("event %d after %d", id, last)
		}
		last++
	}
	wantKind(t, s.Err(), ha.ErrBound, "laggard", "too far behind")
	if last == 0 || last >= 4000 {
		t.Errorf("ended after %d", last)
	}
	s, err = c.WatchEvents(t.Context(), &gemelv1.WatchEventsRequest{After: last})
	if err != nil || !s.Receive() || s.Msg().Event.Id != last+1 {
		t.Fatalf("not resumed after %d: %v, %v", last, err, s.Err())
	}
}

func TestPlainJSON(t *testing.T) {
	w := serve(t, manifest.Access{})
	h := plain(t, w)
	post := func(path, kind, body string) (int, string) {
		t.Helper()
		res, err := h.Post("http://gemel"+path, kind, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode, string(b)
	}
	const j = "application/json"
	for _, x := range []struct {
		path, kind, body string
		code             int
		say              string
	}{
		{"/gemel.v1.Gemel/Status", j, "{}", 200, `"name":"web"`},
		{"/gemel.v1.Gemel/Status", j, "", 200, `"name":"web"`},
		{"/gemel.v1.Gemel/Status", "application/json; charset=utf-8", "{}", 200, `"name":"web"`},
		{"/gemel.v1.Gemel/Request", j, `{"verb":"VERB_STOP","target":{"kind":"KIND_PROCESS","name":"web"}}`, 200, `"ok":true`},
		{"/gemel.v1.Gemel/Request", j, `{"verb":"VERB_STOP","traget":{}}`, 400, "traget"},
		{"/gemel.v1.Gemel/Request", j, `{"verb":"VERB_STOP","verb":"VERB_STOP"}`, 400, "duplicate"},
		{"/gemel.v1.Gemel/Request", j, `{"verb":null,"target":null}`, 400, "verb"},
		{"/gemel.v1.Gemel/Events", j, `{"after":"` + strings.Repeat("9", 60000) + `"}`, 400, "invalid_argument"},
		{"/gemel.v1.Gemel/Events", j, `{"limit":NaN}`, 400, "invalid_argument"},
		{"/gemel.v1.Gemel/Events", j, strings.Repeat("[", 60000), 400, "invalid_argument"},
		{"/gemel.v1.Gemel/Status", j, "{} " + strings.Repeat(" ", smallBody), 429, "resource_exhausted"},
		{"/gemel.v1.Gemel/Nope", j, "{}", 501, "no method"},
		{"/", j, "{}", 501, "no method"},
		{"/gemel.v1.Gemel/Status", "text/plain", "{}", 415, ""},
	} {
		code, text := post(x.path, x.kind, x.body)
		if compact := strings.ReplaceAll(text, `": "`, `":"`); code != x.code || !strings.Contains(compact, x.say) {
			t.Errorf("%s %.60s: %d %.300s; want %d %s", x.path, x.body, code, text, x.code, x.say)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://gemel/gemel.v1.Gemel/Status", strings.NewReader("\x1f\x8b"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", j)
	req.Header.Set("Content-Encoding", "gzip")
	res, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusNotImplemented {
		t.Errorf("a packed body: %d %s, %v", res.StatusCode, b, err)
	}
	res, err = h.Get("http://gemel/gemel.v1.Gemel/Status?encoding=json&message=%7B%7D&connect=v1")
	if err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", res, err)
	}
}

// TestGRPC speaks gRPC over HTTP/2 without TLS, streams included.
func TestGRPC(t *testing.T) {
	w := serve(t, manifest.Access{})
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", w.socket)
	}}
	defer tr.CloseIdleConnections()
	c := gemelv1connect.NewGemelClient(&http.Client{Transport: tr}, "http://gemel", connect.WithGRPC())
	if res, err := c.Status(t.Context(), &gemelv1.StatusRequest{}); err != nil || len(res.Snapshot.Processes) != 2 {
		t.Fatalf("got %v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := c.WatchStatus(ctx, &gemelv1.WatchStatusRequest{IntervalMs: 1})
	if err != nil || !s.Receive() {
		t.Fatal(err, s.Err())
	}
	w.board.Publish(picture(2, "web"))
	if !s.Receive() || s.Msg().Snapshot.Revision != 2 {
		t.Fatal(s.Err())
	}
	_, err = c.Evidence(t.Context(), &gemelv1.EvidenceRequest{Ref: "none"})
	wantKind(t, err, ha.ErrNotFound, "too old")
}

func TestListen(t *testing.T) {
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "somebody answers") {
		t.Errorf("a second one: %v", err)
	}
	// The end of an old listener leaves the socket of its successor alone.
	other := filepath.Join(dir, "t")
	succ, err := Listen(other)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the successor's socket is gone")
	}
	if err := succ.Close(); err != nil { // what is at path is its socket, dead now
		t.Error(err)
	}
	if l, err = Listen(path); err != nil {
		t.Fatalf("a dead socket is in the way: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "something else is there") {
		t.Errorf("a file: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a long path: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(filepath.Join(dir, "u")); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("an open directory: %v", err)
	}
}

func TestDial(t *testing.T) {
	dir := shortDir(t)
	_, err := Dial(filepath.Join(dir, "none"))
	wantKind(t, err, ha.ErrUnavailable, "gemel is not running here: no socket at", "gemel run FILE", "GEMEL_SOCKET")
	_, err = Dial(filepath.Join(dir, strings.Repeat("x", 200)))
	wantKind(t, err, ha.ErrInvalid, "shorter")
	dead := filepath.Join(dir, "dead")
	u, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	u.SetUnlinkOnClose(false)
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Dial(dead)
	wantKind(t, err, ha.ErrUnavailable, "nobody answers")
}

func TestServerEnds(t *testing.T) {
	w := serve(t, manifest.Access{})
	dial(t, w)
	half, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	begin := time.Now()
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > endTime+patience/2 {
		t.Errorf("took %v", took)
	}
	if _, err := os.Lstat(w.socket); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the socket is left: %v", err)
	}
}
