package engine

import (
	"slices"

	"gemel/internal/ha"
)

// alarms are the events that stand, oldest first.
type alarms struct{ standing []ha.Event }

func newAlarms(past []ha.Event) alarms { return alarms{slices.Clone(past)} }

// take lets an event raise, change or clear an alarm. An assertion of an alarm
// that stands already takes the place of the old one.
func (a *alarms) take(e ha.Event) {
	if e.Change == ha.Info {
		return
	}
	a.standing = slices.DeleteFunc(a.standing, func(old ha.Event) bool { return old.Key() == e.Key() })
	if e.Change == ha.Assert {
		a.standing = append(a.standing, e)
	}
}
