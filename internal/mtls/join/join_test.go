package join

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"gemel/internal/mtls"
)

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestJoin(t *testing.T) {
	c := newCluster(t, "c1")
	for _, n := range []struct {
		kind  mtls.Role
		name  string
		roles []mtls.Role
	}{
		{mtls.Node, "beta", []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}},
		{mtls.Witness, "tiny", []mtls.Role{mtls.Witness, mtls.Peer}},
		{mtls.Agent, "guest-1", []mtls.Role{mtls.Agent}},
	} {
		t.Run(string(n.kind), func(t *testing.T) {
			tok, err := ParseToken(c.token(n.kind, "").Text())
			if err != nil {
				t.Fatal(err)
			}
			files := homes(t, n.roles...)
			answer, err := c.door().Join(context.Background(), tok, ask(t, files, n.name))
			if err != nil {
				t.Fatal(err)
			}
			if err := answer.Install(files); err != nil {
				t.Fatal(err)
			}
			if string(answer.Settings) != `{"voters":3}` {
				t.Errorf("settings %s", answer.Settings)
			}
			for role, f := range files {
				id, err := f.Identity()
				if want := (mtls.Name{Cluster: "c1", Role: role, Name: n.name}); err != nil || id.Name != want {
					t.Errorf("%v, %v; want %v", id.Name, err, want)
				}
			}
			last := c.admitted[len(c.admitted)-1]
			if !last.From.IsLoopback() || string(last.Facts) != `{"addresses":["192.0.2.2"]}` || last.Again {
				t.Errorf("admitted as %+v", last)
			}

			// What was given is good for renewal, and only of itself.
			if n.kind == mtls.Agent {
				return
			}
			config, err := files[n.kind].Client(nil, mtls.Name{Cluster: "c1", Role: mtls.Node, Name: "first"})
			if err != nil {
				t.Fatal(err)
			}
			before, _ := files[n.kind].Identity()
			req := ask(t, files, "")
			req.Kind = n.kind
			answer, err = c.door().Renew(context.Background(), config, req)
			if err != nil {
				t.Fatal(err)
			}
			if err := answer.Install(files); err != nil {
				t.Fatal(err)
			}
			after, err := files[n.kind].Identity()
			if err != nil || after.Name != before.Name || after.Pin == before.Pin {
				t.Errorf("renewed from %v to %v, %v", before, after, err)
			}
			again := Request{Kind: n.kind, CSRs: map[mtls.Role][]byte{n.kind: req.CSRs[n.kind]}}
			_, err = c.door().Renew(context.Background(), config, again)
			wantError(t, err, "a new one is needed")
			req.Name = "first"
			_, err = c.door().Renew(context.Background(), config, req)
			wantError(t, err, "cannot renew the certificates of")
		})
	}
	t.Run("renewal without a certificate", func(t *testing.T) {
		config, err := mtls.Name{Cluster: "c1", Role: mtls.Node}.Pinned(c.signers["nodes"].Identity().Pin, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		req := ask(t, homes(t, mtls.Node), "first")
		req.Kind = mtls.Node
		_, err = c.door().Renew(context.Background(), config, req)
		wantError(t, err, "no certificate was presented")
	})
}

// TestNewcomersClock: it does not matter to the token, and is named when it stops
// the newcomer from knowing the cluster.
func TestNewcomersClock(t *testing.T) {
	c := newCluster(t, "c1")
	for _, x := range []struct {
		now  time.Time
		want string
	}{{time.Unix(0, 0), ""}, {time.Now().Add(30 * 24 * time.Hour), ""}, {time.Now().Add(5 * 365 * 24 * time.Hour), "set the clock"}} {
		d := c.door()
		d.Now = func() time.Time { return x.now }
		tok := c.token(mtls.Node, "")
		_, err := d.Join(context.Background(), tok, ask(t, homes(t, mtls.Node), "beta"))
		if x.want != "" {
			wantError(t, err, x.want)
			if !c.ticket(tok).Used.IsZero() {
				t.Error("the token is used up")
			}
		} else if err != nil {
			t.Errorf("at %v: %v", x.now, err)
		}
	}
}

