package contract

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"
)

// A Script is a program with the entry points start, stop and validate, as the
// external scripts of Serviceguard's packages have them. It is a Part.
type Script struct {
	Path string // absolute; not needed where Commands has all
	// Commands are what is run for an entry point (start, stop, validate, check). One
	// that is not in it is run as Path with the name of the entry point.
	Commands map[string][]string
	Group    string
	Node     string
	Env      []string // more of the environment, NAME=VALUE
	// Checks says that the script has an entry point `check` as well: 0 runs, 3 does
	// not, everything else failed. Serviceguard's have none.
	Checks bool
	// Timeouts by entry point; what is not in it is 20 s.
	Timeouts map[string]time.Duration
	Run      Runner
}

// The exit codes of scripts. Mind the order: it is the second one that lets another
// node try.
const (
	scriptDone      = 0
	scriptNowhere   = 1 // halt the package, start it nowhere
	scriptElsewhere = 2 // start it on another node
	scriptStopped   = 3 // of check, as an init script's status
)

// Start implements Part. A time-out, a signal or a code that the contract does not
// have is as 1, since nobody knows how far it went.
func (s Script) Start(ctx context.Context) Outcome {
	return s.entry(ctx, "start", func(code int) (Kind, string) {
		switch code {
		case scriptNowhere:
			return Fatal, "it failed, and is not to be started on any node"
		case scriptElsewhere:
			return Hard, "it failed here, and may be started on another node"
		}
		return Fatal, "it failed with a code that the contract does not have, which counts as 1: it is not to be started on any node"
	})
}

// Stop implements Part.
func (s Script) Stop(ctx context.Context) Outcome {
	return s.entry(ctx, "stop", func(int) (Kind, string) {
		return Fatal, "it is not proved to be stopped, and so is not to be started anywhere"
	})
}

// Check implements Part.
func (s Script) Check(ctx context.Context) Outcome {
	if !s.Checks {
		return Outcome{Unknown, -1, "", s.Path + " has no check"}
	}
	o := s.entry(ctx, "check", func(code int) (Kind, string) {
		if code == scriptStopped {
			return Stopped, "it does not run"
		}
		return Soft, "it failed"
	})
	return soften(o)
}

// Validate implements Part: here 1 and 2 mean the same.
func (s Script) Validate(ctx context.Context) Outcome {
	if s.Path == "" && len(s.Commands["validate"]) == 0 {
		return Outcome{Done, -1, "", "nothing is asked before it is started"}
	}
	return s.entry(ctx, "validate", func(int) (Kind, string) { return Hard, "it cannot run on this node" })
}

// soften makes what kept a check from being made a failure of the check, and no
// verdict about other nodes.
func soften(o Outcome) Outcome {
	if o.Kind == Fatal {
		o.Kind = Soft
	}
	return o
}

// entry runs one entry point; failed says what a code other than 0 means.
func (s Script) entry(ctx context.Context, entry string, failed func(code int) (Kind, string)) Outcome {
	argv := s.Commands[entry]
	if len(argv) == 0 {
		argv = []string{s.Path, entry}
	}
	if !path.IsAbs(argv[0]) || strings.ContainsRune(strings.Join(argv, ""), 0) {
		return Outcome{Fatal, -1, "", fmt.Sprintf("script %q: name it by its whole path, as /etc/gemel/db.sh", argv[0])}
	}
	env := environment("GEMEL_GROUP="+s.Group, "SG_PACKAGE_NAME="+s.Group)
	if entry != "validate" {
		// As there: it is validated where it does not run.
		env = append(env, "SG_PACKAGE="+s.Group)
		if s.Node != "" {
			env = append(env, "SG_NODE="+s.Node)
		}
	}
	if s.Node != "" {
		env = append(env, "GEMEL_NODE="+s.Node)
	}
	c := call{
		run: s.Run, what: path.Base(argv[0]) + " (" + entry + ")",
		c: Command{Args: argv, Env: append(env, s.Env...), Timeout: s.Timeouts[entry], Leave: entry == "start"},
	}
	e, o, ok := c.do(ctx)
	if !ok {
		if o.Kind == Soft {
			o.Kind = Fatal // it ran, for a while
		}
		if entry == "validate" && o.Kind == Fatal {
			o.Kind = Hard
		}
		return o
	}
	if e.Code == scriptDone {
		o.Kind, o.Reason = Done, c.what+" succeeded"
		return o
	}
	var meaning string
	o.Kind, meaning = failed(e.Code)
	o.Reason = fmt.Sprintf("%s: %s (exit code %d)", c.what, meaning, e.Code)
	return o
}
