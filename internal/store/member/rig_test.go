package member

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/sys/unix"

	"gemel/internal/store"
)

// The test binary is the member as well: one process for each.
const (
	memberEnv   = "GEMEL_STORE_TEST_MEMBER"
	externalEnv = "GEMEL_STORE_TEST_EXTERNAL" // the address of its clients, if it is not ours
)

func TestMain(m *testing.M) {
	if conf := os.Getenv(memberEnv); conf != "" {
		os.Exit(beMember(conf))
	}
	os.Exit(m.Run())
}

func beMember(conf string) int {
	var m Member
	if err := json.Unmarshal([]byte(conf), &m); err != nil {
		fmt.Println("failed", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m.Ready = func() { fmt.Println("ready") }
	if at := os.Getenv(externalEnv); at != "" {
		return beExternal(m, at)
	}
	err := Serve(ctx, m, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		fmt.Println("failed", err)
		return 1
	}
	return 0
}

// beExternal is an etcd that is not ours: it serves clients over TCP.
func beExternal(m Member, at string) int {
	u, err := url.Parse(at)
	if err != nil {
		fmt.Println("failed", err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := os.MkdirAll(filepath.Dir(m.Dir), 0o700); err != nil {
		fmt.Println("failed", err)
		return 2
	}
	tune()
	w, err := newWire(m, log)
	if err != nil {
		fmt.Println("failed", err)
		return 2
	}
	defer func() { _ = w.close() }()
	c := m.config("/nowhere", zapTo(log))
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*u}, []url.URL{*u}
	c.ClientTLSInfo = transport.TLSInfo{CertFile: m.TLS.Cert, KeyFile: m.TLS.Key, TrustedCAFile: m.TLS.CA, ClientCertAuth: true}
	c.MaxRequestBytes, c.TlsMinVersion = embed.DefaultMaxRequestBytes, "TLS1.3"
	e, err := embed.StartEtcd(c)
	if err != nil {
		fmt.Println("failed", err)
		return 1
	}
	<-e.Server.ReadyNotify()
	m.Ready()
	<-e.Server.StopNotify()
	return 1
}

// A rig is a cluster of member processes.
type rig struct {
	t, root *testing.T
	dir     string
	members map[string]Member
	running map[string]*process
	ca      *authority
	dialed  map[string]*store.Client
	clients map[string]string     // addresses of those that are not ours
	within  func(string) []string // what a member's command line begins with
}

type process struct {
	cmd   *exec.Cmd
	ready chan struct{}
	ended chan struct{}
	mu    sync.Mutex
	said  string // its last "failed" line
	log   strings.Builder
}

type how struct {
	n    int
	v6   bool
	tls  bool
	nets int
}

var names = []string{"a", "b", "c", "d"}

func newRig(t *testing.T, h how) *rig {
	t.Helper()
	r := &rig{t: t, root: t, dialed: map[string]*store.Client{}, dir: t.TempDir(), members: map[string]Member{}, running: map[string]*process{}}
	if h.tls {
		r.ca = newAuthority(t, r.dir)
	}
	cluster := map[string][]string{}
	for _, n := range names[:h.n] {
		cluster[n] = []string{freeAddr(t, h.v6)}
		if h.nets == 2 {
			cluster[n] = append(cluster[n], freeAddr(t, !h.v6))
		}
	}
	for _, at := range cluster {
		for _, a := range at {
			if host, _, err := net.SplitHostPort(a); err == nil && r.ca != nil {
				r.ca.at = append(r.ca.at, net.ParseIP(host))
			}
		}
	}
	for n := range cluster {
		r.members[n] = r.member(n, cluster, h)
	}
	t.Cleanup(r.end)
	return r
}

func (r *rig) member(n string, cluster map[string][]string, h how) Member {
	m := Member{
		Name: n, Dir: filepath.Join(r.dir, n, "etcd"), Socket: filepath.Join(r.dir, n, "sock"),
		Listen: cluster[n], Cluster: cluster, Token: "test", Heartbeat: 20 * time.Millisecond, Election: 200 * time.Millisecond,
	}
	if r.ca != nil {
		m.TLS = r.ca.issue(n, testRole)
	}
	return m
}

// freeAddr returns an address of loopback that nobody uses. Of IPv4 there are so
// many that nobody else takes it either.
func freeAddr(t *testing.T, v6 bool) string {
	t.Helper()
	host := "[::1]"
	if !v6 {
		b := make([]byte, 3)
		_, _ = rand.Read(b)
		host = net.IPv4(127, 1+b[0]/2, b[1], 1+b[2]/2).String()
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// up starts members and waits until all of them serve.
func (r *rig) up(who ...string) {
	r.t.Helper()
	for _, n := range who {
		r.start(n)
	}
	for _, n := range who {
		p := r.running[n]
		select {
		case <-p.ready:
		case <-p.ended:
			r.t.Fatalf("member %s ended: %s\n%s", n, p.text(), p.logged())
		case <-time.After(30 * time.Second):
			r.t.Fatalf("member %s is not ready\n%s", n, p.logged())
		}
	}
}

func (r *rig) start(n string) *process {
	r.t.Helper()
	conf, err := json.Marshal(r.members[n])
	if err != nil {
		r.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		r.t.Fatal(err)
	}
	args := []string{self}
	if r.within != nil {
		args = append(r.within(n), self)
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), ready: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), memberEnv+"="+string(conf), externalEnv+"="+r.clients[n],
		"HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1") // what a machine may have set
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	p.cmd.Stderr = p
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if lines.Text() == "ready" {
				close(p.ready)
			} else {
				p.mu.Lock()
				p.said += lines.Text()
				p.mu.Unlock()
			}
		}
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	r.running[n] = p
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// freeze stops a process. The signal is only sent when kill returns: threads that run on
// another processor go on for a moment.
func (r *rig) freeze(p *process) {
	r.t.Helper()
	p.signal(syscall.SIGSTOP)
	until(r.t, "it stands still", func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		for _, file := range tasks {
			b, err2 := os.ReadFile(file)
			if _, rest, _ := strings.Cut(string(b), ") "); err2 != nil || !strings.HasPrefix(rest, "T") {
				err = errors.Join(err, err2, fmt.Errorf("%s: %.60s", file, rest))
			}
		}
		return err
	})
}

// gone waits for the end of a member.
func (r *rig) gone(n string) *process {
	r.t.Helper()
	p := r.running[n]
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		r.t.Fatalf("member %s does not end\n%s", n, p.logged())
	}
	delete(r.running, n)
	return p
}

func (r *rig) kill(n string) {
	r.t.Helper()
	r.running[n].signal(syscall.SIGKILL)
	r.gone(n)
}

func (r *rig) halt(n string) time.Duration {
	r.t.Helper()
	began := time.Now()
	r.running[n].signal(syscall.SIGTERM)
	if p := r.gone(n); p.cmd.ProcessState.ExitCode() != 0 {
		r.t.Fatalf("member %s: %v: %s\n%s", n, p.cmd.ProcessState, p.text(), p.logged())
	}
	return time.Since(began)
}

func (r *rig) end() {
	for n, p := range r.running {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGKILL)
		<-p.ended
		if r.t.Failed() {
			r.t.Logf("member %s: %s\n%s", n, p.text(), p.logged())
		}
	}
}

