package register

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"

	"gemel/internal/ha"
)

// orderBound is how long the search for an order may take.
const orderBound = time.Minute

// judge is one judgement.
type judge struct {
	writes []Write
	lists  []Listed
	views  []InForce

	ids   map[uint64]string // what each number is, by the first who said so
	of    map[string]uint64 // the reverse
	wrote map[string]Write
	first uint64 // the number in force when the history began
	wrong []string
}

func (j *judge) add(format string, args ...any) {
	j.wrong = append(j.wrong, fmt.Sprintf(format, args...))
}

// number finds what each number is, and whether all who spoke of it agree.
func (j *judge) number() {
	j.ids, j.of, j.wrote = map[uint64]string{}, map[string]uint64{}, map[string]Write{}
	slices.SortStableFunc(j.lists, func(a, b Listed) int { return int(min(max(a.End-b.End, -1), 1)) })
	if len(j.lists) > 0 && len(j.lists[0].Versions) > 0 {
		all := j.lists[0].Versions
		j.first = all[len(all)-1].Number
	}
	for _, w := range j.writes {
		if _, twice := j.wrote[w.ID]; twice {
			j.add("write %s was begun twice: the history tells nothing of either", w.ID)
		}
		j.wrote[w.ID] = w
	}
	for _, l := range j.lists {
		for i, v := range l.Versions {
			if i > 0 && v.Number != l.Versions[i-1].Number+1 {
				j.add("the store listed version %d after %d, as read through %s", v.Number, l.Versions[i-1].Number, l.Node)
			}
			j.is(v, fmt.Sprintf("the store, read through %s,", l.Node))
		}
	}
	for _, w := range j.writes {
		if w.Outcome == Acknowledged {
			j.is(w.Version, fmt.Sprintf("%s, which acknowledged it,", w.Node))
		}
	}
	for _, v := range j.views {
		if v.Number != 0 {
			j.is(v.Version, fmt.Sprintf("%s, which has it in force,", v.Node))
		} else {
			j.exists(v.ID, v.Node)
		}
	}
}

// is takes somebody's word of what a number is.
func (j *judge) is(v Version, who string) {
	known, ok := j.ids[v.Number]
	at, placed := j.of[v.ID]
	switch {
	case ok && known != v.ID:
		j.add("version %d is %q, and %s says that it is %q", v.Number, known, who, v.ID)
		return
	case placed && at != v.Number:
		j.add("%q is version %d, and %s says that it is %d", v.ID, at, who, v.Number)
		return
	case ok:
		return
	}
	j.ids[v.Number], j.of[v.ID] = v.ID, v.Number
	if v.Number > j.first {
		j.exists(v.ID, who)
	}
}

// exists objects to what nobody wrote, or was told that it would never be.
func (j *judge) exists(id, who string) {
	w, ok := j.wrote[id]
	switch {
	case !ok && (j.of[id] == 0 || j.of[id] > j.first):
		j.add("%s has %q, which nobody wrote", who, id)
	case ok && w.Outcome == Refused:
		j.add("%s has %q, which %s had refused", who, id, w.Node)
	}
}

// nodes judges what the nodes have in force.
func (j *judge) nodes() {
	at := map[string][]floor{}
	for _, w := range j.writes {
		if w.Outcome == Acknowledged {
			at[w.Node] = append(at[w.Node], floor{w.End, w.Version, "acknowledged"})
		}
	}
	for _, v := range j.views {
		if n := j.numberOf(v); n != 0 {
			at[v.Node] = append(at[v.Node], floor{v.End, Version{n, v.ID}, "had in force"})
		}
	}
	for node, all := range at {
		slices.SortStableFunc(all, func(a, b floor) int { return int(min(max(a.from-b.from, -1), 1)) })
		for i := 1; i < len(all); i++ { // each becomes the highest up to its end
			if all[i].Number < all[i-1].Number {
				all[i] = floor{all[i].from, all[i-1].Version, all[i-1].why}
			}
		}
		at[node] = all
	}
	told := map[string]bool{}
	for _, v := range j.views {
		n := j.numberOf(v)
		if w, ok := j.wrote[v.ID]; ok && v.End < w.Start {
			j.add("%s had %q in force before it was written", v.Node, v.ID)
		}
		if n == 0 || told[v.Node] {
			continue
		}
		all := at[v.Node]
		i, _ := slices.BinarySearchFunc(all, v.Start, func(f floor, t ha.Instant) int { return int(min(max(f.from-t, -1), 1)) })
		if i > 0 && all[i-1].Number > n {
			told[v.Node] = true // what follows says the same
			j.add("%s had version %d (%q) in force, after it %s version %d (%q)", v.Node, n, v.ID, all[i-1].why, all[i-1].Number, all[i-1].ID)
		}
	}
}