func TestTokensThatAreNoGood(t *testing.T) {
	c := newCluster(t, "c1")
	ctx := context.Background()
	join := func(tok Token, name string, roles ...mtls.Role) error {
		_, err := c.door().Join(ctx, tok, ask(t, homes(t, roles...), name))
		return err
	}
	t.Run("used", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		if err := join(tok, "beta", mtls.Node); err != nil {
			t.Fatal(err)
		}
		wantError(t, join(tok, "beta", mtls.Node), `by "beta"; each is good once`)
	})
	t.Run("expired", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		c.later(61 * time.Minute)
		wantError(t, join(tok, "beta", mtls.Node), "this token expired at")
	})
	t.Run("of another kind", func(t *testing.T) {
		tok := c.token(mtls.Agent, "")
		tok.Kind = mtls.Node
		wantError(t, join(tok, "beta", mtls.Node), unknown)
		tok = c.token(mtls.Agent, "")
		wantError(t, join(tok, "beta", mtls.Node), "there is no request for the certificate of the role agent")
	})
	t.Run("for another name", func(t *testing.T) {
		tok := c.token(mtls.Node, "gamma")
		wantError(t, join(tok, "beta", mtls.Node), `for the name "gamma", not for "beta"`)
		if err := join(tok, "", mtls.Node); err != nil {
			t.Error(err)
		}
		if last := c.admitted[len(c.admitted)-1]; last.Names[mtls.Node].Name != "gamma" {
			t.Errorf("admitted as %v", last.Names)
		}
	})
	t.Run("unknown and wrong are told as one", func(t *testing.T) {
		never, _, err := Mint(c.signers["nodes"].Identity(), mtls.Node, "", c.clock(), 0)
		if err != nil {
			t.Fatal(err)
		}
		wantError(t, join(never, "beta", mtls.Node), unknown)
	})
	t.Run("a refusal by the cluster is told, and can be mended", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		files := homes(t, mtls.Node)
		_, err := c.door().Join(ctx, tok, ask(t, files, "taken"))
		wantError(t, err, "there is a node of that name already")
		if _, err := c.door().Join(ctx, tok, ask(t, files, "delta")); err != nil {
			t.Error(err)
		}
		if last := c.admitted[len(c.admitted)-1]; !last.Again {
			t.Error("the second time is not told as one")
		}
	})
	t.Run("the answer was lost", func(t *testing.T) {
		tok, files := c.token(mtls.Node, ""), homes(t, mtls.Node)
		if _, err := c.door().Join(ctx, tok, ask(t, files, "epsilon")); err != nil {
			t.Fatal(err)
		}
		again := map[mtls.Role]*mtls.Files{mtls.Node: {Dir: files[mtls.Node].Dir}} // as after a crash
		answer, err := c.door().Join(ctx, tok, ask(t, again, "epsilon"))
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Install(again); err != nil {
			t.Error(err)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		var wg sync.WaitGroup
		errs := make([]error, 4)
		reqs := make([]Request, len(errs))
		for i := range reqs {
			reqs[i] = ask(t, homes(t, mtls.Node), "zeta")
		}
		for i := range errs {
			wg.Go(func() { _, errs[i] = c.door().Join(ctx, tok, reqs[i]) })
		}
		wg.Wait()
		in := 0
		for _, err := range errs {
			if err == nil {
				in++
			} else {
				wantError(t, err, "each is good once")
			}
		}
		if in != 1 {
			t.Errorf("%d joined by one token", in)
		}
	})
	t.Run("one key for two roles", func(t *testing.T) {
		req := ask(t, homes(t, mtls.Node), "eta")
		req.CSRs[mtls.Peer] = req.CSRs[mtls.Node]
		_, err := c.door().Join(ctx, c.token(mtls.Node, ""), req)
		wantError(t, err, "have the same key")
	})
	t.Run("a role that is not its own", func(t *testing.T) {
		req := ask(t, homes(t, mtls.Node, mtls.Agent), "eta")
		_, err := c.door().Join(ctx, c.token(mtls.Node, ""), req)
		wantError(t, err, "does not have")
	})
	t.Run("tickets that cannot be written", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		c.enroll.Book = flaky{c.book}
		defer func() { c.enroll.Book = c.book }()
		n := len(c.admitted)
		wantError(t, join(tok, "eta", mtls.Node), "its log says why")
		if len(c.admitted) != n {
			t.Error("admitted all the same")
		}
	})
	if strings.Contains(c.log.String(), "level=ERROR") {
		t.Error(c.log)
	}
}

