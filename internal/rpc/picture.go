package rpc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// api is the service. Its methods are in the files picture, events, orders and
// questions.
type api struct {
	*Server
	rollAPI
}

// picture is the present picture, or why there is none.
func (s *Server) picture() (*status.Snapshot, <-chan struct{}, error) {
	last, changed := s.b.Board.Last()
	if last == nil {
		return nil, changed, fault(ha.ErrUnavailable, "starting", "try again in a moment", "gemel is starting and has no picture yet")
	}
	return last, changed, nil
}

// Status answers with the present picture.
func (a *api) Status(ctx context.Context, _ *gemelv1.StatusRequest) (*gemelv1.StatusResponse, error) {
	a.look(ctx)
	last, _, err := a.picture()
	if err != nil {
		return nil, err
	}
	return &gemelv1.StatusResponse{Snapshot: a.shot(last)}, nil
}

// shot is a picture with what only the server knows.
func (s *Server) shot(last *status.Snapshot) *gemelv1.Snapshot {
	out := snapshotOf(last)
	for _, name := range s.policy.Unknown() {
		out.Node.UnknownAccess = append(out.Node.UnknownAccess, clean(name))
	}
	return out
}

// look lets the daemon measure what it measures only when somebody looks.
func (s *Server) look(ctx context.Context) {
	if s.b.Look != nil {
		s.b.Look(ctx)
	}
}

// Alarms answers with what stands.
func (a *api) Alarms(context.Context, *gemelv1.AlarmsRequest) (*gemelv1.AlarmsResponse, error) {
	last, _, err := a.picture()
	if err != nil {
		return nil, err
	}
	out := &gemelv1.AlarmsResponse{}
	for _, e := range last.Alarms {
		entry, _ := e.Code.Entry()
		out.Alarms = append(out.Alarms, &gemelv1.Alarm{Event: eventOf(e), Means: entry.Means, Effect: entry.Effect, Do: entry.Do})
	}
	return out, nil
}

const (
	pictureTime    = 100 * time.Millisecond // between two pictures of a stream, if not asked otherwise
	maxPictureTime = time.Hour
)

// WatchStatus sends the present picture and each newer one.
func (a *api) WatchStatus(ctx context.Context, req *gemelv1.WatchStatusRequest, stream *connect.ServerStream[gemelv1.WatchStatusResponse]) error {
	gap := pictureTime
	if ms := req.GetIntervalMs(); ms != 0 {
		if gap = time.Duration(ms) * time.Millisecond; gap > maxPictureTime {
			return fault(ha.ErrInvalid, "interval", "", "interval_ms is %d; at most %d", ms, maxPictureTime.Milliseconds())
		}
	}
	var before *gemelv1.Snapshot
	var told *status.Snapshot
	again := time.NewTicker(max(gap, time.Second))
	defer again.Stop()
	a.look(ctx)
	for {
		last, changed := a.b.Board.Last()
		if last != nil && last != told {
			told = last
			now := a.shot(last)
			res := &gemelv1.WatchStatusResponse{Snapshot: now}
			if req.GetChangesOnly() && before != nil {
				res = changes(before, now)
			}
			if err := stream.Send(res); err != nil {
				return err
			}
			before = now
			pause := time.NewTimer(gap)
			select {
			case <-ctx.Done():
				pause.Stop()
				return ctx.Err()
			case <-pause.C:
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again.C:
			// Not at each change: what one watcher measures is a change for the others.
			a.look(ctx)
		}
	}
}

// changes is what now has that before had not.
func changes(before, now *gemelv1.Snapshot) *gemelv1.WatchStatusResponse {
	part := &gemelv1.Snapshot{Revision: now.Revision, At: now.At, AtInstant: now.AtInstant, Node: now.Node, Alarms: now.Alarms, Groups: now.Groups}
	res := &gemelv1.WatchStatusResponse{Snapshot: part, Partial: true}
	part.Processes, res.GoneProcesses = differ(before.Processes, now.Processes, sameProcess)
	part.Checks, res.GoneChecks = differ(before.Checks, now.Checks, sameCheck)
	return res
}

// sameProcess compares without the wall times: they are worked out from the
// instants anew for each picture and tremble with the clock.
func sameProcess(a, b *gemelv1.ProcessStatus) bool {
	since, started := b.Since, b.Started
	b.Since, b.Started = a.Since, a.Started
	same := proto.Equal(a, b)
	b.Since, b.Started = since, started
	return same
}

func sameCheck(a, b *gemelv1.CheckStatus) bool {
	last := b.Last
	b.Last = a.Last
	same := proto.Equal(a, b)
	b.Last = last
	return same
}

// differ returns those of now that are new or changed, and the names of those
// that are gone.
func differ[T interface{ GetName() string }](before, now []T, same func(a, b T) bool) (changed []T, gone []string) {
	old := make(map[string]T, len(before))
	for _, v := range before {
		old[v.GetName()] = v
	}
	for _, v := range now {
		was, ok := old[v.GetName()]
		if !ok || !same(was, v) {
			changed = append(changed, v)
		}
		delete(old, v.GetName())
	}
	for name := range old {
		gone = append(gone, name)
	}
	slices.Sort(gone)
	return changed, gone
}

// known fails if the picture has no such process or check, and names those whose
// names are near.
func (s *Server) known(what ha.Subject) error {
	last, _, err := s.picture()
	if err != nil {
		return err
	}
	var names []string
	switch what.Kind {
	case ha.KindProcess:
		for i := range last.Processes {
			names = append(names, string(last.Processes[i].Name))
		}
	case ha.KindCheck:
		for i := range last.Checks {
			names = append(names, string(last.Checks[i].Name))
		}
	case ha.KindGroup:
		for i := range last.Groups {
			names = append(names, string(last.Groups[i].Name))
		}
	default:
		return nil
	}
	if slices.Contains(names, what.Name) {
		return nil
	}
	hint := "gemel status lists what there is"
	if near := nearest(what.Name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s? ", near) + hint
	}
	return fault(ha.ErrNotFound, "no-"+string(what.Kind), hint, "there is no %s %.100q", what.Kind, what.Name)
}

// nearest is the name that takes the fewest changes of a letter, if few do.
func nearest(name string, names []string) string {
	if len(name) > 64 || len(names) == 0 {
		return ""
	}
	best := slices.MinFunc(names, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
	if strings.EqualFold(best, name) || distance(name, best) <= max(1, len(name)/3) {
		return best
	}
	return ""
}

// distance is how many letters must be put in, taken out or replaced.
func distance(a, b string) int {
	line := make([]int, len(b)+1)
	for j := range line {
		line[j] = j
	}
	for i := range len(a) {
		diagonal := line[0]
		line[0] = i + 1
		for j := range len(b) {
			up := line[j+1]
			if a[i] == b[j] {
				line[j+1] = diagonal
			} else {
				line[j+1] = 1 + min(diagonal, up, line[j])
			}
			diagonal = up
		}
	}
	return line[len(b)]
}
