package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ask"
	"gemel/internal/evidence"
	"gemel/internal/ha"
	"gemel/internal/status"
)

// asks answers questions about the past from the journal, for the API.
type asks struct {
	journal string
	keeper  string // directory of the evidence
	board   *status.Board
}

func newAsks(o Options, b *status.Board) asks {
	return asks{filepath.Join(o.Places.Data, "journal"), filepath.Join(o.Places.Data, "evidence"), b}
}

// Why tells the chain behind a state or an event.
func (a asks) Why(_ context.Context, q *gemelv1.WhyRequest) (*gemelv1.WhyResponse, error) {
	now, _ := a.board.Last()
	question := ask.Question{Now: now}
	switch x := q.GetQuestion().(type) {
	case *gemelv1.WhyRequest_Event:
		question.Event = x.Event
	case *gemelv1.WhyRequest_Subject:
		switch x.Subject.GetKind() {
		case gemelv1.Kind_KIND_PROCESS:
			question.Process = ha.Process(x.Subject.GetName())
		case gemelv1.Kind_KIND_CHECK:
			question.Check = ha.Check(x.Subject.GetName())
		default:
			question.Node = true
		}
	}
	answer, err := ask.Why(a.journal, question)
	if err != nil {
		return nil, err
	}
	chain, err := json.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("telling why: %w", err)
	}
	return &gemelv1.WhyResponse{Text: answer.Text(), ChainJson: string(chain)}, nil
}

// Replay runs the journal through the core again.
func (a asks) Replay(_ context.Context, q *gemelv1.ReplayRequest) (*gemelv1.ReplayResponse, error) {
	var since time.Time
	if q.GetSince() != nil {
		since = q.GetSince().AsTime()
	}
	r, err := ask.Replay(a.journal, since, int(q.GetLimit()))
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("telling the replay: %w", err)
	}
	return &gemelv1.ReplayResponse{Text: r.Text(), Inputs: uint64(r.Inputs), Actions: uint64(r.Actions), Differences: uint64(r.Differences), ReportJson: string(doc)}, nil
}

// Evidence returns what was kept under a name.
func (a asks) Evidence(_ context.Context, ref string) ([]byte, error) {
	return evidence.Read(a.keeper, ref)
}