// client speaks to one member.
func (r *rig) client(n string) *store.Client {
	r.t.Helper()
	if c := r.dialed[r.members[n].Socket]; c != nil {
		return c
	}
	c, err := store.Dial(store.Config{Socket: r.members[n].Socket, Prefix: "/gemel/test/"})
	if err != nil {
		r.t.Fatal(err)
	}
	r.root.Cleanup(func() { _ = c.Close() })
	r.dialed[r.members[n].Socket] = c
	return c
}

// leader returns the name of who leads, as soon as all running members agree.
func (r *rig) leader() string {
	r.t.Helper()
	found := ""
	until(r.t, "a leader", func() error {
		names := map[string]bool{}
		for n := range r.running {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			all, err := r.client(n).Voters(ctx)
			cancel()
			if err != nil {
				return err
			}
			lead := ""
			for _, v := range all {
				if v.Leader {
					lead = v.Name
				}
			}
			names[lead] = true
		}
		if len(names) != 1 || names[""] {
			return fmt.Errorf("the members say %v", names)
		}
		for n := range names {
			found = n
		}
		return nil
	})
	return found
}

// until tries again and again.
func until(t *testing.T, what string, try func() error) {
	t.Helper()
	end := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no %s: %v", what, err)
		}
		runtimeYield()
	}
}

// runtimeYield lets others run between two looks at a condition.
func runtimeYield() { _, _ = unix.Poll(nil, 5) }

const testRole = "gemel://test/store"

// An authority signs what a test needs.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
	at   []net.IP // of all members
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir, n: 1}
	a.key = newKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file("ca.pem", "CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) file(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue signs a certificate of a role for all of loopback.
func (a *authority) issue(name, role string) store.TLS {
	a.t.Helper()
	a.n++
	key := newKey(a.t)
	uri, err := url.Parse(role)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.n), Subject: pkix.Name{CommonName: role}, URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: a.at,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return store.TLS{
		Cert: a.file(name+".pem", "CERTIFICATE", der), Key: a.file(name+".key", "EC PRIVATE KEY", secret),
		CA: filepath.Join(a.dir, "ca.pem"), Role: testRole,
	}
}
