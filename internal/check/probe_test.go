package check

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// ask runs one probe with a bound that a loaded machine keeps.
func ask(t *testing.T, c manifest.Check) answer {
	t.Helper()
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	p := New(nil, func(ha.Input) {}, slog.New(slog.DiscardHandler))
	return p.probe(t.Context(), c)
}

// want fails unless the answer is as said and its detail has the words.
func want(t *testing.T, a answer, ok bool, words string) {
	t.Helper()
	if a.ok != ok || !strings.Contains(a.detail, words) {
		t.Errorf("ok %v, %q; want %v, %q", a.ok, a.detail, ok, words)
	}
	if len(a.detail) > maxDetail || strings.ContainsAny(a.detail, "\n\x1b") {
		t.Errorf("detail %q", a.detail)
	}
}

// loopbacks are the addresses that this machine can listen on.
func loopbacks(t *testing.T) []string {
	all := []string{"127.0.0.1:0"}
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Log("left out, because this machine has no IPv6: the probes over ::1")
		return all
	}
	l.Close()
	return append(all, "[::1]:0")
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/well", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s all is well", r.Method, r.Host, r.Header.Get("X-Token"))
	})
	mux.HandleFunc("/ill", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "database \x1b[31mgone\nreally", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ill", http.StatusFound) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/never", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for _, addr := range loopbacks(t) {
		t.Run(addr, func(t *testing.T) {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			s := httptest.NewUnstartedServer(mux)
			s.Listener.Close()
			s.Listener = l
			s.Start()
			defer s.Close()
			// Neither a proxy of the environment nor a redirect leads elsewhere.
			t.Setenv("HTTP_PROXY", "http://192.0.2.1:1")
			get := func(path string, more manifest.HTTP) answer {
				more.URL = s.URL + path
				return ask(t, manifest.Check{HTTP: &more})
			}
			want(t, get("/well", manifest.HTTP{}), true, "status 200")
			want(t, get("/well", manifest.HTTP{Body: "all is w.ll$"}), true, "status 200")
			want(t, get("/well", manifest.HTTP{Method: "PUT", Body: "^PUT here secret",
				Headers: map[string]string{"X-Token": "secret", "Host": "here"}}), true, "")
			want(t, get("/well", manifest.HTTP{Body: "all is ill"}), false, "does not match")
			want(t, get("/well", manifest.HTTP{Body: "("}), false, "expression")
			want(t, get("/well", manifest.HTTP{Status: []int{204}}), false, "status 200")
			want(t, get("/ill", manifest.HTTP{}), false, "503 Service Unavailable: database ?[31mgone;really")
			want(t, get("/ill", manifest.HTTP{Status: []int{503}}), true, "503")
			want(t, get("/moved", manifest.HTTP{}), true, "302")
			want(t, get("/moved", manifest.HTTP{Status: []int{200}}), false, "302")
			want(t, get("/endless", manifest.HTTP{Body: "x"}), false, "does not match")
			a := ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL + "/never"}, Timeout: 50 * time.Millisecond})
			want(t, a, false, "no answer within 50ms")
		})
	}
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: "http://127.0.0.1:1/"}}), false, "refused")
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: "::"}}), false, "missing protocol scheme")
	want(t, ask(t, manifest.Check{}), false, "neither command")
}

func TestHTTPS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "well") }))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	defer s.Close()
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL}}), true, "200")
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL, Verify: true}}), false, "certificate")
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL, Verify: true, CA: vouching(t, s)}}), true, "200")
	none := filepath.Join(t.TempDir(), "none.pem")
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL, Verify: true, CA: none}}), false, "reading ca: open "+none)
	if err := os.WriteFile(none, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, ask(t, manifest.Check{HTTP: &manifest.HTTP{URL: s.URL, Verify: true, CA: none}}), false, "holds no certificate (PEM)")
}

