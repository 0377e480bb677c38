package join

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"gemel/internal/mtls"
)

// TestRequestsThatAreNone sends what no newcomer sends.
func TestRequestsThatAreNone(t *testing.T) {
	c := newCluster(t, "c1")
	config, err := mtls.Name{Cluster: "c1", Role: mtls.Node}.Pinned(c.signers["nodes"].Identity().Pin, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	for _, x := range []struct {
		name, method, path, body string
		status                   int
	}{
		{"GET", "GET", "/join", "", 405},
		{"nothing", "POST", "/join", "", 400},
		{"no JSON", "POST", "/join", "hello", 400},
		{"another field", "POST", "/join", `{"body":"e30=","boddy":""}`, 400},
		{"two values", "POST", "/join", `{}{}`, 400},
		{"deep", "POST", "/join", strings.Repeat("[", 20_000), 400},
		{"large", "POST", "/join", `{"body":"` + strings.Repeat("A", 70_000) + `"}`, 413},
		{"no ticket", "POST", "/join", `{"body":"e30="}`, 403},
		{"a path for a ticket", "POST", "/join", `{"ticket":"../../x","body":"e30="}`, 403},
		{"elsewhere", "POST", "/leave", `{}`, 404},
		{"renewal by nobody", "POST", "/renew", `{"body":"e30="}`, 403},
	} {
		t.Run(x.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(context.Background(), x.method, "https://"+c.address+"/v1/certificates"+x.path, strings.NewReader(x.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			var in sealed
			if err != nil || resp.StatusCode != x.status || strict(b, &in) != nil || in.Refused == "" {
				t.Errorf("%d %q, %v; want %d", resp.StatusCode, b, err, x.status)
			}
		})
	}
	if len(c.admitted) > 0 {
		t.Errorf("admitted: %v", c.admitted)
	}
	t.Run("without TLS", func(t *testing.T) {
		w := &answerWriter{}
		c.enroll.ServeHTTP(w, &http.Request{Method: "POST", URL: &url.URL{Path: "/join"}, RemoteAddr: "127.0.0.1:1", Body: http.NoBody})
		if w.status != 405 {
			t.Errorf("%d", w.status)
		}
	})
}

type answerWriter struct {
	status int
	b      bytes.Buffer
}

func (w *answerWriter) Header() http.Header         { return http.Header{} }
func (w *answerWriter) WriteHeader(status int)      { w.status = status }
func (w *answerWriter) Write(b []byte) (int, error) { return w.b.Write(b) }

// TestSlowRequest: half a request is not waited for, whatever else the server allows.
func TestSlowRequest(t *testing.T) {
	c := newCluster(t, "c1")
	c.enroll.patience = 50 * time.Millisecond
	config, err := mtls.Name{Cluster: "c1", Role: mtls.Node}.Pinned(c.signers["nodes"].Identity().Pin, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := c.door().connect(context.Background(), c.address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST /v1/certificates/join HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	b, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(b), "could not be read") {
		t.Errorf("%q, %v", b, err)
	}
}

// TestMany: no more than a few at once, and the others are told.
func TestMany(t *testing.T) {
	c := newCluster(t, "c1")
	in, out := make(chan struct{}), make(chan struct{})
	admit := c.enroll.Admit
	c.enroll.Admit = func(ctx context.Context, a Applicant) (Answer, error) {
		in <- struct{}{}
		<-out
		return admit(ctx, a)
	}
	join := func(name string) error {
		_, err := c.door().Join(context.Background(), c.token(mtls.Node, ""), ask(t, homes(t, mtls.Node), name))
		return err
	}
	var wg sync.WaitGroup
	for i := range together {
		wg.Go(func() {
			if err := join(fmt.Sprintf("n%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	bound := time.After(30 * time.Second)
	for range together {
		select {
		case <-in:
		case <-bound:
			t.Fatal("they do not come in")
		}
	}
	wantError(t, join("late"), "are joining at this moment")
	close(out)
	wg.Wait()
}

func TestSources(t *testing.T) {
	e := &Enroll{}
	for i := range perSource {
		if a := netip.MustParseAddr("2001:db8::1"); e.tooMany(a) {
			t.Fatalf("%v after %d", a, i)
		}
		e.failed(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)))
	}
	for a, want := range map[string]bool{
		"2001:db8::ffff": true, "2001:db8::1%eth0": true, "2001:db8:0:1::1": false, "192.0.2.1": false,
	} {
		if e.tooMany(netip.MustParseAddr(a)) != want {
			t.Errorf("%s: %v", a, !want)
		}
	}
	for i := range 2 * maxSource {
		e.failed(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(e.sources) > maxSource {
		t.Errorf("%d sources are kept", len(e.sources))
	}
	if e.tooMany(netip.Addr{}) {
		t.Error("no address at all")
	}
}

func TestFileBook(t *testing.T) {
	now := time.Now()
	b := &FileBook{Path: t.TempDir() + "/tickets.json", Now: func() time.Time { return now }}
	ctx := context.Background()
	for i := range maxTickets {
		if i%100 == 0 { // each is a write to the disk
			if err := b.Add(ctx, Ticket{ID: fmt.Sprint(i), Expires: now}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := b.Update(ctx, "100", func(t *Ticket) error { t.Failures = 3; return nil }); err != nil {
		t.Fatal(err)
	}
	stop := fmt.Errorf("stop")
	if err := b.Update(ctx, "100", func(t *Ticket) error { t.Failures = 4; return stop }); err != stop {
		t.Error(err)
	}
	again := &FileBook{Path: b.Path, Now: b.Now}
	err := again.Update(ctx, "100", func(x *Ticket) error {
		if x.Failures != 3 {
			t.Errorf("%d failures", x.Failures)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	now = now.Add(8 * 24 * time.Hour)
	if err := again.Add(ctx, Ticket{ID: "new", Expires: now}); err != nil {
		t.Fatal(err)
	}
	if all, err := again.read(); err != nil || len(all) != 1 {
		t.Errorf("%d are kept, %v", len(all), err)
	}
}

// FuzzRequest gives everything that can be in a request to what judges it.
func FuzzRequest(f *testing.F) {
	req := Request{Kind: mtls.Node, Name: "beta", CSRs: map[mtls.Role][]byte{mtls.Node: {0x30, 0}}}
	b, err := json.Marshal(req)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"kind":"agent","csrs":{"agent":""}}`))
	now := time.Now()
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := applicant(&Ticket{Kind: mtls.Node, Expires: now.Add(time.Hour)}, b, now)
		if err == nil && (a.Kind != mtls.Node || a.Pins[mtls.Node] == "" || len(a.Pins) != len(a.CSRs)) {
			t.Errorf("%q is admitted as %+v", b, a)
		}
	})
}
