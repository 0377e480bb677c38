package join

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"gemel/internal/mtls"
)

// How much is done at once, and for how long.
const (
	together  = 8
	readTime  = 10 * time.Second
	admitTime = 30 * time.Second
	perSource = 10 // failures in window
	window    = 10 * time.Minute
	maxSource = 4096
)

// An Applicant is somebody who may come in, if nothing speaks against it: the
// token was right, or the certificate of who renews.
type Applicant struct {
	Request
	// Names are the names to sign, for each role that was asked for.
	Names map[mtls.Role]mtls.Name
	// Pins are those of the keys.
	Pins map[mtls.Role]string
	From netip.Addr
	// Token is the ticket's id; empty for who renews.
	Token string
	// Again: the same one asked before by the same token and may have got no answer.
	Again bool
}

// An Enroll is the cluster's side. Its fields are set before the first use.
type Enroll struct {
	Cluster string
	Book    Book
	Now     func() time.Time // nil: time.Now
	// Admit does what has to be done for an applicant, signs, and makes the answer
	// (all but its name). It refuses a name that is somebody else's. It may be called
	// more than once for one applicant, see Again. Its errors are told to the applicant.
	Admit func(ctx context.Context, a Applicant) (Answer, error)
	// Who judges the certificate of somebody who renews: Files.Peer.
	Who func(cs tls.ConnectionState, roles ...mtls.Role) (mtls.Identity, error)
	Log *slog.Logger

	patience time.Duration // for a request to come in; zero: readTime

	mu      sync.Mutex
	busy    int
	sources map[netip.Prefix]*source
}

// source counts the failures that came from somewhere.
type source struct {
	since    time.Time
	failures int
}

// refusal is an error that is told to the other side; everything else is only logged.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// ServeHTTP answers POST to .../join and .../renew, wherever it is mounted.
func (e *Enroll) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := e.serve(w, r)
	status := http.StatusOK
	if err != nil {
		status = http.StatusInternalServerError
		answer = sealed{Refused: "this node could not do it; its log says why"}
		var told *refusal
		if errors.As(err, &told) {
			status, answer.Refused = told.status, told.text
		}
		e.Log.Warn("somebody could not join", "path", r.URL.Path, "from", r.RemoteAddr, "error", err)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{"refused":"this node could not write its answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who has gone asks again
}

func (e *Enroll) serve(w http.ResponseWriter, r *http.Request) (sealed, error) {
	if r.Method != http.MethodPost || r.TLS == nil {
		return sealed{}, refuse(http.StatusMethodNotAllowed, "POST by TLS is needed here")
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return sealed{}, fmt.Errorf("the address of the other side: %w", err)
	}
	if !e.enter() {
		return sealed{}, refuse(http.StatusServiceUnavailable, "%d are joining at this moment; try again in a minute", together)
	}
	defer e.leave()
	patience := e.patience
	if patience == 0 {
		patience = readTime
	}
	if err := http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)); err != nil {
		return sealed{}, fmt.Errorf("bounding the time of a request: %w", err)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return sealed{}, refuse(http.StatusRequestEntityTooLarge, "the request could not be read: %v", err)
	}
	var in sealed
	if err := strict(b, &in); err != nil {
		return sealed{}, refuse(http.StatusBadRequest, "the request cannot be understood: %v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), admitTime)
	defer cancel()
	switch {
	case strings.HasSuffix(r.URL.Path, joinPath):
		return e.join(ctx, r.TLS, from.Addr(), in)
	case strings.HasSuffix(r.URL.Path, renewPath):
		id, err := e.Who(*r.TLS, mtls.Node, mtls.Witness)
		if err != nil {
			return sealed{}, refuse(http.StatusForbidden, "only who has a certificate of this cluster can renew it: %v", err)
		}
		var req Request
		if err := strict(in.Body, &req); err != nil {
			return sealed{}, refuse(http.StatusBadRequest, "the request cannot be understood: %v", err)
		}
		answer, err := e.Renew(ctx, id, from.Addr(), req)
		if err != nil {
			return sealed{}, err
		}
		body, err := json.Marshal(answer)
		return sealed{Body: body}, err
	}
	return sealed{}, refuse(http.StatusNotFound, "there are only %s and %s here", joinPath, renewPath)
}

func (e *Enroll) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy >= together {
		return false
	}
	e.busy++
	return true
}

