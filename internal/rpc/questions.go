package rpc

import (
	"context"
	"os"
	"runtime"

	"connectrpc.com/connect"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

const (
	logLines    = 100 // lines of output, if not asked otherwise
	maxLogLines = 1_000_000
	logPiece    = 64 << 10 // bytes of one message of output
	// maxFollowers bounds those that follow output: each holds one of the 128
	// inotify instances that all daemons of a user share.
	maxFollowers = 32
)

// Logs sends the output of a process.
func (a *api) Logs(ctx context.Context, req *gemelv1.LogsRequest, stream *connect.ServerStream[gemelv1.LogsResponse]) error {
	lines := int(req.GetLines())
	switch {
	case lines > maxLogLines:
		return fault(ha.ErrInvalid, "lines", "", "lines is %d; at most %d", req.GetLines(), maxLogLines)
	case lines == 0 && req.GetFromNow():
		lines = -1
	case lines == 0:
		lines = logLines
	}
	p := ha.OfProcess(ha.Process(req.GetProcess()))
	if err := a.known(p); err != nil {
		return err
	}
	if a.b.Output == nil {
		return absent("output")
	}
	if req.GetFollow() {
		defer a.following.Add(-1)
		if a.following.Add(1) > maxFollowers {
			return fault(ha.ErrBound, "followers", "let some of them end first", "%d callers follow the output of programs, which is the bound", maxFollowers)
		}
	}
	from := From{Lines: lines, Follow: req.GetFollow()}
	if from.After = req.GetAfter(); from.After != "" && (!from.Follow || len(from.After) > maxName) {
		return fault(ha.ErrInvalid, "after", "give what a LogsResponse told, with follow", "after is %.60q", from.After)
	}
	return a.b.Output(ctx, ha.Process(p.Name), from, func(b []byte, place string) error {
		for len(b) > 0 {
			n := min(len(b), logPiece)
			res := &gemelv1.LogsResponse{Data: b[:n]}
			if n == len(b) {
				res.Place = place
			}
			if err := stream.Send(res); err != nil {
				return err
			}
			b = b[n:]
		}
		return ctx.Err()
	})
}

// Why answers with the chain that led to something.
func (a *api) Why(ctx context.Context, req *gemelv1.WhyRequest) (*gemelv1.WhyResponse, error) {
	switch q := req.GetQuestion().(type) {
	case *gemelv1.WhyRequest_Subject:
		s := subject(q.Subject)
		if s.Kind == "" || len(s.Name) > maxName {
			return nil, fault(ha.ErrInvalid, "subject", "", "the subject has no kind, or its name is too long")
		}
	case *gemelv1.WhyRequest_Event:
		if q.Event == 0 {
			return nil, fault(ha.ErrInvalid, "event", "", "there is no event 0")
		}
	case *gemelv1.WhyRequest_Last:
		if !q.Last {
			return nil, fault(ha.ErrInvalid, "last", "", "last is either true or not there")
		}
	default:
		return nil, fault(ha.ErrInvalid, "question", "", "nothing was asked; set subject, event or last")
	}
	if a.b.Asks == nil {
		return nil, absent("record of reasons")
	}
	return a.b.Asks.Why(ctx, req)
}

// Plan answers where groups belong.
func (a *api) Plan(ctx context.Context, req *gemelv1.PlanRequest) (*gemelv1.PlanResponse, error) {
	for _, s := range req.GetIf() {
		if len(s.GetNode()) > maxName || len(s.GetGroup()) > maxName {
			return nil, fault(ha.ErrInvalid, "if", "", "a name has more than %d bytes", maxName)
		}
	}
	if a.b.Plan == nil {
		return nil, fault(ha.ErrRefused, "no-cluster", "gemel init makes one", "where groups belong is decided in a cluster, and this machine belongs to none")
	}
	return a.b.Plan(ctx, req)
}

// Replay runs the journal through the core again.
func (a *api) Replay(ctx context.Context, req *gemelv1.ReplayRequest) (*gemelv1.ReplayResponse, error) {
	if t := req.GetSince(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, fault(ha.ErrInvalid, "since", "", "since is no time: %v", err)
		}
	}
	if a.b.Asks == nil {
		return nil, absent("journal to replay")
	}
	return a.b.Asks.Replay(ctx, req)
}

// Evidence answers with what was kept.
func (a *api) Evidence(ctx context.Context, req *gemelv1.EvidenceRequest) (*gemelv1.EvidenceResponse, error) {
	if ref := req.GetRef(); ref == "" || len(ref) > maxName {
		return nil, fault(ha.ErrInvalid, "ref", "the event names its evidence", "ref is empty or longer than %d bytes", maxName)
	}
	if a.b.Asks == nil {
		return nil, absent("evidence")
	}
	b, err := a.b.Asks.Evidence(ctx, req.GetRef())
	if err != nil {
		return nil, err
	}
	return &gemelv1.EvidenceResponse{Data: b}, nil
}

// WhoAmI answers with what the kernel said of the caller.
func (a *api) WhoAmI(ctx context.Context, _ *gemelv1.WhoAmIRequest) (*gemelv1.WhoAmIResponse, error) {
	c := callerOf(ctx)
	return &gemelv1.WhoAmIResponse{Uid: c.peer.UID, Gid: c.peer.GID, Pid: c.peer.PID, User: clean(a.policy.Name(c.peer.UID)),
		Access: gemelv1.Access(c.role), Reason: clean(c.why)}, nil
}

// Version answers with what runs.
func (a *api) Version(context.Context, *gemelv1.VersionRequest) (*gemelv1.VersionResponse, error) {
	return &gemelv1.VersionResponse{Version: a.b.Version, ApiLevel: APILevel, GoVersion: runtime.Version(), Revision: a.b.Revision, Form: a.b.Form,
		Monitor: int32(os.Getpid())}, nil
}