// floor is what a node may not fall behind from an instant on.
type floor struct {
	from ha.Instant
	Version
	why string
}

// numberOf is the number of what a node has in force; zero if nobody knows it.
func (j *judge) numberOf(v InForce) uint64 {
	if v.Number != 0 {
		return v.Number
	}
	return j.of[v.ID]
}

// step is one write or one reading of the register, for porcupine.
type step struct {
	number uint64
	write  bool
	text   string
}

// register is the sequential one: a write makes the next number, a reading finds the last.
func register(first uint64) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return first },
		Step: func(state, input, _ any) (bool, any) {
			now, s := state.(uint64), input.(step)
			if s.write {
				return s.number == now+1, s.number
			}
			return s.number == now, now
		},
		DescribeOperation: func(input, _ any) string { return input.(step).text },
	}
}

// order looks for one in which all happened.
//
// A write whose outcome is unknown took effect if somebody saw it, under the number that was seen, at some
// instant from its beginning on. If nobody did it is left out: a write that happens after
// everything else is in nobody's way. What is numbered and was seen by nobody is the
// work of one of them, whichever.
func (j *judge) order() error {
	var ops []porcupine.Operation
	took := func(s step, from, to ha.Instant) {
		ops = append(ops, porcupine.Operation{Input: s, Call: int64(from), Return: int64(to)})
	}
	last, nameless := j.first, ha.Instant(math.MaxInt64)
	for _, w := range j.writes {
		n := j.of[w.ID]
		if w.Outcome == Refused || n != 0 && n <= j.first {
			continue
		}
		if n == 0 {
			nameless = min(nameless, w.Start)
			continue
		}
		end := w.End
		if w.Outcome == Unknown {
			end = math.MaxInt64
		}
		last = max(last, n)
		took(step{n, true, fmt.Sprintf("%s writes %d, %s", w.Node, n, w.ID)}, w.Start, end)
	}
	for _, l := range j.lists {
		if len(l.Versions) == 0 {
			continue
		}
		n := l.Versions[len(l.Versions)-1].Number
		last = max(last, n)
		took(step{n, false, fmt.Sprintf("%s reads %d", l.Node, n)}, l.Start, l.End)
	}
	for n := j.first + 1; n <= last; n++ {
		if j.ids[n] != "" {
			continue
		}
		if nameless == math.MaxInt64 {
			j.add("version %d is nobody's: no write of which the outcome is unknown is left for it", n)
			return nil
		}
		took(step{n, true, fmt.Sprintf("somebody writes %d", n)}, nameless, math.MaxInt64)
	}
	switch porcupine.CheckOperationsTimeout(register(j.first), ops, orderBound) {
	case porcupine.Illegal:
		_, info := porcupine.CheckOperationsVerbose(register(j.first), ops, orderBound)
		j.add("%s", stuck(ops, info))
	case porcupine.Unknown:
		return errors.New("no order of the writes was found, and not that there is none, within " + orderBound.String())
	case porcupine.Ok:
	}
	return nil
}

// stuck tells where the longest order ends: the first call that no order has.
func stuck(ops []porcupine.Operation, info porcupine.LinearizationInfo) string {
	in := map[int]bool{}
	for _, partition := range info.PartialLinearizations() {
		for _, one := range partition {
			if len(one) > len(in) {
				in = map[int]bool{}
				for _, i := range one {
					in[i] = true
				}
			}
		}
	}
	out := -1
	for i, o := range ops {
		if !in[i] && (out < 0 || o.Return < ops[out].Return) {
			out = i
		}
	}
	if out < 0 {
		return "there is no order in which the writes and readings of the store happened"
	}
	o := ops[out]
	text := fmt.Sprintf("there is no order in which the writes and readings of the store happened: %q, from %.6f s to %.6f s, has no place in it",
		o.Input.(step).text, seconds(o.Call), seconds(o.Return))
	for i, p := range ops { // what it stands against
		n, m := p.Input.(step).number, o.Input.(step).number
		if in[i] && p.Return < o.Call && (n > m || n == m && o.Input.(step).write) {
			return text + fmt.Sprintf(", after %q, which was over at %.6f s", p.Input.(step).text, seconds(p.Return))
		}
	}
	return text
}

func seconds(at int64) float64 { return time.Duration(at).Seconds() }
