package rpc

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// The words of ha and status in those of the API. Numbers that the contract
// shares with the CMM are the same on both sides; the others are moved by one,
// because zero means "not set" on the wire.

// verbs are the verbs of the contract. It is only read.
var verbs = map[gemelv1.Verb]ha.Verb{
	gemelv1.Verb_VERB_START:          ha.VerbStart,
	gemelv1.Verb_VERB_STOP:           ha.VerbStop,
	gemelv1.Verb_VERB_RESTART:        ha.VerbRestart,
	gemelv1.Verb_VERB_LOCK:           ha.VerbLock,
	gemelv1.Verb_VERB_UNLOCK:         ha.VerbUnlock,
	gemelv1.Verb_VERB_CLEAR:          ha.VerbClear,
	gemelv1.Verb_VERB_MOVE:           ha.VerbMove,
	gemelv1.Verb_VERB_DRAIN:          ha.VerbDrain,
	gemelv1.Verb_VERB_RESUME:         ha.VerbResume,
	gemelv1.Verb_VERB_MAINTAIN:       ha.VerbMaintain,
	gemelv1.Verb_VERB_DECIDE:         ha.VerbDecide,
	gemelv1.Verb_VERB_CONFIRM_OFF:    ha.VerbConfirmOff,
	gemelv1.Verb_VERB_SET_RECOVERY:   ha.VerbRecovery,
	gemelv1.Verb_VERB_SET_ESCALATION: ha.VerbEscalation,
}

// kinds are the kinds of subject. It is only read.
var kinds = map[gemelv1.Kind]ha.Kind{
	gemelv1.Kind_KIND_NODE:    ha.KindNode,
	gemelv1.Kind_KIND_PROCESS: ha.KindProcess,
	gemelv1.Kind_KIND_CHECK:   ha.KindCheck,
	gemelv1.Kind_KIND_GROUP:   ha.KindGroup,
	gemelv1.Kind_KIND_SHADOW:  ha.KindShadow,
	gemelv1.Kind_KIND_MONITOR: ha.KindMonitor,
}

func subject(s *gemelv1.Subject) ha.Subject {
	return ha.Subject{Kind: kinds[s.GetKind()], Name: s.GetName()}
}

func subjectOf(s ha.Subject) *gemelv1.Subject {
	out := &gemelv1.Subject{Name: s.Name}
	for wire, kind := range kinds {
		if kind == s.Kind {
			out.Kind = wire
		}
	}
	return out
}

func reasonOf(r ha.Reason) *gemelv1.Reason {
	if r.Rule == "" && r.Text == "" && len(r.Facts) == 0 {
		return nil
	}
	out := &gemelv1.Reason{Rule: r.Rule, Text: clean(r.Text)}
	for _, f := range r.Facts {
		out.Facts = append(out.Facts, &gemelv1.Fact{Name: clean(f.Name), Value: clean(f.Value)})
	}
	return out
}

func eventOf(e ha.Event) *gemelv1.Event {
	entry, _ := e.Code.Entry()
	return &gemelv1.Event{
		Id: e.ID, At: wallOf(e.Wall), AtInstant: int64(e.At), Code: uint32(e.Code), Word: entry.Word,
		Subject: subjectOf(e.Subject), Uid: uint32(e.UID), Change: gemelv1.Change(e.Change + 1),
		Severity: gemelv1.Severity(e.Severity + 1), Text: e.Text, Detail: clean(e.Detail), Why: reasonOf(e.Why),
		Fault: gemelv1.Fault(e.Fault), Start: uint64(e.Start), Evidence: e.Evidence, Role: gemelv1.Role(e.Role),
		Classic: entry.Classic,
	}
}

func exitOf(s *ha.ExitStatus) *gemelv1.ExitStatus {
	if s == nil {
		return nil
	}
	return &gemelv1.ExitStatus{
		Code: int32(s.Code), Signal: int32(s.Signal), Core: s.Core, Oom: s.OOM, Unknown: s.Unknown,
		AfterInstant: int64(s.After), BeforeInstant: int64(s.Before), Cpu: durationOf(s.CPU), MaxRss: s.MaxRSS, Text: s.String(),
	}
}

// scene turns instants of one snapshot into wall time.
type scene struct {
	at   ha.Instant
	wall time.Time
}

// when is the wall time of an instant, nil for zero, which means never.
func (s scene) when(t ha.Instant) *timestamppb.Timestamp {
	if t == 0 || s.wall.IsZero() {
		return nil
	}
	return timestamppb.New(s.wall.Add(t.Sub(s.at)))
}

