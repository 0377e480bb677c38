package rpc

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

const (
	maxName = 256  // bytes of a name or a value
	maxText = 4096 // bytes of a path or a reason
)

// clean makes text out of what a program or a file may have put there: the wire
// carries valid UTF-8 only.
func clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Request asks the core for a change.
func (a *api) Request(ctx context.Context, req *gemelv1.RequestRequest) (*gemelv1.RequestResponse, error) {
	o, err := order(req)
	if err != nil {
		return nil, err
	}
	if a.b.Core == nil {
		return nil, absent("requests")
	}
	if err := a.known(o.Target); err != nil {
		return nil, err
	}
	o.By = a.by(callerOf(ctx).peer)
	ask := a.b.Core.Request
	if shared(o) {
		if a.b.Cluster == nil {
			return nil, fault(ha.ErrRefused, "no-cluster", "gemel init makes one", "%s is for a cluster, and this machine belongs to none", o.Verb)
		}
		ask = a.b.Cluster
	}
	answer, err := ask(ctx, o)
	if err != nil {
		return nil, err
	}
	return &gemelv1.RequestResponse{Ok: answer.OK, Reason: reasonOf(answer.Why), Undo: answer.Undo}, nil
}

// mostMaintenance bounds it: what has no end is gemel drain, or gemel lock.
const mostMaintenance = 7 * 24 * time.Hour

// shared reports whether a request is no matter of this node alone.
func shared(o ha.Request) bool {
	switch o.Verb {
	case ha.VerbMove, ha.VerbDrain, ha.VerbResume, ha.VerbMaintain, ha.VerbDecide, ha.VerbConfirmOff:
		return true
	}
	return o.Target.Kind == ha.KindGroup
}

// order checks what can be checked without the state.
func order(req *gemelv1.RequestRequest) (ha.Request, error) {
	verb, ok := verbs[req.GetVerb()]
	if !ok {
		return ha.Request{}, fault(ha.ErrInvalid, "verb", "see gemel.v1.Verb", "there is no verb %d", req.GetVerb())
	}
	o := ha.Request{Verb: verb, Target: subject(req.GetTarget()), Value: req.GetValue(), Forced: req.GetForced()}
	allowed := []ha.Kind{ha.KindProcess}
	switch verb {
	case ha.VerbLock, ha.VerbUnlock:
		allowed = []ha.Kind{ha.KindNode, ha.KindProcess, ha.KindCheck, ha.KindGroup}
	case ha.VerbMove:
		allowed = []ha.Kind{ha.KindGroup}
	case ha.VerbDrain, ha.VerbResume, ha.VerbDecide, ha.VerbConfirmOff:
		allowed = []ha.Kind{ha.KindNode}
	case ha.VerbMaintain:
		allowed = []ha.Kind{ha.KindNode, ha.KindGroup}
	case ha.VerbClear:
		allowed = []ha.Kind{ha.KindNode, ha.KindProcess, ha.KindGroup}
	}
	fits := false
	for _, k := range allowed {
		fits = fits || o.Target.Kind == k
	}
	switch {
	case !fits:
		return o, fault(ha.ErrInvalid, "target", "", "%s is for %s; the target is %q", verb, listed(allowed), o.Target.Kind)
	case named(o.Target) && o.Target.Name == "":
		return o, fault(ha.ErrInvalid, "target", "", "the target has no name")
	case len(o.Target.Name) > maxName:
		return o, fault(ha.ErrInvalid, "target", "", "the name of the target has %d bytes; at most %d", len(o.Target.Name), maxName)
	}
	if !named(o.Target) && !shared(o) {
		o.Target.Name = "" // there is one node here
	}
	return o, value(&o)
}

func named(s ha.Subject) bool { return s.Kind != ha.KindNode }

