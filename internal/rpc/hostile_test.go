package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/access"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/need"
)

// The test binary plays the other user: it calls one method and prints what it
// got as JSON.
const playEnv = "GEMEL_RPC_TEST_PLAY"

func TestMain(m *testing.M) {
	if play := os.Getenv(playEnv); play != "" {
		os.Exit(playCaller(play))
	}
	os.Exit(m.Run())
}

type played struct {
	UID, GID     uint32
	Access       string
	Status, Stop string // error texts; empty is success
	Apply, Dial  string
	Hint         string
}

func playCaller(socket string) int {
	var p played
	text := func(err error) string {
		if err == nil {
			return ""
		}
		var e *ha.Error
		if errors.As(Explain(err), &e) {
			if e.Hint != "" {
				p.Hint = e.Hint
			}
			return e.Kind.String() + ": " + e.Error()
		}
		return err.Error()
	}
	c, err := Dial(socket)
	if err != nil {
		p.Dial = text(err)
	} else {
		ctx := context.Background()
		if who, err := c.WhoAmI(ctx, &gemelv1.WhoAmIRequest{}); err == nil {
			p.UID, p.GID, p.Access = who.Uid, who.Gid, who.Access.String()
		}
		_, err = c.Status(ctx, &gemelv1.StatusRequest{})
		p.Status = text(err)
		_, err = c.Request(ctx, &gemelv1.RequestRequest{Verb: gemelv1.Verb_VERB_STOP, Target: &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: "web"}})
		p.Stop = text(err)
		_, err = c.Detach(ctx, &gemelv1.DetachRequest{})
		p.Apply = text(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(p); err != nil {
		return 1
	}
	return 0
}

// callAs runs this binary as another user.
func callAs(t *testing.T, socket string, uid, gid uint32, groups ...uint32) played {
	t.Helper()
	need.Root(t)
	dir := shortDir(t)
	exe := filepath.Join(dir, "play")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{playEnv + "=" + socket}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("calling as %d: %v", uid, err)
	}
	var p played
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	return p
}

func TestOtherUsers(t *testing.T) {
	w := serve(t, manifest.Access{})
	if p := callAs(t, w.socket, 4321, 4321); !strings.HasPrefix(p.Dial, "denied: this user may not connect") || !strings.Contains(p.Hint, "access:") {
		t.Errorf("a stranger, without lists: %+v", p)
	}
	w.server.Admit(t.Context(), manifest.Access{Viewers: []string{"4321", "nobody"}, Operators: []string{"%5555"}, Admins: []string{"4400"}})
	if p := callAs(t, w.socket, 4321, 4321); p.Access != "ACCESS_VIEWER" || p.Status != "" ||
		!strings.HasPrefix(p.Stop, "denied: Request needs the role operator and user 4321 has viewer") || !strings.HasPrefix(p.Apply, "denied") || p.UID != 4321 {
		t.Errorf("a viewer: %+v", p)
	}
	if p := callAs(t, w.socket, 4322, 4322, 5555); p.Access != "ACCESS_OPERATOR" || p.Stop != "" || !strings.HasPrefix(p.Apply, "denied") || !strings.Contains(p.Hint, "admins: [4322]") {
		t.Errorf("an operator by group: %+v", p)
	}
	if p := callAs(t, w.socket, 4400, 4400); p.Access != "ACCESS_ADMIN" || p.Apply != "" {
		t.Errorf("an admin: %+v", p)
	}
	for _, uid := range []uint32{4399, 65534} {
		if p := callAs(t, w.socket, uid, uid); p.Access != "ACCESS_UNSPECIFIED" || !strings.HasPrefix(p.Status, "denied: Status needs the role viewer") {
			t.Errorf("user %d: %+v", uid, p)
		}
	}
	w.server.Admit(t.Context(), manifest.Access{})
	if p := callAs(t, w.socket, 4400, 4400); p.Dial == "" {
		t.Errorf("the socket is still open: %+v", p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	denied := slices.ContainsFunc(w.audit, func(e access.Entry) bool {
		return e.Result == "denied" && e.UID == 4321 && e.Method == "Request" && e.Role == "viewer"
	})
	if !denied {
		t.Errorf("no denial in the audit: %+v", w.audit)
	}
}

// TestRoleTakenAway ends an open stream when its reader loses the role.
func TestRoleTakenAway(t *testing.T) {
	w := serve(t, manifest.Access{Viewers: []string{"4321"}})
	c := &caller{peer: access.Peer{UID: 4321}}
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		guard{w.server}.watch(ctx, *c, "/gemel.v1.Gemel/WatchEvents", cancel)
	}()
	w.server.Admit(t.Context(), manifest.Access{Viewers: []string{"4321"}, Admins: []string{"1"}})
	w.server.Admit(t.Context(), manifest.Access{Admins: []string{"1"}})
	select {
	case <-ctx.Done():
		wantKind(t, context.Cause(ctx), ha.ErrDenied, "WatchEvents needs the role viewer")
	case <-time.After(patience):
		t.Error("the stream goes on")
	}
	<-ended
}

// TestFalseServer refuses a daemon that somebody else put in its place.
func TestFalseServer(t *testing.T) {
	need.Root(t)
	dir := shortDir(t)
	if err := os.Chown(dir, 4321, 4321); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"own directory": 0o755, "open directory": 0o777 | os.ModeSticky} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "s")
		var l net.Listener
		done := make(chan error, 1)
		go func() { // a thread of another user, thrown away afterwards
			syscall.ForkLock.RLock()
			defer syscall.ForkLock.RUnlock()
			runtime.LockOSThread()
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 4321, ^uintptr(0)); e != 0 {
				done <- e
				return
			}
			var err error
			l, err = net.Listen("unix", path)
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		err = trust(c, path)
		if mode == 0o755 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if mode != 0o755 {
			// The directory is sticky and belongs to the user: its owner is
			// believed. Root's own /tmp is not his.
			other := filepath.Join(shortDir(t), "s")
			wantKind(t, trust(c, other), ha.ErrDenied, "user 4321 listens at")
		}
		_ = c.Close()
		_ = l.Close()
	}
}

