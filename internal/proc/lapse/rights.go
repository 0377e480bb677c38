package lapse

import (
	"errors"
	"fmt"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/proc"
)

// Given is what came of a set of rights.
type Given struct {
	// Refused are told once for each reason.
	Refused []Refusal
	// Changed are the groups by whose right other starts than before can be made: none,
	// or with another fence.
	Changed []ha.Group
}

// Give takes a whole set of rights: what is not in it has no right to start any more.
// The deadlines hold when it returns.
func (k *Keeper) Give(rights []proc.Right) (out Given) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := clock.Now()
	k.due(now) // a kill whose instant has come has begun
	told := map[ha.Group]string{}
	before, named := map[ha.Group]ha.Fence{}, map[ha.Group]bool{}
	for name, g := range k.groups {
		if g.mayStart(now) {
			before[name] = g.right.Fence
		}
		named[name], g.named = g.named, false
	}
	for _, r := range rights {
		if err := k.give(r, now); err != nil {
			// What it had ends at its deadline, and starts nothing meanwhile.
			if k.told[r.Group] != err.Error() {
				out.Refused = append(out.Refused, Refusal{r, err})
			}
			told[r.Group] = err.Error()
		}
	}
	k.told = told
	arm(k)
	for name, g := range k.groups {
		if named[name] && !g.named {
			k.write(g)
		}
		fence, had := before[name]
		if has := g.mayStart(now); has != had || has && fence != g.right.Fence {
			out.Changed = append(out.Changed, name)
		}
	}
	return out
}

func (g *group) mayStart(now ha.Instant) bool {
	return g.named && g.state == held && g.kill == nil && !g.right.Leaving && now < g.right.Kill
}

func (k *Keeper) give(r proc.Right, now ha.Instant) error {
	switch {
	case r.Group == "":
		return errors.New("it names no group")
	case r.Life <= 0 || r.Until > now.Add(r.Life):
		return fmt.Errorf("its end is %s from now, later than its life of %s allows", ha.Span(r.Until.Sub(now)), ha.Span(r.Life))
	case r.Kill > r.Until:
		return errors.New("its kill is later than its end")
	}
	g := k.groups[r.Group]
	if g != nil && g.kill != nil && k.tree != nil {
		k.strike(g) // that all is gone may not have been looked at yet
	}
	if g != nil && g.kill != nil {
		return errors.New("its kill has begun, and not all of it was seen gone")
	}
	if err := k.former(r); err != nil {
		return err
	}
	if g != nil && r.Incarnation == g.right.Incarnation && r.Fence.Less(g.right.Fence) {
		return fmt.Errorf("its fence %s is lower than %s, which was given before", r.Fence, g.right.Fence)
	}
	if now >= r.Kill && (g == nil || g.state != held) {
		return errors.New("its deadline has passed")
	}
	if g == nil {
		var err error
		if g, err = k.room(); err != nil {
			return err
		}
	}
	if err := k.page.putRow(g.slot, row{k.boot, held, true, r}); err != nil {
		return err
	}
	g.right, g.state, g.named = r, held, true
	k.set(g.slot, g)
	k.groups[r.Group] = g
	return nil
}

// A Pass is what a start of a group goes by.
type Pass struct {
	Number int // for Slot.Belong
	Fence  ha.Fence
}

// Pass tells by what a start of a group may be made ready now. The error is ErrNone.
func (k *Keeper) Pass(name ha.Group) (Pass, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[name]
	if g == nil || !g.mayStart(clock.Now()) {
		return Pass{}, none(name)
	}
	return Pass{g.slot, g.right.Fence}, nil
}

func none(name ha.Group) error { return fmt.Errorf("%w for group %s", ErrNone, name) }

// Begin allows a start that was made ready with a Pass. From here until the function
// that it returns is called the group is not seen gone, and its kill goes on. Stop: it
// is a command that stops, which needs no right but time.
func (k *Keeper) Begin(name ha.Group, p Pass, stop bool) (end func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := clock.Now()
	g := k.groups[name]
	switch {
	case g == nil || g.kill != nil || g.state != held || now >= g.right.Kill:
		return nil, none(name)
	case !stop && (!g.mayStart(now) || p != Pass{g.slot, g.right.Fence}):
		return nil, none(name)
	}
	g.starts++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if g.starts--; g.kill != nil {
			g.kill.again = 1
			k.stir()
		}
	}, nil
}

// Take makes a start that runs by no right one of a group: whoever kills that one kills it
// from now on. The right has to be one by which a start could be made now; else the
// error is ErrNone.
func Take(k *Keeper, name ha.Group, f ha.Fence, start ha.StartID) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.groups[name]
	if g == nil || !g.mayStart(clock.Now()) || g.right.Fence != f {
		return none(name)
	}
	if !k.table.Belong(start, g.slot) {
		return fmt.Errorf("start %s is not in the table of starts", start)
	}
	return nil
}

// Owner is the group that a start belongs to, by its number in the table; "" if that
// is not known.
func (k *Keeper) Owner(number int) ha.Group {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g := k.at(number); g != nil {
		return g.right.Group
	}
	return ""
}

// Fence is the fence that a group was given last.
func (k *Keeper) Fence(name ha.Group) ha.Fence {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g := k.groups[name]; g != nil {
		return g.right.Fence
	}
	return ha.Fence{}
}
