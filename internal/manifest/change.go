package manifest

import (
	"maps"
	"slices"
)

// Replaces reports whether a program that runs as p must be started anew to run
// as q. Everything else that a manifest says of a process takes effect while the
// program runs on.
func (p Process) Replaces(q Process) bool { return len(p.Changes(q)) > 0 }

// Changes names the settings that differ between p and q and that a running
// program only takes by being started anew. It is the one rule for that: what an
// apply shows before and what it does rest on it.
func (p Process) Changes(q Process) []string {
	var what []string
	differ := func(name string, same bool) {
		if !same {
			what = append(what, name)
		}
	}
	differ("command", slices.Equal(p.Command, q.Command))
	differ("shell", p.Shell == q.Shell)
	differ("directory", p.Directory == q.Directory)
	differ("user", p.User == q.User)
	differ("group", p.Group == q.Group)
	differ("groups", slices.Equal(p.Groups, q.Groups))
	differ("environment", maps.Equal(p.Environment, q.Environment))
	differ("env-file", slices.Equal(p.EnvFiles, q.EnvFiles))
	differ("inherit-environment", p.InheritEnv == q.InheritEnv)
	differ("umask", p.Umask == q.Umask)
	differ("nice", p.Nice == q.Nice)
	differ("limits", slices.Equal(p.Limits, q.Limits))
	differ("capabilities", p.Caps.Set == q.Caps.Set && slices.Equal(p.Caps.Keep, q.Caps.Keep))
	differ("no-new-privileges", p.NoNewPrivs == q.NoNewPrivs)
	differ("resources", p.Resources == q.Resources)
	differ("oom-score", p.OOMScore == q.OOMScore)
	// Only READY=1 needs a notify socket, which is given at the start.
	differ("ready", (p.Ready.Kind == ReadyNotify) == (q.Ready.Kind == ReadyNotify))
	differ("watchdog", p.told() == q.told())
	differ("output", p.Output.Mode == q.Output.Mode)
	differ("attach", p.Attach.PIDFile == q.Attach.PIDFile && p.Attach.CommandLine == q.Attach.CommandLine && p.Attach.Unit == q.Attach.Unit)
	differ("task", p.Task == q.Task)
	return what
}

// beats is what a program is told of its watchdog when it is started. A watchdog
// command tells it nothing.
type beats struct {
	by       string
	interval int64
	retries  int
}

func (p Process) told() beats {
	w := p.Watchdog
	switch {
	case w.Interval == 0 || w.By == "command":
		return beats{}
	case w.By == "page":
		return beats{w.By, int64(w.Interval), 0} // nobody told it how many may be missed
	}
	return beats{w.By, int64(w.Interval), w.Retries}
}
