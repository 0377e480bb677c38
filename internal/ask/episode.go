package ask

import (
	"slices"

	"gemel/internal/ha"
)

// episodes cuts the turns of a subject into episodes: each goes from one stable
// state to the next. Stable is a process for which nothing is under way: no start
// or stop is awaited and no fault is being recovered; it may run, be stopped or
// be given up. For other subjects each turn stands for itself.
func episodes(s ha.Subject, turns []turn) [][]turn {
	var eps [][]turn
	var st course
	open := false
	for i, t := range turns {
		if s.Kind == ha.KindProcess && len(eps) > 0 && (open || follows(t)) {
			eps[len(eps)-1] = append(eps[len(eps)-1], t)
		} else {
			eps = append(eps, turns[i:i+1:i+1])
		}
		st.turn(t)
		open = st.flight || st.recovering
	}
	return eps
}

// follows reports whether a turn only tells how what was before it went on.
func follows(t turn) bool {
	switch t.Input.(type) {
	case ha.Ready, ha.Adopted, ha.Examined, ha.Stopping, ha.Busy:
	default:
		return false
	}
	for _, a := range t.Actions {
		switch a := a.(type) {
		case ha.Start, ha.Stop, ha.Failover, ha.Reboot:
			return false
		case ha.Emit:
			if a.Event.Change == ha.Assert {
				return false
			}
		}
	}
	return true
}

// course is how far a process is between two stable states.
type course struct {
	flight     bool // a start or a stop was ordered and its outcome is awaited
	recovering bool // a fault stands and is being recovered
}

func (c *course) turn(t turn) {
	switch in := t.Input.(type) {
	case ha.Started, ha.StartFailed, ha.Adopted, ha.NotFound:
		c.flight = false
	case ha.Exited:
		c.flight = false
	case ha.Booted:
		*c = course{recovering: c.recovering && !in.NewBoot}
	}
	for _, a := range t.Actions {
		switch a := a.(type) {
		case ha.Start, ha.Seek, ha.Stop:
			c.flight = true
		case ha.Emit:
			switch {
			case givenUp(a.Event.Code) || a.Event.Change == ha.Clear:
				c.recovering = false
			case a.Event.Change == ha.Assert:
				c.recovering = true
			}
		}
	}
}

// episodeOf returns the index of the episode in which an event was told; -1 if
// in none.
func episodeOf(eps [][]turn, id uint64) int {
	for i, ep := range eps {
		for _, t := range ep {
			if tells(t, id) {
				return i
			}
		}
	}
	return -1
}

func tells(t turn, id uint64) bool {
	for _, a := range t.Actions {
		if e, ok := a.(ha.Emit); ok && e.Event.ID == id {
			return true
		}
	}
	return false
}

// split cuts an episode after the turn that told the event.
func split(ep []turn, id uint64) (before, after []turn) {
	for i, t := range ep {
		if tells(t, id) {
			return ep[:i+1], ep[i+1:]
		}
	}
	return ep, nil
}

// evidence names what was kept in an episode.
func evidence(ep []turn) []string {
	var names []string
	for _, t := range ep {
		for _, a := range t.Actions {
			if e, ok := a.(ha.Emit); ok && e.Event.Evidence != "" && !slices.Contains(names, e.Event.Evidence) {
				names = append(names, e.Event.Evidence)
			}
		}
	}
	return names
}
