package daemon

import (
	"fmt"

	"gemel/internal/contract"
	"gemel/internal/ha"
)

// validate asks parts whether they could run here, one after the other: nobody waits for
// the answer, and what is in the way is told before the day on which it matters.
func (x *made) validate(names []ha.Process) {
	ctx := x.m.h.group.ctx
	for _, name := range names {
		x.mu.Lock()
		cfg, ok := x.cfg[name]
		x.mu.Unlock()
		if !ok {
			continue
		}
		o, err := x.order(cfg, ha.Fence{}, 0)
		var p contract.Part
		if err == nil {
			p, err = o.Make(RunPart(o.As, nil))
		}
		out := contract.Outcome{Kind: contract.Hard, Code: -1}
		if err != nil {
			out.Reason = err.Error()
		} else {
			out = p.Validate(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		x.mu.Lock()
		now, ok := x.cfg[name]
		same := ok && now == cfg
		x.valid[name] = same && out.Kind == contract.Done
		x.mu.Unlock()
		if same && out.Kind != contract.Done {
			x.m.h.engine.Note(ha.PartUnfit, ha.OfGroup(cfg.group), fmt.Sprintf("%s could not run on %s: %s", cfg.part, x.m.o.Identity.Name, out.Reason))
		}
	}
}
