package contract

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"gemel/internal/contract/metadata"
)

// A Fence cuts a node off by a fence agent: its options go to the agent's standard
// input and nowhere else, and no way of printing a Fence shows their values.
type Fence struct {
	Agent   string            // as fence_ipmilan, or a whole path
	Options map[string]string // as ip, username, password, plug; not action
	Secret  []string          // options that are never shown, besides those whose name says so
	Env     []string          // more of the environment, NAME=VALUE
	// Timeout bounds each method as a whole; zero: a minute. It must be more than the
	// agent's own time-outs (power_timeout and its kin).
	Timeout time.Duration
	// Terse is for an agent that prints nothing but exits with 2 when the node is off.
	// Without it "off" must be in its output as well: 2 is also what a shell and Python
	// exit with when they cannot read a script.
	Terse bool
	Run   Runner
}

const (
	fenceTimeout = time.Minute
	fenceOn      = 0
	fenceOff     = 2
	// fencePause is between two questions for the status.
	fencePause = 500 * time.Millisecond
)

// Off orders the node off and then asks until it is. Done is a confirmation: the
// order was given after Off was called and was carried out, and a status asked
// for after that said off. Nothing else is one: not an order that succeeded, and not a
// node that is off though the order failed, since it may be about to come back.
func (f Fence) Off(ctx context.Context) Outcome {
	ctx, cancel := context.WithTimeout(ctx, f.timeout())
	defer cancel()
	ordered := f.order(ctx, "off")
	if ordered.Kind == Unknown || ordered.Code < 0 && ordered.Kind != Soft {
		return ordered
	}
	var last Outcome
	for {
		now := f.Status(ctx)
		if now.Kind == Unknown && last.Reason != "" {
			now = last // the time was up meanwhile; what it said before tells more
		}
		last = now
		switch {
		case ordered.Kind != Done:
			ordered.Reason += "; afterwards: " + now.Reason
			return ordered
		case now.Kind == Stopped:
			return Outcome{Done, now.Code, now.Output, f.Agent + " was ordered off, and its status says off"}
		}
		wait := time.NewTimer(fencePause)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return Outcome{Soft, now.Code, now.Output, f.Agent + " carried out the order off, but that is not confirmed: " + now.Reason}
		}
	}
}

// On orders the node on. Done: the agent says that it did.
func (f Fence) On(ctx context.Context) Outcome { return f.order(ctx, "on") }

// Status asks. Done: the node is on. Stopped: it is off.
func (f Fence) Status(ctx context.Context) Outcome {
	c, o, ok := f.call("status")
	if !ok {
		return o
	}
	e, o, ok := c.do(ctx)
	if !ok {
		return o
	}
	said := fenceSaid(e.Output)
	switch {
	case e.Code == fenceOn && said != "off":
		o.Kind, o.Reason = Done, c.what+" says on"
	case e.Code == fenceOff && (said == "off" || said == "" && f.Terse):
		o.Kind, o.Reason = Stopped, c.what+" says off"
	case e.Code == fenceOff && said == "":
		o.Kind, o.Reason = Soft, c.what+" exited with 2, which means off, but does not say so in words: it may have failed to start; if this agent never prints a status, set terse"
	case e.Code == fenceOn || e.Code == fenceOff:
		o.Kind, o.Reason = Soft, fmt.Sprintf("%s contradicts itself: exit code %d, and the word %q", c.what, e.Code, said)
	default:
		o.Kind, o.Reason = Soft, fmt.Sprintf("%s failed (exit code %d, %s)", c.what, e.Code, fenceMeaning(e.Code))
	}
	return o
}

// Check asks whether the way to the fence works, without touching the node: for
// a test at intervals. Done: it does.
func (f Fence) Check(ctx context.Context) Outcome { return f.order(ctx, "monitor") }

// Validate compares the options with what the agent says of itself. Done: they fit.
func (f Fence) Validate(ctx context.Context) Outcome {
	c, o, ok := f.call("metadata")
	if !ok {
		return o
	}
	// No options: the description does not depend on them, and secrets stay here.
	c.c.In, c.c.Most = []byte("action=metadata\n"), metadata.Most
	about, o := c.describe(ctx)
	if about == nil {
		return o
	}
	given := maps.Clone(f.Options)
	if given == nil {
		given = map[string]string{}
	}
	given["action"] = "off"
	if why := misfit(about, given); why != "" {
		return Outcome{Hard, -1, "", f.Agent + ": " + why}
	}
	for _, action := range []string{"off", "status"} {
		if _, ok := about.Action(action); !ok {
			return Outcome{Hard, -1, "", f.Agent + " has no action " + action + ", so that nothing it does can be confirmed; use another agent"}
		}
	}
	return Outcome{Done, o.Code, "", f.Agent + " knows all of its options"}
}

