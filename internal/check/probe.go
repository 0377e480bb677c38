package check

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// answer is what one run of a check said.
type answer struct {
	ok      bool
	detail  string
	accused []ha.Process
}

const (
	maxDetail = 512     // bytes of a detail that are kept
	maxBody   = 1 << 20 // bytes of an answer that an expression is matched against
	maxReply  = 64 << 10
	maxHead   = 64 << 10 // bytes of the header of an answer
	// runnerSlack is how long a command may outlive its time-out while it is killed;
	// after it the context ends, for a Runner that does not keep its own bound.
	runnerSlack = 2 * time.Second
)

// bound is the longest time that one run of c may take.
func bound(c manifest.Check) time.Duration {
	if len(c.Command) > 0 {
		return c.Timeout + runnerSlack
	}
	return c.Timeout
}

// probe runs c once.
func (p *Prober) probe(ctx context.Context, c manifest.Check) answer {
	ctx, cancel := context.WithTimeout(ctx, bound(c))
	defer cancel()
	var err error
	var what string
	switch {
	case len(c.Command) > 0:
		return p.command(ctx, c)
	case c.HTTP != nil:
		what, err = probeHTTP(ctx, c.HTTP)
	case c.TCP != nil:
		what, err = probeTCP(ctx, c.TCP)
	case c.GRPC != nil:
		what, err = probeGRPC(ctx, c.GRPC)
	default:
		err = errors.New("the check says neither command, http, tcp nor grpc")
	}
	if err == nil {
		return answer{ok: true, detail: clean(what)}
	}
	if ctx.Err() != nil {
		return answer{detail: clean(fmt.Sprintf("no answer within %s: %v", ha.Span(c.Timeout), err))}
	}
	return answer{detail: clean(err.Error())}
}

// command runs a check by command. Of its output, "accuse: NAME" lines name the
// processes that are to blame; the rest is the detail.
func (p *Prober) command(ctx context.Context, c manifest.Check) answer {
	code, output, err := p.run(ctx, c.Command, []string{"GEMEL_CHECK=" + string(c.Name)}, c.User, c.Timeout)
	var a answer
	var text []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		name, ok := strings.CutPrefix(line, "accuse:")
		if !ok {
			if line != "" {
				text = append(text, line)
			}
			continue
		}
		// A name that the check does not cover cannot be blamed by it.
		if n := ha.Process(strings.TrimSpace(name)); slices.Contains(c.Covers, n) && !slices.Contains(a.accused, n) {
			a.accused = append(a.accused, n)
		}
	}
	said := strings.Join(text, "; ")
	switch {
	case errors.Is(err, context.DeadlineExceeded) || err != nil && ctx.Err() != nil:
		said = strings.TrimSuffix(fmt.Sprintf("no answer within %s; %s", ha.Span(c.Timeout), said), "; ")
	case err != nil:
		said = fmt.Sprintf("could not be run: %v", err)
	case code == 0:
		return answer{ok: true, detail: clean(said)}
	case code < 0 && said == "":
		said = "it was killed"
	case code < 0: // what ran it says why
	default:
		said = strings.TrimSuffix(fmt.Sprintf("exit %d: %s", code, said), ": ")
	}
	a.detail = clean(said)
	return a
}

// probeHTTP asks an HTTP server. A redirect is an answer and is not followed: the
// health of another server is not that of this one. No proxy of the environment
// stands between.
func probeHTTP(ctx context.Context, h *manifest.HTTP) (string, error) {
	method := h.Method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, method, h.URL, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", "gemel-check")
	for k, v := range h.Headers {
		req.Header.Set(k, v)
		if http.CanonicalHeaderKey(k) == "Host" {
			req.Host = v
		}
	}
	vouched, err := authority(h.CA)
	if err != nil {
		return "", err
	}
	vouched.InsecureSkipVerify = !h.Verify //nolint:gosec // `verify: false` of the manifest
	t := &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHead,
		ForceAttemptHTTP2:      true,
		TLSClientConfig:        vouched,
	}
	defer t.CloseIdleConnections()
	// The transport alone: no redirects, no cookies.
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", method, h.URL, err)
	}
	defer resp.Body.Close()
	if !accepted(h.Status, resp.StatusCode) {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxDetail)) // only for the detail
		return "", fmt.Errorf("status %s: %s", resp.Status, said)
	}
	if h.Body == "" {
		return "status " + resp.Status, nil
	}
	re, err := regexp.Compile(h.Body)
	if err != nil {
		return "", fmt.Errorf("expression for the body: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", fmt.Errorf("reading the body: %w", err)
	}
	if !re.Match(body) {
		return "", fmt.Errorf("status %s, and the body does not match %q: %s", resp.Status, h.Body, body[:min(len(body), maxDetail)])
	}
	return "status " + resp.Status, nil
}

// maxCA bounds the file of certificates.
const maxCA = 1 << 20

// authority says who may vouch for a server: the certificates in file, read anew
// for each run, or those of the machine.
func authority(file string) (*tls.Config, error) {
	if file == "" {
		return &tls.Config{}, nil
	}
	// Not to wait for ever where somebody put a pipe.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading ca: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCA))
	if err != nil {
		return nil, fmt.Errorf("reading ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("reading ca: %s holds no certificate (PEM)", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

func accepted(allowed []int, code int) bool {
	if len(allowed) == 0 {
		return code >= 200 && code < 400
	}
	return slices.Contains(allowed, code)
}

// network tells the address of a unix socket, a path or an abstract @name, from
// host:port.
func network(address string) (network, addr string) {
	if a, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", a
	}
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "@") {
		return "unix", address
	}
	return "tcp", address
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	n, a := network(address)
	return d.DialContext(ctx, n, a)
}

// probeTCP connects, sends, and waits for what is expected.
func probeTCP(ctx context.Context, t *manifest.TCP) (string, error) {
	conn, err := dial(ctx, t.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if t.Send != "" {
		if _, err := io.WriteString(conn, t.Send); err != nil {
			return "", err
		}
	}
	if t.Expect == "" {
		return "connected to " + t.Address, nil
	}
	re, err := regexp.Compile(t.Expect)
	if err != nil {
		return "", fmt.Errorf("expression for the answer: %w", err)
	}
	var got []byte
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if m := re.Find(got); m != nil {
			return "answered " + string(m), nil
		}
		switch {
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("closed without an answer that matches %q: %s", t.Expect, got)
		case err != nil && ctx.Err() != nil: // closed by us: its error says nothing
			return "", fmt.Errorf("waiting for %q, got %q", t.Expect, got[:min(len(got), 200)])
		case err != nil:
			return "", fmt.Errorf("waiting for %q, got %q: %w", t.Expect, got[:min(len(got), 200)], err)
		case len(got) > maxReply:
			return "", fmt.Errorf("%d bytes without one that matches %q: %s", len(got), t.Expect, got[:maxDetail])
		}
	}
}

// clean makes text fit for a log and a terminal: one line, printable, bounded.
func clean(s string) string {
	var b bytes.Buffer
	for _, r := range strings.TrimSpace(s) {
		switch {
		case r == '\n':
			r = ';'
		case unicode.IsSpace(r):
			r = ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > maxDetail {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
