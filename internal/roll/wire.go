package roll

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
)

// The protocols of the port, and the paths below HTTP.
const (
	overHTTP  = "http/1.1"
	overStore = "gemel-store" // the way to the store, for machines without a member of it

	certificates = "/v1/certificates"
	enlistPath   = "/v1/cluster/enlist"
	leavePath    = "/v1/cluster/leave"
	clockPath    = "/v1/cluster/clock"
	rollPath     = "/v1/cluster/roll"
)

const (
	askTime   = 60 * time.Second // for one question between machines
	maxAnswer = 8 << 20
	maxAsk    = 64 << 10
)

// facts are what a newcomer says of itself.
type facts struct {
	Addresses map[string]netip.AddrPort `json:"addresses"`
	Store     []netip.AddrPort          `json:"store"`
	Waits     []netip.AddrPort          `json:"waits,omitempty"` // of Store: where it can be visited now
	One       bool                      `json:"one-network,omitempty"`
	Version   string                    `json:"version,omitempty"`
}

// settings are what a newcomer is told besides its certificates.
type settings struct {
	Roll     Roll              `json:"roll"`
	Key      string            `json:"key"`               // of the heartbeats, as in the file
	Signers  map[string][]byte `json:"signers,omitempty"` // for nodes: what signs, PEM by plane
	CRL      []byte            `json:"crl,omitempty"`
	Manifest []byte            `json:"manifest,omitempty"`
}

// leaving asks that a machine be taken out.
type leaving struct {
	Name    string `json:"name"`
	Witness bool   `json:"with-witness,omitempty"` // and the witnesses with it
}

// times are the clocks of a machine.
type times struct {
	Wall time.Time     `json:"wall"`
	Boot time.Duration `json:"boot"` // since it booted
}

func timesNow() times { return times{time.Now(), time.Duration(clock.Now())} }

// reply is what every question of ours is answered with.
type reply struct {
	Roll    *Roll  `json:"roll,omitempty"`
	Times   *times `json:"times,omitempty"`
	Signer  []byte `json:"signer,omitempty"` // key and certificate of an authority, PEM
	Refused string `json:"refused,omitempty"`
}

const (
	backTime  = 10 * time.Second // in which a node that begins anew answers again
	backPause = 200 * time.Millisecond
)

// insist repeats what failed because nobody listened, or a connection was cut: a node
// that takes up a change begins anew, and is not there for a moment.
func insist(ctx context.Context, do func() error) error {
	end := time.Now().Add(backTime)
	for {
		err := do()
		gone := errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err == nil || !gone || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		pause(ctx, backPause)
	}
}

// asker asks other machines of the cluster.
type asker struct {
	tls *tls.Config
}

// ask puts one question to the first address that answers. A refusal is an answer.
func (a asker) ask(ctx context.Context, at []string, path string, question any) (r reply, err error) {
	err = insist(ctx, func() error {
		r, err = a.once(ctx, at, path, question)
		return err
	})
	return r, err
}

func (a asker) once(ctx context.Context, at []string, path string, question any) (reply, error) {
	body, err := json.Marshal(question)
	if err != nil {
		return reply{}, fmt.Errorf("writing a question: %w", err)
	}
	t := &http.Transport{TLSClientConfig: a.tls, DisableKeepAlives: true, TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: askTime}
	defer t.CloseIdleConnections()
	client := &http.Client{Transport: t, Timeout: askTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var errs []error
	for _, to := range at {
		r, err := post(ctx, client, "https://"+to+path, body)
		var no *Refused
		if err == nil || errors.As(err, &no) {
			return r, err
		}
		errs = append(errs, fmt.Errorf("asking %s: %w", to, err))
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("no address is known to ask at"))
	}
	return reply{}, errors.Join(errs...)
}

func post(ctx context.Context, c *http.Client, url string, body []byte) (reply, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return reply{}, fmt.Errorf("reading the answer: %w", err)
	}
	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		return reply{}, fmt.Errorf("the answer is %s and not ours: %w", resp.Status, err)
	}
	if r.Refused != "" && resp.StatusCode < 500 {
		return reply{}, &Refused{errors.New(r.Refused), ""}
	}
	if r.Refused != "" || resp.StatusCode != http.StatusOK {
		return reply{}, fmt.Errorf("%s: %s", resp.Status, r.Refused)
	}
	return r, nil
}