// TestWrongSecret: someone who saw the id of a ticket but not its secret.
func TestWrongSecret(t *testing.T) {
	c := newCluster(t, "c1")
	tok := c.token(mtls.Node, "")
	mask := func() error {
		config, err := mtls.Name{Cluster: "c1", Role: mtls.Node}.Pinned(tok.Pin, time.Now)
		if err != nil {
			return err
		}
		d := c.door()
		conn, err := d.connect(context.Background(), c.address, config)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = post(context.Background(), conn, c.address, d.Path+joinPath, sealed{Ticket: tok.id(), Body: []byte(`{}`), Proof: make([]byte, 32)})
		return err
	}
	for range maxFailures {
		wantError(t, mask(), unknown)
	}
	_, err := c.door().Join(context.Background(), tok, ask(t, homes(t, mtls.Node), "beta"))
	wantError(t, err, "was tried 5 times with a wrong secret")
	for range perSource {
		_ = mask()
	}
	wantError(t, mask(), "too many attempts failed from 127.0.0.1")
	if got := c.ticket(tok); !got.Used.IsZero() {
		t.Errorf("used: %+v", got)
	}
}

// recorder passes bytes on and keeps what the newcomer said.
type recorder struct {
	net.Conn
	mu   sync.Mutex
	sent []byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.sent = append(r.sent, p...)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// TestManInTheMiddle has somebody between newcomer and cluster who speaks TLS with both.
func TestManInTheMiddle(t *testing.T) {
	c := newCluster(t, "c1")
	ctx := context.Background()

	// middle serves TLS with its own configuration and passes on what it is told.
	middle := func(t *testing.T, config *tls.Config) (address string, heard func() []byte) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var all []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			defer raw.Close()
			_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
			near := tls.Server(raw, config)
			if near.Handshake() != nil {
				return
			}
			out, err := mtls.Name{Cluster: "c1", Role: mtls.Node}.Pinned(c.signers["nodes"].Identity().Pin, time.Now)
			if err != nil {
				t.Error(err)
				return
			}
			far, err := tls.Dial("tcp", c.address, out)
			if err != nil {
				t.Error(err)
				return
			}
			defer far.Close()
			_ = far.SetDeadline(time.Now().Add(20 * time.Second))
			wg.Go(func() {
				b := make([]byte, 64<<10)
				for {
					n, err := far.Read(b)
					_, _ = near.Write(b[:n])
					if err != nil {
						near.Close()
						return
					}
				}
			})
			b := make([]byte, 64<<10)
			for {
				n, err := near.Read(b)
				mu.Lock()
				all = append(all, b[:n]...)
				mu.Unlock()
				_, _ = far.Write(b[:n])
				if err != nil {
					return
				}
			}
		})
		t.Cleanup(func() {
			l.Close()
			wg.Wait()
		})
		return l.Addr().String(), func() []byte {
			mu.Lock()
			defer mu.Unlock()
			return all
		}
	}

	t.Run("with a certificate of its own", func(t *testing.T) {
		x := newCluster(t, "c1") // even of the same id
		config, err := x.files.Server(nil, false, mtls.Node)
		if err != nil {
			t.Fatal(err)
		}
		address, heard := middle(t, config)
		tok := c.token(mtls.Node, "")
		d := Door{Addresses: []string{address}, Path: "/v1/certificates"}
		_, err = d.Join(ctx, tok, ask(t, homes(t, mtls.Node), "beta"))
		wantError(t, err, "not of the cluster that was meant")
		if len(heard()) > 0 {
			t.Errorf("%d bytes were said to it", len(heard()))
		}
		if got := c.ticket(tok); !got.Used.IsZero() || got.Failures > 0 {
			t.Errorf("the ticket: %+v", got)
		}
	})
	t.Run("with a certificate of the cluster, not of a node", func(t *testing.T) {
		files := homes(t, mtls.Witness)
		answer, err := c.door().Join(ctx, c.token(mtls.Witness, ""), ask(t, files, "tiny"))
		if err != nil {
			t.Fatal(err)
		}
		if err := answer.Install(files); err != nil {
			t.Fatal(err)
		}
		config, err := files[mtls.Witness].Server(nil, false, mtls.Node)
		if err != nil {
			t.Fatal(err)
		}
		address, heard := middle(t, config)
		d := Door{Addresses: []string{address}, Path: "/v1/certificates"}
		_, err = d.Join(ctx, c.token(mtls.Node, ""), ask(t, homes(t, mtls.Node), "beta"))
		wantError(t, err, "witness/tiny answered where")
		if len(heard()) > 0 {
			t.Errorf("%d bytes were said to it", len(heard()))
		}
	})
	t.Run("with a node's stolen key", func(t *testing.T) {
		config, err := c.files.Server(nil, false, mtls.Node)
		if err != nil {
			t.Fatal(err)
		}
		address, heard := middle(t, config)
		tok := c.token(mtls.Node, "")
		n := len(c.admitted)
		d := Door{Addresses: []string{address}, Path: "/v1/certificates"}
		_, err = d.Join(ctx, tok, ask(t, homes(t, mtls.Node), "beta"))
		wantError(t, err, unknown) // the proof was for the other connection
		if len(heard()) == 0 {
			t.Error("the test has shown nothing: nothing came to the one in the middle")
		}
		if len(c.admitted) != n || !c.ticket(tok).Used.IsZero() {
			t.Error("it was admitted")
		}
	})
	t.Run("a replay of the bytes", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		var r *recorder
		d := c.door()
		d.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			r = &recorder{Conn: conn}
			return r, err
		}
		if _, err := d.Join(ctx, tok, ask(t, homes(t, mtls.Node), "beta")); err != nil {
			t.Fatal(err)
		}
		n := len(c.admitted)
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Write(r.sent); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Log(err) // it hung up in the middle: as good
		}
		b := make([]byte, 1<<16)
		for {
			if _, err := conn.Read(b); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("it did not hang up")
				}
				break
			}
		}
		if len(c.admitted) != n {
			t.Error("a replay was admitted")
		}
	})
	t.Run("a replay of the proof in a new connection", func(t *testing.T) {
		tok := c.token(mtls.Node, "")
		config, err := c.files.Client(nil, mtls.Name{Cluster: "c1", Role: mtls.Node, Name: "first"})
		if err != nil {
			t.Fatal(err)
		}
		d := c.door()
		var first sealed
		for i := range 2 {
			conn, err := d.connect(ctx, c.address, config)
			if err != nil {
				t.Fatal(err)
			}
			cs := conn.ConnectionState()
			bound, err := channel(&cs)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 { // made for a connection that was then cut
				key := tok.key("client")
				first = sealed{Ticket: tok.id(), Body: []byte(`{"kind":"node"}`)}
				first.Proof = proof(key, hash(key), bound, first.Body)
			} else {
				_, err = post(ctx, conn, c.address, d.Path+joinPath, first)
				wantError(t, err, unknown)
			}
			conn.Close()
		}
	})
}