// TestHalfOpen floods the socket with connections that say nothing, or half of
// a request, while another caller is served.
func TestHalfOpen(t *testing.T) {
	w := serve(t, manifest.Access{})
	c := dial(t, w)
	s, err := c.WatchStatus(t.Context(), &gemelv1.WatchStatusRequest{IntervalMs: 1})
	if err != nil || !s.Receive() {
		t.Fatal(err)
	}
	n := 10_000
	if testing.Short() {
		n = 2000
	}
	open := make([]net.Conn, 0, 2*userConns)
	defer func() {
		for _, h := range open {
			_ = h.Close()
		}
	}()
	slowest := time.Duration(0)
	for i := range n {
		h, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 1 {
			_, _ = h.Write([]byte("POST /gemel.v1.Gemel/Status HTTP/1.1\r\nHost: x\r\nContent-Le"))
		}
		if len(open) == cap(open) { // the server has closed these already
			_ = open[0].Close()
			open = append(open[:0], open[1:]...)
		}
		open = append(open, h)
		if i%500 == 499 {
			begin := time.Now()
			fresh, err := Dial(w.socket)
			if err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			if _, err := fresh.Status(t.Context(), &gemelv1.StatusRequest{}); err != nil {
				t.Fatalf("after %d: %v", i, err)
			}
			fresh.Close()
			slowest = max(slowest, time.Since(begin))
		}
	}
	t.Logf("slowest of the others: %v", slowest)
	w.server.house.mu.Lock()
	if got := w.server.house.all; got > userConns {
		t.Errorf("%d connections inside", got)
	}
	w.server.house.mu.Unlock()
	w.board.Publish(picture(2, "web"))
	if !s.Receive() || s.Msg().Snapshot.Revision != 2 {
		t.Errorf("the stream that was open is broken: revision %d, error %v", s.Msg().GetSnapshot().GetRevision(), s.Err())
	}
}

// TestHouse has several users fill it.
func TestHouse(t *testing.T) {
	h := newHouse()
	h.perUser, h.total, h.perCalls = 4, 6, 2
	enter := func(uid uint32) (*conn, *conn, bool) {
		c := &conn{peer: access.Peer{UID: uid}, house: h}
		out, ok := h.enter(c)
		return c, out, ok
	}
	var first []*conn
	for range 4 {
		c, out, ok := enter(1)
		if out != nil || !ok {
			t.Fatal("no place in an empty house")
		}
		first = append(first, c)
	}
	h.begin(first[0])
	if _, out, ok := enter(1); out != first[1] || !ok {
		t.Error("the idlest was not chosen")
	}
	for range 2 {
		if _, out, ok := enter(2); out != nil || !ok {
			t.Error("no place for another user")
		}
	}
	if _, out, ok := enter(3); out != first[2] || !ok {
		t.Error("the user with the most did not give way")
	}
	h.leave(first[2])
	if !h.begin(first[0]) || h.begin(first[0]) {
		t.Error("calls are not bounded")
	}
	h.end(first[0])
	h.end(first[0])
	if h.all != 6 || len(h.calls) != 0 {
		t.Errorf("%d inside, calls %v", h.all, h.calls)
	}
	for uid := range h.conns {
		for c := range h.conns[uid] {
			c.calls = 1
		}
	}
	if _, _, ok := enter(4); ok {
		t.Error("a place where none is")
	}
	if _, _, ok := enter(0); !ok {
		t.Error("others together keep root out")
	}
}

