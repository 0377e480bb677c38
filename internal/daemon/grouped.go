package daemon

import (
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// What the engine orders about groups, carried out.

func (h *hands) failover(tell func(ha.Input)) func(ha.Failover) { return alone(tell) }

func (h *hands) account(a ha.Holds) {
	if h.member != nil && h.member.loop != nil {
		h.member.loop.Account(a)
	}
}

func (h *hands) lapsed() {
	if h.member != nil && h.member.loop != nil {
		h.member.loop.Lapsed()
	}
}

func (h *hands) want(m *manifest.Manifest) { h.member.want(m) }

// rights hands the shadow what this node may run.
func (h *hands) rights(all []ha.Right) {
}

func (h *hands) startPart(a ha.StartPart) {
	h.engine.Tell(ha.PartDone{Group: a.Group, Part: a.Part, On: true, OK: true})
}

func (h *hands) stopPart(a ha.StopPart) {
	h.engine.Tell(ha.PartDone{Group: a.Group, Part: a.Part, OK: true})
}