// vouching is a file with the certificate of a test's server.
func vouching(t *testing.T, s *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// serve answers each connection to l by f until the test ends.
func serve(t *testing.T, l net.Listener, f func(net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
}

func TestTCP(t *testing.T) {
	addrs := []string{"unix:" + filepath.Join(t.TempDir(), "s")}
	addrs = append(addrs, loopbacks(t)...)
	for _, addr := range addrs {
		t.Run(addr, func(t *testing.T) {
			n, a := network(addr)
			l, err := net.Listen(n, a)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, l, func(c net.Conn) {
				b := make([]byte, 5)
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				switch string(b) {
				case "PING\n":
					fmt.Fprint(c, "+PO")
					fmt.Fprint(c, "NG\r\n")
				case "SHUT\n":
					fmt.Fprint(c, "bye")
				case "MUCH\n":
					for {
						if _, err := c.Write(make([]byte, 4096)); err != nil {
							return
						}
					}
				default:
					io.Copy(io.Discard, c) // says nothing
				}
			})
			at := l.Addr().String()
			tcp := func(send, expect string, bound time.Duration) answer {
				return ask(t, manifest.Check{TCP: &manifest.TCP{Address: at, Send: send, Expect: expect}, Timeout: bound})
			}
			want(t, tcp("", "", 0), true, "connected")
			want(t, tcp("PING\n", `\+PONG`, 0), true, "answered +PONG")
			want(t, tcp("SHUT\n", "PONG", 0), false, "closed without an answer")
			want(t, tcp("MUCH\n", "PONG", 0), false, "bytes without one")
			want(t, tcp("WAIT\n", "PONG", 50*time.Millisecond), false, "no answer within 50ms")
			want(t, tcp("PING\n", "(", 0), false, "expression")
		})
	}
	want(t, ask(t, manifest.Check{TCP: &manifest.TCP{Address: "127.0.0.1:1"}}), false, "refused")
	want(t, ask(t, manifest.Check{TCP: &manifest.TCP{Address: "/nowhere/socket"}}), false, "no such file")
}

// healthServer is the server's side of grpc.health.v1, as small as the client's.
func healthServer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" || len(body) < 5 {
		http.Error(w, "not gRPC", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	name := ""
	if len(body) > 7 {
		name = string(body[7:])
	}
	status := map[string]byte{"": 1, "well": 1, "ill": 2, "strange": 99}
	state, ok := status[name]
	switch {
	case name == "none":
		w.Header().Set("Grpc-Status", "12")
		w.Header().Set("Grpc-Message", "no%20health")
		return
	case name == "garbage":
		w.Write([]byte{0, 0, 0, 0, 9, 8})
	case !ok:
		w.Header().Set("Grpc-Status", "5")
		return
	default:
		w.Write([]byte{0, 0, 0, 0, 5, 0x12, 1, 'x', 8, state}) // a field that is not known, and the state
	}
	w.Header().Set("Grpc-Status", "0")
}

func TestGRPC(t *testing.T) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	for _, addr := range append(loopbacks(t), "unix:"+filepath.Join(t.TempDir(), "s")) {
		t.Run(addr, func(t *testing.T) {
			n, a := network(addr)
			l, err := net.Listen(n, a)
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Server{Handler: http.HandlerFunc(healthServer), Protocols: &protocols}
			go s.Serve(l)
			t.Cleanup(func() { s.Close() })
			at := l.Addr().String()
			if n == "unix" {
				at = addr
			}
			grpc := func(service string) answer {
				return ask(t, manifest.Check{GRPC: &manifest.GRPC{Address: at, Service: service}})
			}
			want(t, grpc(""), true, "SERVING")
			want(t, grpc("well"), true, "SERVING")
			want(t, grpc("ill"), false, `service "ill" says NOT_SERVING`)
			want(t, grpc("strange"), false, "says 99")
			want(t, grpc("unheard"), false, "NOT_FOUND")
			want(t, grpc("none"), false, "UNIMPLEMENTED) no health")
			want(t, grpc("garbage"), false, "not a message of grpc.health.v1")
		})
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	at := strings.TrimPrefix(plain.URL, "http://")
	want(t, ask(t, manifest.Check{GRPC: &manifest.GRPC{Address: at}}), false, "grpc health of")

	secure := httptest.NewUnstartedServer(http.HandlerFunc(healthServer))
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	secure.StartTLS()
	defer secure.Close()
	at = strings.TrimPrefix(secure.URL, "https://")
	want(t, ask(t, manifest.Check{GRPC: &manifest.GRPC{Address: at, TLS: true}}), false, "certificate")
	want(t, ask(t, manifest.Check{GRPC: &manifest.GRPC{Address: at, TLS: true, CA: vouching(t, secure)}}), true, "SERVING")
}

func TestAwaitPort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := manifest.Ready{Kind: manifest.ReadyPort, Address: path}
	if err := Await(short, r, nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	got := make(chan error, 1)
	go func() { got <- Await(t.Context(), r, nil) }()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(net.Conn) {})
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func FuzzHealthReply(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 5, 0x12, 1, 'x', 8, 1})
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := healthReply(b); err == nil && len(b) < 5 {
			t.Fatal("a reply without a frame")
		}
	})
}
