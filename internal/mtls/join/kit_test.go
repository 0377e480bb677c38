package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
)

// cluster is one node that others join at.
type cluster struct {
	t       *testing.T
	id      string
	now     time.Time
	files   *mtls.Files // of the node
	enroll  *Enroll
	book    *FileBook
	address string
	log     *bytes.Buffer

	mu       sync.Mutex
	signers  map[string]*authority.Authority // by plane
	trust    map[string]*mtls.Trust
	admitted []Applicant
	fail     error // of Admit
}

func newCluster(t *testing.T, id string) *cluster {
	t.Helper()
	c := &cluster{
		t: t, id: id, now: time.Now(), log: &bytes.Buffer{},
		signers: map[string]*authority.Authority{}, trust: map[string]*mtls.Trust{},
	}
	dir := t.TempDir()
	for _, role := range []mtls.Role{mtls.Node, mtls.Peer, mtls.Agent} {
		plane := role.Authority(id).Name
		a, err := authority.Create(filepath.Join(dir, plane+".pem"), id, role, c.now)
		if err != nil {
			t.Fatal(err)
		}
		c.signers[plane], c.trust[plane] = a, a.Trust(c.now)
	}
	c.files = &mtls.Files{Dir: t.TempDir()}
	csrs, err := Ask(map[mtls.Role]*mtls.Files{mtls.Node: c.files})
	if err != nil {
		t.Fatal(err)
	}
	first, err := c.admit(context.Background(), Applicant{
		Request: Request{Kind: mtls.Node, CSRs: csrs}, Names: map[mtls.Role]mtls.Name{mtls.Node: {Cluster: id, Role: mtls.Node, Name: "first"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	first.Name = mtls.Name{Cluster: id, Role: mtls.Node, Name: "first"}
	if err := first.Install(map[mtls.Role]*mtls.Files{mtls.Node: c.files}); err != nil {
		t.Fatal(err)
	}
	c.admitted = nil
	c.book = &FileBook{Path: filepath.Join(dir, "tickets.json"), Now: c.clock}
	c.enroll = &Enroll{
		Cluster: id, Book: c.book, Now: c.clock, Admit: c.admit, Who: c.files.Peer,
		Log: slog.New(slog.NewTextHandler(&locked{mu: &c.mu, b: c.log}, nil)),
	}
	c.serve()
	return c
}

type locked struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (c *cluster) clock() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *cluster) later(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// serve listens on loopback until the test ends.
func (c *cluster) serve() {
	config, err := c.files.Server([]string{"http/1.1"}, false, mtls.Node, mtls.Witness, mtls.Person)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v1/certificates/", c.enroll)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 20 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(tls.NewListener(l, config))
	}()
	c.t.Cleanup(func() {
		s.Close()
		<-done
	})
	c.address = l.Addr().String()
}

// admit signs whatever is asked for, unless the name is taken by another one.
func (c *cluster) admit(_ context.Context, a Applicant) (Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return Answer{}, c.fail
	}
	if a.Names[mtls.Node].Name == "taken" {
		return Answer{}, fmt.Errorf("there is a node of that name already")
	}
	out := Answer{Certificates: map[mtls.Role][]byte{}, Trust: map[string]*mtls.Trust{}, Settings: json.RawMessage(`{"voters":3}`)}
	for role, name := range a.Names {
		plane := role.Authority(c.id).Name
		chain, trust, err := c.signers[plane].Issue(a.CSRs[role], authority.Leaf{Name: name}, c.trust[plane], c.now)
		if err != nil {
			return Answer{}, err
		}
		c.trust[plane], out.Certificates[role], out.Trust[plane] = trust, chain, trust
	}
	c.admitted = append(c.admitted, a)
	return out, nil
}

func (c *cluster) token(kind mtls.Role, name string) Token {
	c.t.Helper()
	t, ticket, err := Mint(c.signers["nodes"].Identity(), kind, name, c.clock(), 0)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.book.Add(context.Background(), ticket); err != nil {
		c.t.Fatal(err)
	}
	return t
}

func (c *cluster) door() Door { return Door{Addresses: []string{c.address}, Path: "/v1/certificates"} }

// homes are the directories of a newcomer.
func homes(t *testing.T, roles ...mtls.Role) map[mtls.Role]*mtls.Files {
	out := map[mtls.Role]*mtls.Files{}
	for _, r := range roles {
		out[r] = &mtls.Files{Dir: t.TempDir()}
	}
	return out
}

func ask(t *testing.T, files map[mtls.Role]*mtls.Files, name string) Request {
	t.Helper()
	csrs, err := Ask(files)
	if err != nil {
		t.Fatal(err)
	}
	return Request{Name: name, CSRs: csrs, Facts: json.RawMessage(`{"addresses":["192.0.2.2"]}`)}
}

func (c *cluster) ticket(tok Token) Ticket {
	c.t.Helper()
	var out Ticket
	err := c.book.Update(context.Background(), tok.id(), func(t *Ticket) error { out = *t; return nil })
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// flaky is a Book that loses what is written.
type flaky struct{ *FileBook }

func (flaky) Update(context.Context, string, func(*Ticket) error) error { return fs.ErrPermission }