// TestStolenTickets: the file of the tickets is no token.
func TestStolenTickets(t *testing.T) {
	c := newCluster(t, "c1")
	ticket := c.ticket(c.token(mtls.Node, ""))
	bound, body := []byte("channel"), []byte("{}")
	for _, key := range [][]byte{ticket.Stored, ticket.Server, hash(ticket.Stored)} {
		if proven(ticket.Stored, bound, body, proof(key, ticket.Stored, bound, body)) {
			t.Error("what is kept is enough to join")
		}
	}
	if proven(nil, bound, body, nil) || proven(ticket.Stored, bound, body, nil) {
		t.Error("nothing is enough to join")
	}
}

// TestClusterHasToProveItself: a node that does not have the ticket cannot answer.
func TestClusterHasToProveItself(t *testing.T) {
	c := newCluster(t, "c1")
	tok := c.token(mtls.Node, "")
	err := c.book.Update(context.Background(), tok.id(), func(t *Ticket) error {
		t.Server = make([]byte, 32)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.door().Join(context.Background(), tok, ask(t, homes(t, mtls.Node), "beta"))
	wantError(t, err, "not proven to come from the cluster")
}

func TestAddresses(t *testing.T) {
	c := newCluster(t, "c1")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	d := c.door()
	d.Addresses = []string{dead, c.address}
	if _, err := d.Join(context.Background(), c.token(mtls.Node, ""), ask(t, homes(t, mtls.Node), "beta")); err != nil {
		t.Error(err)
	}
	d.Addresses = []string{dead}
	_, err = d.Join(context.Background(), c.token(mtls.Node, ""), ask(t, homes(t, mtls.Node), "beta"))
	wantError(t, err, "connection refused")

	// One that takes connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	d.Addresses = []string{silent.Addr().String()}
	_, err = d.Join(ctx, c.token(mtls.Node, ""), ask(t, homes(t, mtls.Node), "beta"))
	wantError(t, err, "deadline exceeded")
}
