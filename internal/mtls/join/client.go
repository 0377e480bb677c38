package join

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"gemel/internal/mtls"
)

const (
	dialTime = 10 * time.Second
	askTime  = admitTime + 2*readTime
)

// A Door is where and how a party asks. Addresses are tried one after the other
// until one answers; a refusal is an answer.
type Door struct {
	Addresses []string // HOST:PORT
	Path      string   // under which the Enroll is mounted, such as "/v1/certificates"
	// Dial makes the connection below TLS. Nil: TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time // nil: time.Now
}

// Join asks for certificates by a token. The cluster is known to be the one of the
// token before anything is sent, and the answer to come from who has the ticket.
func (d Door) Join(ctx context.Context, t Token, req Request) (Answer, error) {
	now := d.Now
	if now == nil {
		now = time.Now
	}
	config, err := mtls.Name{Cluster: t.Cluster, Role: mtls.Node}.Pinned(t.Pin, now)
	if err != nil {
		return Answer{}, fmt.Errorf("joining: %w", err)
	}
	req.Kind = t.Kind
	if req.Name == "" {
		req.Name = t.Name
	}
	return d.each(ctx, "joining", func(ctx context.Context, address string) (Answer, error) {
		return d.ask(ctx, address, config, &t, req)
	})
}

// Renew asks for new certificates with the present one; config is that of
// Files.Client.
func (d Door) Renew(ctx context.Context, config *tls.Config, req Request) (Answer, error) {
	return d.each(ctx, "renewing certificates", func(ctx context.Context, address string) (Answer, error) {
		return d.ask(ctx, address, config, nil, req)
	})
}

// each tries the addresses.
func (d Door) each(ctx context.Context, what string, ask func(context.Context, string) (Answer, error)) (Answer, error) {
	if len(d.Addresses) == 0 {
		return Answer{}, fmt.Errorf("%s: no address is given", what)
	}
	var errs []error
	for _, address := range d.Addresses {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		answer, err := ask(ctx, address)
		cancel()
		if err == nil {
			return answer, nil
		}
		err = fmt.Errorf("%s at %s: %w", what, address, err)
		var told *refusal
		if errors.As(err, &told) && told.status < 500 {
			return Answer{}, err
		}
		errs = append(errs, err)
	}
	return Answer{}, errors.Join(errs...)
}

// ask makes one exchange over one connection of its own.
func (d Door) ask(ctx context.Context, address string, config *tls.Config, t *Token, req Request) (Answer, error) {
	conn, err := d.connect(ctx, address, config)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cs := conn.ConnectionState()
	bound, err := channel(&cs)
	if err != nil {
		return Answer{}, err
	}
	path, out := renewPath, sealed{}
	if out.Body, err = json.Marshal(req); err != nil {
		return Answer{}, fmt.Errorf("writing the request: %w", err)
	}
	if t != nil {
		path = joinPath
		client := t.key("client")
		out.Ticket, out.Proof = t.id(), proof(client, hash(client), bound, out.Body)
	}
	in, err := post(ctx, conn, address, d.Path+path, out)
	if err != nil {
		return Answer{}, err
	}
	if t != nil && !equal(in.Proof, answered(t.key("server"), bound, out.Body, in.Body)) {
		return Answer{}, errors.New("the answer is not proven to come from the cluster that made the token: nothing of it is used")
	}
	var answer Answer
	if err := strict(in.Body, &answer); err != nil {
		return Answer{}, fmt.Errorf("reading the answer: %w", err)
	}
	return answer, answer.fits(req, t)
}

func (d Door) connect(ctx context.Context, address string, config *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{"http/1.1"}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// post sends one message by HTTP and reads the answer. The connection is not one
// of a pool: the proofs are bound to it.
func post(ctx context.Context, conn net.Conn, address, path string, out sealed) (sealed, error) {
	b, err := json.Marshal(out)
	if err != nil {
		return sealed{}, fmt.Errorf("writing the request: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(b))
	if err != nil {
		return sealed{}, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Close = true
	if err := r.Write(conn); err != nil {
		return sealed{}, fmt.Errorf("sending the request: %w", cause(ctx, err))
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxAnswer)), r)
	if err != nil {
		return sealed{}, fmt.Errorf("waiting for the answer: %w", cause(ctx, err))
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return sealed{}, fmt.Errorf("reading the answer: %w", cause(ctx, err))
	}
	var in sealed
	err = strict(b, &in)
	switch {
	case err == nil && in.Refused != "":
		return sealed{}, &refusal{resp.StatusCode, "refused: " + in.Refused}
	case resp.StatusCode != http.StatusOK:
		return sealed{}, fmt.Errorf("the answer is %s: is that the port of the API?", resp.Status)
	case err != nil:
		return sealed{}, fmt.Errorf("reading the answer: %w", err)
	}
	return in, nil
}

// cause prefers the reason for which a connection was closed.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil {
		return why
	}
	return err
}

// fits finds what is wrong with an answer.
func (a *Answer) fits(req Request, t *Token) error {
	if err := a.Name.Check(); err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	if a.Name.Role != req.Kind || t != nil && (a.Name.Cluster != t.Cluster || t.Name != "" && a.Name.Name != t.Name) {
		return fmt.Errorf("the answer is for %v, which was not asked for", a.Name)
	}
	for role := range req.CSRs {
		trust := a.Trust[role.Authority(a.Name.Cluster).Name]
		if len(a.Certificates[role]) == 0 || trust == nil || trust.Cluster != a.Name.Cluster {
			return fmt.Errorf("the answer has no certificate for the role %s", role)
		}
	}
	return nil
}
