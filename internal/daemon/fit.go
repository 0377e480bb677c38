package daemon

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"gemel/internal/contract"
	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	// fitAgain is when a part is asked again that said it could not run here: what it
	// lacked may have been put there. fitStill when one is that said it could.
	fitAgain = 15 * time.Second
	fitStill = 10 * time.Minute
)

// fit is what a part said when it was asked whether it could run here.
type fit struct {
	ok  bool
	why string // why not
	at  time.Time
}

// validate asks the parts of the groups that may be here whether they could run, one
// after the other, and again and again, until ctx ends: what is in the way is told, and
// counts for where a group goes, before the day on which it matters.
func (x *made) validate(ctx context.Context) error {
	for {
		for _, name := range askable(x, time.Now()) {
			if err := question(x, ctx, name); err != nil {
				return err
			}
		}
		next := time.NewTimer(fitAgain)
		select {
		case <-ctx.Done():
			next.Stop()
			return ctx.Err()
		case <-x.ask:
		case <-next.C:
		}
		next.Stop()
	}
}

// askable are the parts that are to be asked now. One that is held here is not: that it runs
// saysOf more, and some agents take what they do themselves for something in their way.
func askable(x *made, now time.Time) (names []ha.Process) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(x.cfg)) {
		f, asked := x.fits[name]
		wait := fitAgain
		if f.ok {
			wait = fitStill
		}
		h := x.held[name]
		if x.mine[x.cfg[name].group] && (h == nil || !h.alive) && (!asked || now.Sub(f.at) >= wait) {
			names = append(names, name)
		}
	}
	return names
}

// question asks one part.
func question(x *made, ctx context.Context, name ha.Process) error {
	x.mu.Lock()
	cfg, ok := x.cfg[name]
	x.mu.Unlock()
	if !ok {
		return nil
	}
	out := contract.Outcome{Kind: contract.Hard, Code: -1}
	o, err := x.order(cfg, ha.Fence{}, 0)
	var p contract.Part
	if err == nil {
		p, err = o.Make(RunPart(o.As, nil))
	}
	if err != nil {
		out.Reason = err.Error()
	} else {
		out = p.Validate(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	answered(x, name, cfg, out)
	return nil
}

// answered takes what a part said. It is told when it says something else than before.
func answered(x *made, name ha.Process, cfg order, out contract.Outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if now, ok := x.cfg[name]; !ok || !reflect.DeepEqual(now, cfg) {
		return
	}
	if h := x.held[name]; h != nil && h.alive {
		return // it was started meanwhile
	}
	f := fit{ok: out.Kind == contract.Done, at: time.Now()}
	was := x.fits[name]
	switch out.Kind {
	case contract.Done:
	case contract.Unknown: // nothing follows from it
		f.why = was.why
	default:
		f.why = out.Reason
	}
	_, asked := x.fits[name]
	x.fits[name] = f
	if !asked || f.why != was.why {
		x.m.facts.stir()
	}
	if f.why == was.why {
		return
	}
	if f.why != "" {
		x.m.h.engine.Note(ha.PartUnfit, ha.OfGroup(cfg.group), fmt.Sprintf("%s could not run on %s: %s", cfg.part, x.m.o.Identity.Name, f.why))
	}
}

// saysOf is what this node says of its groups: what their parts said, or for one that was
// not asked yet in this life what the node said before.
func saysOf(x *made, before map[ha.Group]string) map[ha.Group]string {
	x.mu.Lock()
	defer x.mu.Unlock()
	all, unasked := map[ha.Group]string{}, map[ha.Group]bool{}
	for _, name := range slices.Sorted(maps.Keys(x.cfg)) {
		g := x.cfg[name].group
		f, asked := x.fits[name]
		switch {
		case !x.mine[g]:
		case !asked:
			unasked[g] = true
		case f.why == "" || all[g] == "":
			all[g] += ""
			if f.why != "" {
				all[g] = fmt.Sprintf("%s: %s", x.cfg[name].part, f.why)
			}
		default:
			all[g] += fmt.Sprintf("; %s: %s", x.cfg[name].part, f.why)
		}
	}
	for g := range unasked {
		if delete(all, g); before[g] != "" {
			all[g] = before[g]
		} else if _, said := before[g]; said {
			all[g] = ""
		}
	}
	return all
}

// fitOf is what a node said of the parts of a group. Where nobody ever had the group, all of
// its nodes are heard first, also of what exclusivity they offer: else it would go to whoever
// answers soonest, and stay there. m.mu is held.
func fitOf(m *member, g manifest.Group, n ha.Node) (why string, unasked bool) {
	made := len(g.Scripts)+len(g.OCF) > 0
	if !made && g.RequireLevel == 0 {
		return "", false
	}
	asked := func(n ha.Node) bool {
		f, ok := m.wished.facts[n]
		if ok && (f.Fits == nil || !made) {
			return true
		}
		_, said := f.Fits[g.Name]
		return ok && said
	}
	if k, ok := m.record(g.Name); ok && k.Node == "" {
		for _, p := range m.o.Identity.Peers {
			listed := len(g.Nodes) == 0 || slices.Contains(g.Nodes, p.Name)
			member := slices.ContainsFunc(m.seen().Nodes, func(k ha.KeyedNode) bool { return k.Node == p.Name && k.State == ha.NodeMember })
			if listed && member && !p.Witness && (!asked(p.Name) || g.RequireLevel > 1 && !m.parts.fences.judged(p.Name, m.wished.fences[p.Name])) {
				return "", true
			}
		}
	}
	return m.wished.facts[n].Fits[g.Name], !asked(n)
}