func snapshotOf(s *status.Snapshot) *gemelv1.Snapshot {
	at := scene{s.At, s.Wall}
	out := &gemelv1.Snapshot{
		Revision: s.Revision, At: wallOf(s.Wall), AtInstant: int64(s.At), Node: nodeOf(at, s.Node),
		Processes: make([]*gemelv1.ProcessStatus, len(s.Processes)),
		Checks:    make([]*gemelv1.CheckStatus, len(s.Checks)),
		Alarms:    make([]*gemelv1.Event, len(s.Alarms)),
	}
	for i := range s.Processes {
		out.Processes[i] = processOf(at, &s.Processes[i])
	}
	for i := range s.Checks {
		out.Checks[i] = checkOf(at, &s.Checks[i])
	}
	for _, g := range s.Groups {
		out.Groups = append(out.Groups, groupOf(g))
	}
	out.Cluster = clusterOf(at, s.Cluster)
	for i := range s.Alarms {
		out.Alarms[i] = eventOf(s.Alarms[i])
	}
	return out
}

func nodeOf(at scene, n status.NodeStatus) *gemelv1.NodeStatus {
	out := &gemelv1.NodeStatus{
		Name: n.Name, Version: n.Version, Role: gemelv1.Role(n.Role), Admin: gemelv1.Admin(n.Admin), Op: gemelv1.Op(n.Op),
		Monitor: int32(n.Monitor), Shadow: int32(n.Shadow), Since: at.when(n.Since), SinceInstant: int64(n.Since),
		Manifest: clean(n.Manifest), Digest: n.Digest, Differs: n.Differs, Cgroup: clean(n.Cgroup),
		BudgetMax: int32(n.BudgetMax), Stopping: n.Stopping, Lock: lockOf(n.Lock),
	}
	for _, note := range n.Notes {
		out.Notes = append(out.Notes, clean(note))
	}
	for _, t := range n.Budget {
		// Zero is no "never" here: it is the boot, as far as the age is known.
		out.Budget = append(out.Budget, timestamppb.New(at.wall.Add(t.Sub(at.at))))
	}
	return out
}

func processOf(at scene, p *status.ProcessStatus) *gemelv1.ProcessStatus {
	return &gemelv1.ProcessStatus{
		Name: string(p.Name), Uid: uint32(p.UID), Line: clean(p.Line), State: p.State, Reason: clean(p.Reason),
		Admin: gemelv1.Admin(p.Admin), Op: gemelv1.Op(p.Op), Severity: gemelv1.Severity(p.Severity + 1),
		Recovery: gemelv1.Recovery(p.Recovery), Escalation: gemelv1.Escalation(p.Escalation), Overlay: p.Overlay,
		Start: uint64(p.Start), Pid: int32(p.PID), Since: at.when(p.Since), SinceInstant: int64(p.Since),
		Started: at.when(p.Started), StartedInstant: int64(p.Started), Starts: p.Starts, Window: int32(p.Window), Limit: int32(p.Limit),
		Last: exitOf(p.Last), Status: clean(p.Status), Threads: int32(p.Threads), Cgroup: clean(p.Cgroup), Group: p.Group, Unready: p.Unready, Lock: lockOf(p.Lock),
		Usage: &gemelv1.Usage{Cpu: durationOf(p.Usage.CPU), Percent: p.Usage.Percent, Memory: p.Usage.Memory, Tasks: int32(p.Usage.Tasks)},
	}
}

func checkOf(at scene, c *status.CheckStatus) *gemelv1.CheckStatus {
	out := &gemelv1.CheckStatus{
		Name: string(c.Name), Uid: uint32(c.UID), Line: clean(c.Line), Admin: gemelv1.Admin(c.Admin), Op: gemelv1.Op(c.Op),
		State: c.State, Failures: int32(c.Failures), Limit: int32(c.Limit), Last: at.when(c.Last), LastInstant: int64(c.Last),
		Detail: clean(c.Detail), Covers: textsOf(c.Covers), Lock: lockOf(c.Lock),
	}
	return out
}

func lockOf(l status.Lock) *gemelv1.Lock {
	if l == (status.Lock{}) {
		return nil
	}
	return &gemelv1.Lock{Since: wallOf(l.Since), By: clean(l.By)}
}

func textsOf[T ~string](names []T) []string {
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	return out
}

func wallOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func durationOf(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
