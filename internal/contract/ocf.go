package contract

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/contract/metadata"
)

// An OCF is a resource agent of the Open Cluster Framework with its parameters. It
// is a Part. No way of printing it shows the values of its parameters.
type OCF struct {
	Class      string // ocf:PROVIDER:TYPE, as ocf:heartbeat:Dummy
	Instance   string // names this use of it among the others; empty: the type
	Parameters map[string]string
	Secret     []string // parameters that are never shown, besides those whose name says so
	Root       string   // where agents are; empty: /usr/lib/ocf
	Env        []string // more of the environment, NAME=VALUE
	// Timeouts by action (start, stop, monitor, validate-all, meta-data). What is not
	// in it is 20 s: Describe tells what the agent advises.
	Timeouts map[string]time.Duration
	Run      Runner
}

// The exit codes of OCF agents.
const (
	ocfSuccess       = 0
	ocfNotRunning    = 7
	ocfPromoted      = 8
	ocfDegraded      = 190
	ocfDegradedAlso  = 191 // and promoted
	ocfUnimplemented = 3
)

// Start implements Part.
func (a OCF) Start(ctx context.Context) Outcome { return a.action(ctx, "start") }

// Stop implements Part.
func (a OCF) Stop(ctx context.Context) Outcome { return a.action(ctx, "stop") }

// Check implements Part.
func (a OCF) Check(ctx context.Context) Outcome { return a.action(ctx, "monitor") }

// Validate implements Part: first the parameters against what the agent says of
// itself, then the agent's own opinion.
func (a OCF) Validate(ctx context.Context) Outcome {
	about, o := a.Describe(ctx)
	if about == nil {
		return o
	}
	if why := misfit(about, a.Parameters); why != "" {
		return Outcome{Hard, -1, "", a.Class + ": " + why}
	}
	if _, ok := about.Action("validate-all"); !ok {
		return Outcome{Done, -1, "", a.Class + " has all parameters that it requires, and validates nothing else"}
	}
	o = a.action(ctx, "validate-all")
	if o.Code == ocfUnimplemented {
		return Outcome{Done, o.Code, o.Output, a.Class + " has all parameters that it requires, and validates nothing else"}
	}
	return o
}

// Describe asks the agent about itself. If that fails the description is nil and
// the outcome says why.
func (a OCF) Describe(ctx context.Context) (*metadata.Agent, Outcome) {
	c, o, ok := a.call("meta-data", metadata.Most)
	if !ok {
		return nil, o
	}
	return c.describe(ctx)
}

// describe runs what prints a description.
func (a call) describe(ctx context.Context) (*metadata.Agent, Outcome) {
	e, o, ok := a.do(ctx)
	if !ok {
		return nil, o
	}
	about, err := metadata.Parse(e.Output)
	if err != nil {
		return nil, Outcome{Hard, e.Code, tail(e.Output), fmt.Sprintf("%s exited with %d: %v", a.what, e.Code, err)}
	}
	return about, Outcome{Done, e.Code, "", a.what + " was read"}
}

// misfit says which parameters do not fit a description, or "".
func misfit(about *metadata.Agent, given map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := about.Parameter(name); !ok {
			words = append(words, fmt.Sprintf("it has no parameter %q", name))
		}
	}
	replaced := map[string]bool{} // by a given one, or the other way round
	for _, p := range about.Parameters {
		if _, ok := given[p.Name]; ok {
			replaced[p.Obsoletes] = true
		}
		if _, ok := given[p.Obsoletes]; ok {
			replaced[p.Name] = true
		}
	}
	for _, p := range about.Parameters {
		if value, ok := given[p.Name]; (!ok || value == "") && p.Required && p.Default == "" && !p.Deprecated && !replaced[p.Name] {
			words = append(words, fmt.Sprintf("it requires the parameter %q (%s)", p.Name, p.Short))
		}
	}
	if len(words) == 0 {
		return ""
	}
	var names []string
	for _, p := range about.Parameters {
		if !p.Deprecated {
			names = append(names, p.Name)
		}
	}
	return strings.Join(words, "; ") + "; it knows " + strings.Join(names, ", ")
}

// action runs one action and says what its exit code means.
func (a OCF) action(ctx context.Context, action string) Outcome {
	c, o, ok := a.call(action, 0)
	if !ok {
		return o
	}
	e, o, ok := c.do(ctx)
	if !ok {
		return o
	}
	var meaning string
	o.Kind, meaning = ocfMeaning(action, e.Code)
	if o.Kind == Done && e.Code == ocfSuccess {
		o.Reason = c.what + " succeeded"
		return o
	}
	o.Reason = fmt.Sprintf("%s: %s (exit code %d)", c.what, meaning, e.Code)
	if why := exitReason(e.Output); why != "" {
		o.Reason += ": " + why
	}
	return o
}