// TestRefusal is what a caller over the bound reads: well-formed HTTP.
func TestRefusal(t *testing.T) {
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(refusal)), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || !json.Valid(b) || res.StatusCode != 503 {
		t.Errorf("%q, %v", b, err)
	}
}

// TestDescriptors sends descriptors that nobody asked for.
func TestDescriptors(t *testing.T) {
	w := serve(t, manifest.Access{})
	dial(t, w)
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	before := count()
	rights := unix.UnixRights(slices.Repeat([]int{0}, 200)...)
	if _, _, err := u.WriteMsgUnix([]byte("POST /gemel.v1.Gemel/Status HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"), rights, nil); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(u), nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	if after := count(); after > before+10 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// TestHugeBody is cut off at the method's bound, also when it is streamed, and
// before anything of it is read when the caller may not call.
func TestHugeBody(t *testing.T) {
	w := serve(t, manifest.Access{})
	h := plain(t, w)
	endless := io.LimitReader(zeros{}, 1<<30)
	res, err := h.Post("http://gemel/gemel.v1.Gemel/Request", "application/json", endless)
	if err == nil {
		_ = res.Body.Close()
		if res.StatusCode != http.StatusTooManyRequests {
			t.Errorf("status %d", res.StatusCode)
		}
	}
	if _, err := dial(t, w).Status(t.Context(), &gemelv1.StatusRequest{}); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestGarbage writes what a fuzzer would and looks whether the server lives.
func TestGarbage(t *testing.T) {
	w := serve(t, manifest.Access{})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	good := "POST /gemel.v1.Gemel/Request HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	for range 300 {
		throw(t, w.socket, mutate(r, []byte(good)))
	}
	if _, err := dial(t, w).Status(t.Context(), &gemelv1.StatusRequest{}); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) > 0 {
		t.Errorf("garbage became a request: %+v", w.asked)
	}
}

func mutate(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(8) {
		at := r.IntN(len(b) + 1)
		switch r.IntN(4) {
		case 0:
			b = b[:at]
		case 1:
			b = slices.Insert(b, at, bytes.Repeat([]byte{byte(r.Uint32())}, r.IntN(2000))...)
		case 2:
			b = slices.Insert(b, at, b[:r.IntN(len(b)+1)]...)
		default:
			if at < len(b) {
				b[at] = byte(r.Uint32())
			}
		}
	}
	return b
}

// throw sends bytes and reads what comes, if anything does.
func throw(t testing.TB, socket string, b []byte) {
	t.Helper()
	u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(patience))
	_, _ = u.Write(b)
	_ = u.CloseWrite()
	_, _ = io.Copy(io.Discard, u)
}

func FuzzSocket(f *testing.F) {
	w := serve(f, manifest.Access{})
	f.Add([]byte("POST /gemel.v1.Gemel/Status HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	f.Add([]byte("POST /gemel.v1.Gemel/WatchEvents HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+json\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n\x00\x00\x00\x00\x02{}\r\n0\r\n\r\n"))
	f.Add([]byte("POST /gemel.v1.Gemel/Logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/connect+proto\r\nContent-Length: 5\r\n\r\n\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte("Watch")) || bytes.Contains(b, []byte("Logs")) {
			b = append(b, "\r\n\r\n"...) // a stream that is well-formed ends when the reader does
		}
		u, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: w.socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		_ = u.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = u.Write(b)
		_ = u.CloseWrite()
		_, _ = io.CopyN(io.Discard, u, 64<<10)
		_ = u.Close()
		c, err := Dial(w.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Status(t.Context(), &gemelv1.StatusRequest{}); err != nil {
			t.Fatal(fmt.Errorf("after %q: %w", b, err))
		}
	})
}
