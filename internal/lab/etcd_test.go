package lab

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// etcdBuilt and etcdutlBuilt build the etcd server and its tool for data, of the version
// that this module pins, as an operator would have them: programs of their own.
var (
	etcdBuilt = sync.OnceValues(func() (string, error) {
		return etcdMade("server", "", "-buildvcs=false")
	})
	// The tool prints tables, by modules that this one has no use for: it is built by a module of
	// its own.
	etcdutlBuilt = sync.OnceValues(func() (string, error) {
		version, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.GoVersion}}", "go.etcd.io/etcd/etcdutl/v3").Output()
		if err != nil {
			return "", fmt.Errorf("asking for the version of etcdutl: %w", err)
		}
		dir, err := os.MkdirTemp("", "lab-etcdutl")
		if err != nil {
			return "", err
		}
		defer os.RemoveAll(dir)
		words := strings.Fields(string(version))
		mod := fmt.Sprintf("module tool\n\ngo %s\n\nrequire go.etcd.io/etcd/etcdutl/v3 %s\n", words[1], words[0])
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(mod), 0o600); err != nil {
			return "", err
		}
		return etcdMade("etcdutl", dir, "-mod=mod")
	})
)

func etcdMade(what, dir, flag string) (string, error) {
	path := etcdPath(what)
	c := exec.Command("go", "build", flag, "-o", path, "go.etcd.io/etcd/"+what+"/v3")
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s of etcd: %w\n%s", what, err, out)
	}
	return path, nil
}

// etcdPath is where this process builds them; TestMain takes them away.
func etcdPath(what string) string {
	return filepath.Join("/tmp", fmt.Sprintf("lab-etcd-%s-%d", what, os.Getpid()))
}

// papers are an authority, and what it signed, as files in a directory.
type papers struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	n    int64
}

func newPapers(t *testing.T) *papers {
	t.Helper()
	p := &papers{t: t, dir: t.TempDir()}
	p.cert, p.key = p.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return p
}

func (p *papers) path(name string) string { return filepath.Join(p.dir, name) }

