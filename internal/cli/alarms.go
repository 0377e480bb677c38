package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

func alarmsCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "alarms", GroupID: "look", Args: args(0, 0),
		Short: "faults that stand, and what to do about each",
		Long: `Prints the alarms that stand, oldest first: since when, how bad, what it means, what it
does to the service, and what to do. An alarm ends by itself when its process works
again; one whose process was given up ends when that is locked and unlocked.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Alarms(c.Context(), &gemelv1.AlarmsRequest{})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			if len(r.GetAlarms()) == 0 {
				fmt.Fprintln(t.out, "no alarm stands")
			}
			for i, a := range r.GetAlarms() {
				if i > 0 {
					fmt.Fprintln(t.out)
				}
				showAlarm(t, a)
			}
			return nil
		},
	}
}

func showAlarm(t *tool, a *gemelv1.Alarm) {
	e := a.GetEvent()
	who := subject(e.GetSubject())
	colour := yellow
	if e.GetSeverity() >= gemelv1.Severity_SEVERITY_MAJOR {
		colour = red
	}
	fmt.Fprintf(t.out, "%s  %s  since %s\n", t.out.paint(bold, who), t.out.paint(colour, wordOf(e.GetSeverity())), clockTime(e.GetAt().AsTime()))
	for _, f := range []fact{
		{"fault", fmt.Sprintf("%s (event %d, code %d)", withDetail(e), e.GetId(), e.GetCode())},
		{"means", a.GetMeans()},
		{"effect", a.GetEffect()},
		{"do", t.command(strings.ReplaceAll(a.GetDo(), "NAME", who))},
		{"why", t.command(fmt.Sprintf("gemel why %d", e.GetId()))},
	} {
		if f.value != "" {
			t.out.hang(t.out, fmt.Sprintf("  %-7s ", f.name), f.value)
		}
	}
}

func catalogueCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "catalogue [CODE|WORD]", Aliases: []string{"catalog"}, GroupID: "look", Args: args(0, 1),
		Short: "what each event code means, does, and asks of you",
		Long: `Prints the catalogue of events: code, short name, text, what it means, what it does to
the service, and what to do. It asks no daemon.`,
		Example: "  gemel catalogue\n  gemel catalogue 368\n  gemel catalogue existence-fault",
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			var out []string
			for _, e := range ha.Catalogue() {
				if len(given) == 0 {
					out = append(out, cobra.CompletionWithDesc(e.Word, e.Text))
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			var words []string
			found := false
			for _, e := range ha.Catalogue() {
				words = append(words, e.Word)
				if len(args) == 1 && !named(e, args[0]) {
					continue
				}
				if found && !t.json {
					fmt.Fprintln(t.out)
				}
				found = true
				if err := showEntry(t, e); err != nil {
					return err
				}
			}
			if found {
				return nil
			}
			hint := "gemel catalogue lists them"
			if n := nearest(args[0], words); n != "" {
				hint = fmt.Sprintf("did you mean %s? %s", n, hint)
			}
			return notFound{fmt.Sprintf("there is no event %q", args[0]), hint}
		},
	}
}

// named reports whether an entry is meant by its code, in either notation, or its
// word.
func named(e ha.Entry, given string) bool {
	return given == fmt.Sprint(uint16(e.Code)) || strings.EqualFold(given, fmt.Sprintf("0x%04x", uint16(e.Code))) ||
		strings.EqualFold(given, fmt.Sprintf("0x%x", uint16(e.Code))) || strings.EqualFold(given, e.Word)
}

func showEntry(t *tool, e ha.Entry) error {
	if t.json {
		return t.printJSON(map[string]any{"code": e.Code, "word": e.Word, "text": e.Text, "change": e.Change, "means": e.Means, "effect": e.Effect, "do": e.Do, "classic": e.Classic})
	}
	t.out.hang(t.out, fmt.Sprintf("%d (0x%04X) %s: ", e.Code, uint16(e.Code), e.Word), e.Text)
	for _, f := range []fact{{"means", e.Means}, {"effect", e.Effect}, {"do", e.Do}} {
		t.out.hang(t.out, fmt.Sprintf("  %-7s ", f.name), f.value)
	}
	return nil
}