// value checks the value of a set verb, and that the others have none.
func value(o *ha.Request) error {
	var err error
	switch o.Verb {
	case ha.VerbRecovery:
		var r ha.Recovery
		if err = r.UnmarshalText([]byte(o.Value)); err == nil && r == ha.RecoveryUnset {
			err = fmt.Errorf("it is empty")
		}
		if err != nil {
			return fault(ha.ErrInvalid, "value", "", "the recovery action is %.100q; allowed: none, restart, failover-restart, failover-reboot", o.Value)
		}
	case ha.VerbEscalation:
		var e ha.Escalation
		if err = e.UnmarshalText([]byte(o.Value)); err == nil && e == ha.EscalationUnset {
			err = fmt.Errorf("it is empty")
		}
		if err != nil {
			return fault(ha.ErrInvalid, "value", "", "the escalation action is %.100q; allowed: none, failover, failover-reboot", o.Value)
		}
	case ha.VerbMaintain:
		if d, err := time.ParseDuration(o.Value); o.Value != "" && (err != nil || d < time.Minute || d > mostMaintenance) {
			return fault(ha.ErrInvalid, "value", "", "maintenance is for %.100q; allowed: from 1m to 168h", o.Value)
		}
	case ha.VerbMove:
		if len(o.Value) > maxName {
			return fault(ha.ErrInvalid, "value", "", "the name of the node has %d bytes; at most %d", len(o.Value), maxName)
		}
	default:
		if o.Value != "" {
			return fault(ha.ErrInvalid, "value", "", "%s takes no value; it is %.100q", o.Verb, o.Value)
		}
	}
	return nil
}

func listed(kinds []ha.Kind) string {
	var words []string
	for _, k := range kinds {
		words = append(words, "a "+string(k))
	}
	return strings.Join(words, " or ")
}

func absent(what string) error {
	return fault(ha.ErrUnavailable, "absent", "", "this daemon has no %s", what)
}

// running counts the programs that run.
func (s *Server) running() (n uint32) {
	last, _ := s.b.Board.Last()
	if last == nil {
		return 0
	}
	for i := range last.Processes {
		if last.Processes[i].PID != 0 {
			n++
		}
	}
	return n
}

// Detach ends Gemel and leaves the programs.
func (a *api) Detach(ctx context.Context, _ *gemelv1.DetachRequest) (*gemelv1.DetachResponse, error) {
	if a.b.Life == nil {
		return nil, absent("way to detach")
	}
	res := &gemelv1.DetachResponse{Running: a.running()}
	if err := a.b.Life.Detach(ctx); err != nil {
		return nil, err
	}
	return res, nil
}

// Upgrade replaces both halves.
func (a *api) Upgrade(ctx context.Context, req *gemelv1.UpgradeRequest) (*gemelv1.UpgradeResponse, error) {
	path := req.GetBinary()
	switch {
	case a.b.Life == nil:
		return nil, absent("way to upgrade")
	case len(path) > maxText || strings.ContainsRune(path, 0):
		return nil, fault(ha.ErrInvalid, "binary", "", "the path of the binary is no path")
	case path != "" && !filepath.IsAbs(path):
		return nil, fault(ha.ErrInvalid, "binary", "give the whole path", "the path of the binary is %.100q; it must begin with /", path)
	}
	from, to, err := a.b.Life.Upgrade(ctx, path)
	if err != nil {
		return nil, err
	}
	return &gemelv1.UpgradeResponse{From: from, To: to}, nil
}

// Shutdown stops every program and ends Gemel.
func (a *api) Shutdown(ctx context.Context, req *gemelv1.ShutdownRequest) (*gemelv1.ShutdownResponse, error) {
	if a.b.Life == nil {
		return nil, absent("way to shut down")
	}
	if len(req.GetReason()) > maxText {
		return nil, fault(ha.ErrInvalid, "reason", "", "the reason has %d bytes; at most %d", len(req.GetReason()), maxText)
	}
	why := "asked for by " + a.by(callerOf(ctx).peer)
	if req.GetReason() != "" {
		why += ": " + req.GetReason()
	}
	res := &gemelv1.ShutdownResponse{Running: a.running()}
	if err := a.b.Life.Shutdown(ctx, why); err != nil {
		return nil, err
	}
	return res, nil
}