// sign makes NAME.pem and NAME.key.
func (p *papers) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.n++
	c.SerialNumber, c.Subject = big.NewInt(p.n), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	by, with := p.cert, p.key
	if by == nil {
		by, with = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
	if err != nil {
		p.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	p.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	p.write(name+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	out, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return out, key
}

func (p *papers) write(name, text string) string {
	p.t.Helper()
	if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return p.path(name)
}

// An etcd is one that is not ours: one member, with users, over TLS.
type etcd struct {
	*papers
	at    string   // of its clients
	peer  string   // of its members
	flags []string // beside the usual ones
	users bool     // it has users by now
	cmd   *exec.Cmd
	ended chan struct{}
}

func newEtcd(t *testing.T, host string, flags ...string) *etcd {
	t.Helper()
	e := &etcd{papers: newPapers(t), flags: flags}
	if len(flags) > 0 {
		e.flags = append([]string{"--trusted-ca-file=" + e.path("ca.pem")}, flags...)
	}
	e.at, e.peer = vacant(t, host), vacant(t, host)
	e.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.ParseIP(host)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	e.sign("gemel", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	e.sign("root", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	t.Cleanup(e.stop)
	e.start("data")
	return e
}

func vacant(t *testing.T, host string) string {
	t.Helper()
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start begins it on the data of a name, and waits until it has a leader.
func (e *etcd) start(data string) {
	e.t.Helper()
	exe, err := etcdBuilt()
	if err != nil {
		e.t.Fatal(err)
	}
	log, err := os.OpenFile(e.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(exe, append([]string{"--name=e", "--data-dir=" + e.path(data), "--heartbeat-interval=40", "--election-timeout=400",
		"--listen-client-urls=https://" + e.at, "--advertise-client-urls=https://" + e.at,
		"--listen-peer-urls=http://" + e.peer, "--initial-advertise-peer-urls=http://" + e.peer, "--initial-cluster=e=http://" + e.peer,
		"--cert-file=" + e.path("server.pem"), "--key-file=" + e.path("server.key")}, e.flags...)...)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.ended = make(chan struct{})
	go func(c *exec.Cmd, ended chan struct{}) { _ = c.Wait(); close(ended) }(e.cmd, e.ended)
	if !poll(func() bool {
		return e.call("", "maintenance/status", `{}`, nil) == nil || e.users && e.knows()
	}) {
		b, err := os.ReadFile(e.path("log"))
		e.t.Fatalf("etcd does not answer: %v\n%s", err, tail(b, 4<<10))
	}
}

func (e *etcd) stop() {
	_ = e.cmd.Process.Kill()
	<-e.ended
}

// call makes a call of etcd's API by its JSON gateway.
func (e *etcd) call(token, path, body string, to any) error {
	e.t.Helper()
	root := x509.NewCertPool()
	root.AddCert(e.cert)
	pair, err := tls.LoadX509KeyPair(e.path("root.pem"), e.path("root.key"))
	if err != nil {
		return err
	}
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{RootCAs: root, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}}}
	req, err := http.NewRequest(http.MethodPost, "https://"+e.at+"/v3/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", token)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s: %w", path, resp.Status, bytes.TrimSpace(b), err)
	}
	if to != nil {
		return json.Unmarshal(b, to)
	}
	return nil
}

// knows reports whether it answers one who has given a name. By certificate it lets nobody in
// over its gateway, which is an answer as well.
func (e *etcd) knows() bool {
	err := e.call("", "maintenance/status", `{}`, nil)
	return e.login("root", "secret") != "" || err != nil && strings.Contains(err.Error(), "against gateway")
}

func (e *etcd) login(user, password string) string {
	e.t.Helper()
	var out struct{ Token string }
	_ = e.call("", "auth/authenticate", fmt.Sprintf(`{"name": %q, "password": %q}`, user, password), &out)
	return out.Token
}

// guard gives it users: root, and gemel, which may have what is below a prefix.
func (e *etcd) guard(prefix string) {
	e.t.Helper()
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	end := prefix[:len(prefix)-1] + "0" // what comes after a slash
	for _, c := range []struct{ path, body string }{
		{"auth/user/add", `{"name": "root", "password": "secret"}`}, {"auth/role/add", `{"name": "root"}`}, {"auth/user/grant", `{"user": "root", "role": "root"}`},
		{"auth/user/add", `{"name": "gemel", "password": "hush"}`}, {"auth/role/add", `{"name": "gemel"}`}, {"auth/user/grant", `{"user": "gemel", "role": "gemel"}`},
		{"auth/role/grant", fmt.Sprintf(`{"name": "gemel", "perm": {"permType": "READWRITE", "key": %q, "range_end": %q}}`, b64(prefix), b64(end))},
		{"auth/enable", `{}`},
	} {
		if err := e.call("", c.path, c.body, nil); err != nil {
			e.t.Fatal(err)
		}
	}
	e.users = true
}

// file writes where it is, as gemel init is told, with lines of their own.
func (e *etcd) file(name string, lines ...string) string {
	e.t.Helper()
	all := append([]string{"endpoints: [" + e.at + "]", "election-timeout: 400ms", "ca: " + e.path("ca.pem")}, lines...)
	for i := len(all) - 1; i >= 0; i-- { // the last one of a key counts
		key, _, _ := strings.Cut(all[i], ":")
		for j := range i {
			if strings.HasPrefix(all[j], key+":") {
				all[j] = "# " + all[j]
			}
		}
	}
	return e.write(name, strings.Join(all, "\n")+"\n")
}

// old is something that says that it is an etcd of a version.
func (e *etcd) old(host, version string) string {
	e.t.Helper()
	pair, err := tls.LoadX509KeyPair(e.path("server.pem"), e.path("server.key"))
	if err != nil {
		e.t.Fatal(err)
	}
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		e.t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			w.Header().Set("Trailer", "Grpc-Status")
			said := append([]byte{0x0a, 2, 0x08, 1, 0x12, byte(len(version))}, version...) // the cluster 1, and the version
			_, _ = w.Write(append([]byte{0, 0, 0, 0, byte(len(said))}, said...))
			w.Header().Set("Grpc-Status", "0")
		})}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	e.t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}