func (e *Enroll) leave() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
}

func (e *Enroll) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// join is the exchange with a newcomer.
func (e *Enroll) join(ctx context.Context, cs *tls.ConnectionState, from netip.Addr, in sealed) (sealed, error) {
	if e.tooMany(from) {
		return sealed{}, refuse(http.StatusTooManyRequests, "too many attempts failed from %v; wait %v", from, window)
	}
	bound, err := channel(cs)
	if err != nil {
		return sealed{}, refuse(http.StatusForbidden, "%v", err)
	}
	who, ticket, err := e.claim(ctx, bound, from, in)
	if err != nil {
		return sealed{}, err
	}
	answer, err := e.admit(ctx, who)
	if err != nil {
		return sealed{}, err
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return sealed{}, fmt.Errorf("writing the answer: %w", err)
	}
	return sealed{Body: body, Proof: answered(ticket.Server, bound, in.Body, body)}, nil
}

// unknown is told to everybody who has not shown that he has the secret.
const unknown = "this token is not accepted here: it is of another cluster, or its end was long ago, or it was never made. Make a new one"

// claim takes a ticket for who proved to have its secret. From then on it is good
// for nobody else, whatever comes of it.
func (e *Enroll) claim(ctx context.Context, bound []byte, from netip.Addr, in sealed) (Applicant, Ticket, error) {
	var who Applicant
	var ticket Ticket
	var wrong bool
	err := e.Book.Update(ctx, in.Ticket, func(t *Ticket) error {
		who, wrong = Applicant{}, false
		if !proven(t.Stored, bound, in.Body, in.Proof) {
			wrong = true
			t.Failures = min(t.Failures+1, maxFailures)
			return nil
		}
		var err error
		if who, err = applicant(t, in.Body, e.now()); err != nil {
			return err
		}
		if t.Used.IsZero() {
			t.Used, t.By, t.ByName = e.now().UTC().Truncate(time.Second), who.Pins[who.Kind], who.Request.Name
		}
		ticket = *t
		return nil
	})
	if wrong || errors.Is(err, fs.ErrNotExist) {
		e.failed(from)
		return who, ticket, refuse(http.StatusForbidden, unknown)
	}
	who.From, who.Token = from, in.Ticket
	return who, ticket, err
}

