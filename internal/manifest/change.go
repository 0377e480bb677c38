package manifest

import "reflect"

// Replaces reports whether a program that runs as p must be started anew to run
// as q. Everything else that a manifest says of a process takes effect while the
// program runs on.
func (p Process) Replaces(q Process) bool {
	return !reflect.DeepEqual(p.program(), q.program())
}

// program is p with only what its program was started with.
func (p Process) program() Process {
	q := Process{
		Command: p.Command, Shell: p.Shell, Directory: p.Directory,
		User: p.User, Group: p.Group, Groups: p.Groups,
		Environment: p.Environment, EnvFiles: p.EnvFiles, InheritEnv: p.InheritEnv,
		Umask: p.Umask, Nice: p.Nice, Limits: p.Limits, Caps: p.Caps, NoNewPrivs: p.NoNewPrivs,
		Resources: p.Resources, OOMScore: p.OOMScore, Task: p.Task,
	}
	q.Output.Mode = p.Output.Mode
	q.Attach.PIDFile, q.Attach.CommandLine, q.Attach.Unit = p.Attach.PIDFile, p.Attach.CommandLine, p.Attach.Unit
	if p.Ready.Kind == ReadyNotify {
		q.Ready.Kind = ReadyNotify // it has a notify socket
	}
	if p.Watchdog.Interval > 0 && p.Watchdog.By != "command" {
		q.Watchdog = p.Watchdog // it was told the interval when it was started
		q.Watchdog.Command = nil
	}
	return q
}
