package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/access"
)

// denials bounds how many refused calls are written down: anybody who may
// connect could fill the audit with them and push out what matters.
type denials struct {
	mu      sync.Mutex
	left    float64 // tokens
	last    time.Time
	dropped int // since the last one that was written
}

const (
	denialBurst = 20
	denialRate  = 1.0 / 10 // a second
)

// pass says whether a denial is to be written, and how many were not before it.
func (d *denials) pass(now time.Time) (dropped int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last.IsZero() {
		d.left = denialBurst
	} else {
		d.left = min(denialBurst, d.left+now.Sub(d.last).Seconds()*denialRate)
	}
	d.last = now
	if d.left < 1 {
		d.dropped++
		return 0, false
	}
	d.left--
	dropped, d.dropped = d.dropped, 0
	return dropped, true
}

// denied keeps a call that was refused for want of a role.
func (s *Server) denied(c *caller, procedure string) {
	dropped, ok := s.denials.pass(time.Now())
	if !ok {
		return
	}
	e := s.entry(c, procedure)
	e.Result, e.Detail = "denied", c.why
	if dropped > 0 {
		e.Detail += fmt.Sprintf("; %d more denials before it were not written", dropped)
	}
	s.write(e)
}

// keep writes down a change and what came of it.
func (s *Server) keep(c *caller, req connect.AnyRequest, res connect.AnyResponse, err error) {
	e := s.entry(c, req.Spec().Procedure)
	e.Target = target(req.Any())
	switch {
	case err != nil:
		e.Result, e.Detail = "failed", err.Error()
	default:
		e.Result, e.Detail = result(res.Any())
	}
	s.write(e)
}

func (s *Server) entry(c *caller, procedure string) access.Entry {
	return access.Entry{Wall: time.Now().UTC(), UID: c.peer.UID, User: s.policy.Name(c.peer.UID), PID: c.peer.PID,
		Role: c.role.String(), Method: method(procedure)}
}

func (s *Server) write(e access.Entry) {
	if s.b.Audit == nil {
		return
	}
	if err := s.b.Audit(e); err != nil {
		s.log.Error("the audit cannot be written", "method", e.Method, "user", e.User, "error", err)
	}
}

// target says what a change was about.
func target(req any) string {
	switch r := req.(type) {
	case *gemelv1.RequestRequest:
		t := fmt.Sprintf("%s %s", verbs[r.GetVerb()], subject(r.GetTarget()))
		if r.GetValue() != "" {
			t += " " + r.GetValue()
		}
		return t
	case *gemelv1.ApplyRequest:
		sum := sha256.Sum256(r.GetManifest())
		t := fmt.Sprintf("%s sha256 %s", r.GetName(), hex.EncodeToString(sum[:]))
		if r.GetDryRun() {
			t = "dry run of " + t
		}
		return t
	case *gemelv1.UpgradeRequest:
		return r.GetBinary()
	case *gemelv1.ShutdownRequest:
		return r.GetReason()
	}
	return ""
}

// result says what came of a change that did not fail.
func result(res any) (word, detail string) {
	switch r := res.(type) {
	case *gemelv1.RequestResponse:
		if !r.GetOk() {
			return "refused", r.GetReason().GetText()
		}
		return "ok", r.GetReason().GetText()
	case *gemelv1.ApplyResponse:
		for _, p := range r.GetProblems() {
			if !p.GetWarning() {
				return "refused", p.GetText()
			}
		}
		return "ok", fmt.Sprintf("%d changes", len(r.GetChanges()))
	}
	return "ok", ""
}
