package hold

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"gemel/internal/contract"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Variable is that of the environment which holds the Order, as JSON. It is there and
// not an argument because parameters of an agent may be secret.
const Variable = "GEMEL_PART"

// Proved is the exit code that says: stop was run, and proved that nothing of the part
// is here. Nothing else exits with it.
const Proved = 42

// failed is the exit code of everything else.
const failed = 1

// An Order is what a holder is for. Exactly one of Script and Agent is set.
//
//budget:fields it is a message
type Order struct {
	Group  ha.Group
	Part   ha.Part
	Node   ha.Node
	Fence  ha.Fence
	Start  ha.StartID
	Script *manifest.Script `json:",omitempty"`
	Agent  *manifest.Agent  `json:",omitempty"`
	Root   string           `json:",omitempty"` // of resource agents; empty: /usr/lib/ocf
	// As is who runs the commands.
	As As
	// Only stops: nothing is started, and nothing held.
	OnlyStop bool `json:",omitempty"`
	// Validate asks first whether the start could work.
	Validate bool   `json:",omitempty"`
	File     string // that tells the State
	Env      []string
}

// As is who runs commands; its zero value is who the holder is.
type As struct {
	Set      bool
	UID, GID int
	Groups   []int
}

// A Phase is how far a holder is.
type Phase string

// The phases.
const (
	Starting Phase = "starting"
	Running  Phase = "running"
	Lost     Phase = "lost"     // it ran, and is gone or not well; it waits for its end
	Failed   Phase = "failed"   // the start came to nothing
	Stopping Phase = "stopping" // stop runs
	Stopped  Phase = "stopped"  // proved
	Stuck    Phase = "stuck"    // stop was run and proved nothing
)

// A State is what a holder says of its part.
type State struct {
	Start  ha.StartID `json:"start"` // whose word it is
	Fence  ha.Fence   `json:"fence"`
	Phase  Phase      `json:"phase"`
	Reason string     `json:"reason,omitempty"`
	// Gone, of a start that failed: nothing was begun, or a stop after it was proved.
	Gone  bool `json:"gone,omitempty"`
	Hard  bool `json:"hard,omitempty"`  // as ha.PartDone's
	Fatal bool `json:"fatal,omitempty"` // the same
}

// Read reads what a holder said last; false if it said nothing.
func Read(file string) (State, bool) {
	var s State
	b, err := os.ReadFile(file)
	return s, err == nil && json.Unmarshal(b, &s) == nil
}

// holder is one life of a part.
type holder struct {
	o    Order
	part contract.Part
}

// Make makes the part of an order, for its Validate as well.
func (o Order) Make(run contract.Runner) (contract.Part, error) {
	switch {
	case o.Script != nil:
		s := o.Script
		env := append([]string(nil), o.Env...)
		for k, v := range s.Environment {
			env = append(env, k+"="+v)
		}
		commands := map[string][]string{"start": s.Start, "stop": s.Stop, "validate": s.Validate}
		return contract.Script{Commands: commands, Group: string(o.Group), Node: string(o.Node), Env: env, Timeouts: bounds(s.Timeouts), Run: run}, nil
	case o.Agent != nil:
		a := o.Agent
		return contract.OCF{Class: "ocf:" + a.Provider + ":" + a.Type, Instance: a.Name, Parameters: a.Parameters, Root: o.Root,
			Env: o.Env, Timeouts: bounds(a.Timeouts), Run: run}, nil
	}
	return nil, errors.New("the order names neither a script nor a resource agent")
}

func bounds(t manifest.Timeouts) map[string]time.Duration {
	return map[string]time.Duration{"start": t.Start, "stop": t.Stop, "monitor": t.Monitor, "validate": t.Validate, "validate-all": t.Validate}
}

// Run holds a part until ctx ends, and returns the exit code.
func Run(ctx context.Context, o Order, run contract.Runner) (int, error) {
	p, err := o.Make(run)
	if err != nil {
		return failed, err
	}
	h := &holder{o, p}
	if o.OnlyStop {
		return h.stop(ctx)
	}
	h.tell(State{Phase: Starting})
	if o.Validate {
		if v := p.Validate(ctx); v.Kind != contract.Done {
			return failed, h.tell(State{Phase: Failed, Reason: said(v), Gone: true, Hard: v.Kind == contract.Hard, Fatal: v.Kind == contract.Fatal})
		}
	}
	if s := p.Start(ctx); s.Kind != contract.Done {
		// Nobody knows how far it went.
		stop := p.Stop(context.WithoutCancel(ctx))
		st := State{Phase: Failed, Reason: said(s), Gone: stop.Kind == contract.Done, Hard: s.Kind == contract.Hard, Fatal: s.Kind == contract.Fatal}
		if !st.Gone {
			st.Reason += "; and its stop is not proved: " + said(stop)
		}
		return failed, h.tell(st)
	}
	h.tell(State{Phase: Running})
	h.watch(ctx)
	<-ctx.Done()
	return h.stop(ctx)
}

// watch looks at an agent at its intervals, until it is not well or ctx ends. A script
// has nothing to be asked with.
func (h *holder) watch(ctx context.Context) {
	if h.o.Agent == nil {
		return
	}
	again := time.NewTimer(h.o.Agent.Every)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		c := h.part.Check(ctx)
		switch c.Kind {
		case contract.Done:
		case contract.Unknown: // ctx ended
		case contract.Stopped:
			h.tell(State{Phase: Lost, Reason: "existence: " + said(c)})
			return
		default:
			h.tell(State{Phase: Lost, Reason: "integrity: " + said(c)})
			return
		}
		again.Reset(h.o.Agent.Every)
	}
}

// stop takes it away. The order to end, which is what led here, does not end it.
func (h *holder) stop(ctx context.Context) (int, error) {
	h.tell(State{Phase: Stopping})
	o := h.part.Stop(context.WithoutCancel(ctx))
	if o.Kind != contract.Done {
		return failed, h.tell(State{Phase: Stuck, Reason: said(o)})
	}
	// The exit code is the proof: that it cannot be told in words changes nothing.
	_ = h.tell(State{Phase: Stopped})
	return Proved, nil
}

// said is an outcome in words.
func said(o contract.Outcome) string {
	if o.Output == "" {
		return o.Reason
	}
	return o.Reason + ", and said: " + o.Output
}

// tell replaces what was said before. That it cannot be said is no reason to do
// anything else than is to be done.
func (h *holder) tell(s State) error {
	s.Start, s.Fence = h.o.Start, h.o.Fence
	b, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(h.o.File), 0o700)
	}
	next := fmt.Sprintf("%s.%d", h.o.File, h.o.Start)
	if err == nil {
		err = os.WriteFile(next, b, 0o600)
	}
	if err == nil {
		err = os.Rename(next, h.o.File)
	}
	if err != nil {
		_ = os.Remove(next)
		return fmt.Errorf("telling how %s of %s is: %w", h.o.Part, h.o.Group, err)
	}
	return nil
}