// applicant judges a request whose secret was right: nothing leaks to who has it.
func applicant(t *Ticket, body []byte, now time.Time) (Applicant, error) {
	var req Request
	if err := strict(body, &req); err != nil {
		return Applicant{}, refuse(http.StatusBadRequest, "the request cannot be understood: %v", err)
	}
	pins, err := req.check(false)
	if err != nil {
		return Applicant{}, refuse(http.StatusBadRequest, "%v", err)
	}
	again := !t.Used.IsZero() && equal([]byte(t.By), []byte(pins[req.Kind]))
	switch {
	case t.Failures >= maxFailures:
		return Applicant{}, refuse(http.StatusForbidden, "this token was tried %d times with a wrong secret and is good no more; make a new one", t.Failures)
	case !t.Used.IsZero() && !again:
		return Applicant{}, refuse(http.StatusForbidden,
			"this token was used at %s by %q; each is good once. If that was not you, take its certificates back; make a new token", t.Used.Format(time.RFC3339), t.ByName)
	case !again && now.After(t.Expires), now.After(t.Expires.Add(time.Hour)):
		return Applicant{}, refuse(http.StatusForbidden, "this token expired at %s, and it is %s here; make a new one",
			t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case req.Kind != t.Kind:
		return Applicant{}, refuse(http.StatusForbidden, "this token is for the role %s, not for %s", t.Kind, req.Kind)
	case t.Name != "" && req.Name != "" && req.Name != t.Name:
		return Applicant{}, refuse(http.StatusForbidden, "this token is for the name %q, not for %q", t.Name, req.Name)
	}
	if t.Name != "" {
		req.Name = t.Name
	}
	return Applicant{Request: req, Pins: pins, Again: again}, nil
}

// Renew gives new certificates to a party that is known by its present one. Its
// name is that of the certificate. An agent's request comes by way of its manager.
func (e *Enroll) Renew(ctx context.Context, id mtls.Identity, from netip.Addr, req Request) (Answer, error) {
	if req.Kind != id.Name.Role || req.Name != "" && req.Name != id.Name.Name {
		return Answer{}, refuse(http.StatusForbidden, "%v cannot renew the certificates of %s %q", id.Name, req.Kind, req.Name)
	}
	req.Name = id.Name.Name
	pins, err := req.check(true)
	if err != nil {
		return Answer{}, refuse(http.StatusBadRequest, "%v", err)
	}
	for role, pin := range pins {
		if pin == id.Pin {
			return Answer{}, refuse(http.StatusBadRequest, "for the role %s: it is the key of the present certificate; a new one is needed", role)
		}
	}
	return e.admit(ctx, Applicant{Request: req, Pins: pins, From: from})
}

// admit names the applicant and lets the owner of the cluster do the rest.
func (e *Enroll) admit(ctx context.Context, a Applicant) (Answer, error) {
	own := mtls.Name{Cluster: e.Cluster, Role: a.Kind, Name: a.Request.Name}
	if err := own.Check(); err != nil {
		return Answer{}, refuse(http.StatusBadRequest, "who is it that asks? %v", err)
	}
	a.Names = map[mtls.Role]mtls.Name{}
	for role := range a.CSRs {
		a.Names[role] = mtls.Name{Cluster: e.Cluster, Role: role, Name: own.Name}
	}
	answer, err := e.Admit(ctx, a)
	if err != nil {
		return Answer{}, refuse(http.StatusForbidden, "%v is not admitted: %v", own, err)
	}
	answer.Name = own
	for role := range a.CSRs {
		if len(answer.Certificates[role]) == 0 || answer.Trust[role.Authority(e.Cluster).Name] == nil {
			return Answer{}, fmt.Errorf("admitting %v: there is no certificate for the role %s", own, role)
		}
	}
	e.Log.Info("certificates were given out", "name", own.String(), "from", a.From.String(), "token", a.Token, "again", a.Again)
	return answer, nil
}

// prefixOf is what counts as one source: of IPv6 a whole network, in which anybody
// has as many addresses as he likes.
func prefixOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits) // the zero prefix if there is no address: one source as well
	return p
}

// tooMany reports that a source failed too often of late.
func (e *Enroll) tooMany(from netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sources[prefixOf(from)]
	return s != nil && s.failures >= perSource && time.Since(s.since) < window
}

// failed counts a failure. Time is the machine's own here, not the wall clock.
func (e *Enroll) failed(from netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.sources) >= maxSource {
		maps.DeleteFunc(e.sources, func(_ netip.Prefix, s *source) bool { return time.Since(s.since) >= window })
	}
	if e.sources == nil || len(e.sources) >= maxSource {
		// Forgetting is no danger: what is guessed at has 128 bits, and each ticket
		// counts for itself.
		e.sources = map[netip.Prefix]*source{}
	}
	at := prefixOf(from)
	s := e.sources[at]
	if s == nil || time.Since(s.since) >= window {
		s = &source{since: time.Now()}
		e.sources[at] = s
	}
	s.failures++
}