// ocfMeaning is the table of the resource agent API, with the judgment of soft,
// hard and fatal that users of it know from Pacemaker.
func ocfMeaning(action string, code int) (Kind, string) {
	check := action == "monitor"
	switch code {
	case ocfSuccess:
		return Done, "success"
	case 1:
		return Soft, "it failed"
	case 2:
		return Hard, "a parameter is wrong on this node"
	case ocfUnimplemented:
		return Hard, "the agent does not have this action"
	case 4:
		return Hard, "it has no permission for something"
	case 5:
		return Hard, "something that it needs is not installed on this node"
	case 6:
		return Fatal, "it is configured wrongly, which is so on every node"
	case ocfNotRunning:
		if check {
			return Stopped, "it does not run"
		}
		return Soft, "it does not run"
	case ocfPromoted:
		if check {
			return Done, "it runs, as promoted"
		}
	case 9:
		return Soft, "it is promoted and has failed"
	case ocfDegraded, ocfDegradedAlso:
		if check {
			return Done, "it runs, but says that it is about to fail"
		}
	}
	return Soft, "it failed with a code that the contract does not have"
}

// exitReason is the last reason that an agent wrote down for people.
func exitReason(output string) string {
	const mark = "ocf-exit-reason:"
	i := strings.LastIndex(output, mark)
	if i < 0 {
		return ""
	}
	line, _, _ := strings.Cut(output[i+len(mark):], "\n")
	return oneLine(line)
}

// call prepares one action.
func (a OCF) call(action string, most int) (call, Outcome, bool) {
	provider, kind, err := a.agent()
	if err == nil {
		err = a.sound()
	}
	if err != nil {
		return call{}, Outcome{Fatal, -1, "", err.Error()}, false
	}
	root, instance := a.Root, a.Instance
	if root == "" {
		root = "/usr/lib/ocf"
	}
	if instance == "" {
		instance = kind
	}
	timeout := a.Timeouts[action]
	if timeout <= 0 {
		timeout = usual
	}
	env := environment(
		"OCF_ROOT="+root, "OCF_RA_VERSION_MAJOR=1", "OCF_RA_VERSION_MINOR=0",
		"OCF_RESOURCE_INSTANCE="+instance, "OCF_RESOURCE_TYPE="+kind, "OCF_RESOURCE_PROVIDER="+provider, "OCF_RESOURCE_CLASS=ocf",
		"OCF_RESKEY_CRM_meta_timeout="+strconv.FormatInt(timeout.Milliseconds(), 10), "OCF_RESKEY_CRM_meta_name="+action)
	if action == "monitor" {
		// Not zero: that would be a probe, whose agents tell less.
		env = append(env, "OCF_CHECK_LEVEL=0", "OCF_RESKEY_CRM_meta_interval=10000")
	} else {
		env = append(env, "OCF_RESKEY_CRM_meta_interval=0")
	}
	if action != "meta-data" {
		for _, name := range slices.Sorted(maps.Keys(a.Parameters)) {
			env = append(env, "OCF_RESKEY_"+name+"="+a.Parameters[name])
		}
	}
	return call{
		run: a.Run, what: a.Class + ": " + action, secret: secrets(a.Parameters, a.Secret),
		c: Command{
			Args: []string{path.Join(root, "resource.d", provider, kind), action},
			Env:  append(env, a.Env...), Timeout: timeout, Most: most, Leave: action == "start",
		},
	}, Outcome{}, true
}

// agent takes the class apart. Its parts become parts of a path.
func (a OCF) agent() (provider, kind string, err error) {
	parts := strings.Split(a.Class, ":")
	if len(parts) != 3 || parts[0] != "ocf" || !word(parts[1]) || !word(parts[2]) {
		return "", "", fmt.Errorf("resource agent %q: write it as ocf:PROVIDER:TYPE, for instance ocf:heartbeat:Dummy", a.Class)
	}
	return parts[1], parts[2], nil
}

// sound refuses what would become another variable or another program.
func (a OCF) sound() error {
	for name, value := range a.Parameters {
		if !variable(name) || strings.HasPrefix(name, "CRM_meta_") {
			return fmt.Errorf("%s: no parameter can have the name %q; it consists of letters, digits and _", a.Class, name)
		}
		if strings.ContainsRune(value, 0) {
			return fmt.Errorf("%s: the value of the parameter %s has a NUL in it", a.Class, name)
		}
	}
	if strings.ContainsRune(a.Instance, 0) || strings.ContainsRune(a.Instance, '/') {
		return fmt.Errorf("%s: the instance %q has a / or a NUL in it; agents make file names of it", a.Class, a.Instance)
	}
	return nil
}

// word reports whether s can be a name in a path.
func word(s string) bool {
	return s != "" && s[0] != '.' && strings.IndexFunc(s, func(r rune) bool { return !letter(r) && r != '-' && r != '.' }) < 0
}

// variable reports whether s can be a part of a variable's name.
func variable(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !letter(r) }) < 0
}

func letter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
}

// String names the agent and its parameters without their values.
func (a OCF) String() string {
	return a.Class + "(" + strings.Join(slices.Sorted(maps.Keys(a.Parameters)), ", ") + ")"
}

// Format makes every verb print what String says.
func (a OCF) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(a.String())) }

// MarshalText makes JSON and structured logs have what String says.
func (a OCF) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
