package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// snapshot asks for the present picture.
func (t *tool) snapshot(ctx context.Context) (*gemelv1.Snapshot, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	r, err := client.Status(ctx, &gemelv1.StatusRequest{})
	if err != nil {
		return nil, err
	}
	return r.GetSnapshot(), nil
}

// target finds what a name of the command line means (gemel help names).
func (t *tool) target(ctx context.Context, name string) (*gemelv1.Subject, error) {
	s, err := t.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	return find(s, name)
}

// find finds what a name means in a picture.
func find(s *gemelv1.Snapshot, name string) (*gemelv1.Subject, error) {
	low := strings.ToLower(name)
	if low == "node" || low == "pmsglobal" {
		return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_NODE}, nil
	}
	bare, kind := name, ""
	if k, rest, ok := strings.Cut(strings.Replace(name, ":", "/", 1), "/"); ok && (k == "process" || k == "check" || k == "group") {
		bare, kind = rest, k
	}
	var names []string
	if kind != "check" && kind != "group" {
		for _, p := range s.GetProcesses() {
			if p.GetName() == bare || p.GetUid() != 0 && low == fmt.Sprintf("pmsproc%d", p.GetUid()) {
				return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_PROCESS, Name: p.GetName()}, nil
			}
			names = append(names, p.GetName())
		}
	}
	if kind != "process" && kind != "group" {
		for _, c := range s.GetChecks() {
			if c.GetName() == bare || c.GetUid() != 0 && low == fmt.Sprintf("pmspie%d", c.GetUid()) {
				return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_CHECK, Name: c.GetName()}, nil
			}
			names = append(names, c.GetName())
		}
	}
	if kind == "" || kind == "group" {
		if groupOf(s, bare) != nil {
			return &gemelv1.Subject{Kind: gemelv1.Kind_KIND_GROUP, Name: bare}, nil
		}
		for _, g := range s.GetGroups() {
			names = append(names, g.GetName())
		}
	}
	if kind == "" {
		kind = "process, check or group"
	}
	return nil, unknown(kind, bare, names)
}

// unknown is the error of a name that is none.
func unknown(kind, name string, names []string) error {
	hint := "gemel status lists what there is"
	if n := nearest(name, names); n != "" {
		hint = fmt.Sprintf("did you mean %s? %s", n, hint)
	}
	return notFound{fmt.Sprintf("there is no %s %q", kind, name), hint}
}

// nearest returns the name that was probably meant, or "".
func nearest(given string, names []string) string {
	best, least := "", 2+len(given)/4
	for _, n := range names {
		if d := distance(strings.ToLower(given), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best != "" || len(given) < 3 {
		return best
	}
	i := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, given) })
	if i < 0 {
		return ""
	}
	return names[i]
}

// distance counts the letters that were left out, put in, exchanged, or typed in
// the wrong order (Damerau and Levenshtein).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range y {
		rows[0][j+1] = j + 1
	}
	for i := range x {
		for j := range y {
			d := rows[i][j]
			if x[i] != y[j] {
				d++
			}
			d = min(d, rows[i][j+1]+1, rows[i+1][j]+1)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				d = min(d, rows[i-1][j-1]+1)
			}
			rows[i+1][j+1] = d
		}
	}
	return rows[len(x)][len(y)]
}

// completeTime bounds what the shell waits for when somebody presses Tab.
const completeTime = 400 * time.Millisecond

// names offers the names of the daemon's processes and checks, and extra ones.
// Without a daemon it offers the extra ones, at once and without a word.
func (t *tool) names(checks bool, extra ...string) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(c *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var out []string
		add := func(name, about string) {
			if strings.HasPrefix(name, prefix) && !slices.Contains(given, name) {
				out = append(out, cobra.CompletionWithDesc(name, about))
			}
		}
		s := t.soon(c.Context())
		for _, p := range s.GetProcesses() {
			add(p.GetName(), stateText(p))
		}
		for _, k := range s.GetChecks() {
			if checks {
				add(k.GetName(), "check, "+k.GetState())
			}
		}
		for _, g := range s.GetGroups() {
			if checks {
				add(g.GetName(), "group, "+g.GetState())
			}
		}
		for _, e := range extra {
			add(e, "")
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// soon returns the picture if it comes soon, else nil. What is not waited for any
// more ends with the program, which is about to.
func (t *tool) soon(ctx context.Context) *gemelv1.Snapshot {
	got := make(chan *gemelv1.Snapshot, 1)
	go func() {
		s, err := t.snapshot(ctx)
		if err != nil {
			s = nil
		}
		got <- s
	}()
	timer := time.NewTimer(completeTime)
	defer timer.Stop()
	select {
	case s := <-got:
		return s
	case <-timer.C:
		return nil
	}
}

// manifests completes the names of manifest files.
func manifests(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
}