// order runs an action that succeeds by 0.
func (f Fence) order(ctx context.Context, action string) Outcome {
	c, o, ok := f.call(action)
	if !ok {
		return o
	}
	e, o, ok := c.do(ctx)
	if !ok {
		return o
	}
	if e.Code == 0 {
		o.Kind, o.Reason = Done, c.what+" succeeded"
	} else {
		o.Kind, o.Reason = Soft, fmt.Sprintf("%s failed (exit code %d, %s)", c.what, e.Code, fenceMeaning(e.Code))
	}
	return o
}

// fenceSaid is the word of the last line "Status: WORD", in lower case, or "".
func fenceSaid(output string) string {
	said := ""
	for line := range strings.Lines(output) {
		name, value, ok := strings.Cut(strings.ToLower(line), ":")
		if ok && strings.TrimSpace(name) == "status" {
			said = strings.TrimSpace(value)
		}
	}
	return said
}

// fenceMeaning is what the common library of fence agents exits with.
func fenceMeaning(code int) string {
	switch code {
	case 2:
		return "wrong arguments"
	case 3:
		return "the login was denied"
	case 4:
		return "the connection was lost"
	case 5:
		return "its time was up"
	case 6:
		return "the node did not go on in time"
	case 7:
		return "the node did not go off in time"
	case 8, 9:
		return "no status was to be had"
	case 10:
		return "the password is missing"
	case 11:
		return "the user may not do this"
	}
	return "its output may say why"
}

func (f Fence) timeout() time.Duration {
	if f.Timeout > 0 {
		return f.Timeout
	}
	return fenceTimeout
}

// call prepares one action.
func (f Fence) call(action string) (call, Outcome, bool) {
	in, err := f.input(action)
	if err != nil {
		return call{}, Outcome{Fatal, -1, "", err.Error()}, false
	}
	program := f.Agent
	if !path.IsAbs(program) {
		program = path.Join("/usr/sbin", program)
	}
	return call{
		run: f.Run, what: f.Agent + ": " + action, secret: secrets(f.Options, f.Secret),
		c: Command{Args: []string{program}, In: in, Env: environment(f.Env...), Timeout: f.timeout()},
	}, Outcome{}, true
}

// input is what the agent reads: KEY=VALUE, one a line. A value that would be read as
// something else than it is, is refused: a line break in a password would be
// another option, action=on for one.
func (f Fence) input(action string) ([]byte, error) {
	if !path.IsAbs(f.Agent) && !word(f.Agent) {
		return nil, fmt.Errorf("fence agent %q: name it as fence_ipmilan, or by its whole path", f.Agent)
	}
	b := append([]byte("action="+action), '\n')
	for _, name := range slices.Sorted(maps.Keys(f.Options)) {
		value := f.Options[name]
		switch {
		case !word(name) || strings.Contains(name, "."):
			return nil, fmt.Errorf("%s: no option can have the name %q; it consists of letters, digits, - and _", f.Agent, name)
		case name == "action" || name == "option" || name == "o":
			return nil, fmt.Errorf("%s: the option %q is not for you to set: Gemel says what is to be done", f.Agent, name)
		case strings.ContainsAny(value, "\n\r\x00"):
			return nil, fmt.Errorf("%s: the value of the option %q has a line break or a NUL in it", f.Agent, name)
		case strings.TrimSpace(value) != value:
			return nil, fmt.Errorf("%s: the value of the option %q begins or ends with a space, which agents drop", f.Agent, name)
		}
		b = append(append(append(append(b, name...), '='), value...), '\n')
	}
	return b, nil
}

// String names the agent and its options without their values.
func (f Fence) String() string {
	return f.Agent + "(" + strings.Join(slices.Sorted(maps.Keys(f.Options)), ", ") + ")"
}

// Format makes every verb print what String says.
func (f Fence) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(f.String())) }

// MarshalText makes JSON and structured logs have what String says.
func (f Fence) MarshalText() ([]byte, error) { return []byte(f.String()), nil }
