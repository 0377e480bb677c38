package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

// eventFlags choose events.
type eventFlags struct {
	follow   bool
	since    string
	number   int
	code     []uint
	severity string
	classic  bool
	after    uint64
}

func eventsCommand(t *tool) *cobra.Command {
	var f eventFlags
	c := &cobra.Command{
		Use: "events [NAME...]", GroupID: "look",
		Short: "what happened",
		Long: `Prints recorded events, oldest first: time, number, severity, what it does to the alarm
(! raises, - clears, a blank only informs), subject, code and text. With -f it goes on as
events happen. gemel why NUMBER tells how one came about, gemel catalogue what each code
means.`,
		Example:           "  gemel events\n  gemel events -f\n  gemel events nginx --since 2h\n  gemel events --since 2026-01-31T10:00:00Z --json",
		ValidArgsFunction: t.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			filter, err := filter(c.Context(), t, f, args)
			if err != nil {
				return err
			}
			if f.follow {
				return followEvents(c.Context(), t, f, filter)
			}
			return listEvents(c.Context(), t, f, filter)
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&f.follow, "follow", "f", false, "go on as events happen, until Ctrl-C")
	fl.StringVar(&f.since, "since", "", "only events since then: a span (90s, 2h), or a time (2026-01-31T10:00:00Z, 10:00, \"2026-01-31 10:00\")")
	fl.IntVarP(&f.number, "number", "n", 0, "only so many of the newest (default 100; with --since: all)")
	fl.UintSliceVar(&f.code, "code", nil, "only events of these codes")
	fl.StringVar(&f.severity, "severity", "", "only this severity and above: minor, major, critical")
	fl.BoolVar(&f.classic, "classic", false, "only the CMM's own codes")
	fl.Uint64Var(&f.after, "after", 0, "only events after this number")
	return c
}

func filter(ctx context.Context, t *tool, f eventFlags, names []string) (*gemelv1.EventFilter, error) {
	filter := &gemelv1.EventFilter{Classic: f.classic}
	for _, n := range names {
		s, err := t.target(ctx, n)
		if err != nil {
			return nil, err
		}
		filter.Subjects = append(filter.Subjects, s)
	}
	for _, c := range f.code {
		filter.Codes = append(filter.Codes, uint32(c))
	}
	if f.since != "" {
		at, err := parseTime(f.since, time.Now())
		if err != nil {
			return nil, usageError{err}
		}
		filter.Since = timestamppb.New(at)
	}
	if f.severity != "" {
		sev, ok := gemelv1.Severity_value["SEVERITY_"+strings.ToUpper(f.severity)]
		if !ok {
			return nil, usageError{fmt.Errorf("there is no severity %q; there are ok, minor, major, critical", f.severity)}
		}
		filter.Severity = gemelv1.Severity(sev)
	}
	return filter, nil
}

// timeForms are the times that --since takes; those without an offset are local.
var timeForms = [...]string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05.000-07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", "15:04:05", "15:04"}

// parseTime reads a span before now, or a time; an hour alone is of today.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range timeForms {
		at, err := time.ParseInLocation(form, s, now.Location())
		if err != nil {
			continue
		}
		if at.Year() == 0 {
			y, m, d := now.Date()
			at = at.AddDate(y, int(m)-1, d-1)
		}
		return at, nil
	}
	return time.Time{}, fmt.Errorf("%q is neither a span (90s, 2h) nor a time (2026-01-31T10:00:00Z, 2026-01-31 10:00, 10:00)", s)
}

func listEvents(ctx context.Context, t *tool, f eventFlags, filter *gemelv1.EventFilter) error {
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	limit, after := uint32(f.number), f.after
	if limit == 0 && filter.Since == nil && after == 0 {
		limit = 100
	}
	for {
		r, err := client.Events(ctx, &gemelv1.EventsRequest{Filter: filter, After: after, Limit: limit})
		if err != nil {
			return err
		}
		for _, e := range r.GetEvents() {
			if err := showEvent(t, e); err != nil {
				return err
			}
		}
		// Without a position the answer holds the newest ones and is complete.
		if !r.GetMore() || limit != 0 || after == 0 {
			return nil
		}
		after = r.GetLastId()
	}
}

func followEvents(ctx context.Context, t *tool, f eventFlags, filter *gemelv1.EventFilter) error {
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	past := uint32(f.number)
	if past == 0 && filter.Since == nil {
		past = 10
	}
	// Follow goes on over a restart of the daemon's monitor, from the last event.
	err = client.Follow(ctx, &gemelv1.WatchEventsRequest{
		Filter: filter, After: f.after, Past: past, AllSince: filter.Since != nil,
	}, func(r *gemelv1.WatchEventsResponse) error {
		if e := r.GetEvent(); e != nil {
			return showEvent(t, e)
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil // Ctrl-C is the way to leave
	}
	return err
}

func showEvent(t *tool, e *gemelv1.Event) error {
	if t.json {
		return t.printJSON(object(e))
	}
	mark, colour := " ", plain
	switch e.GetChange() {
	case gemelv1.Change_CHANGE_ASSERT:
		mark, colour = "!", yellow
		if e.GetSeverity() >= gemelv1.Severity_SEVERITY_MAJOR {
			colour = red
		}
	case gemelv1.Change_CHANGE_CLEAR:
		mark, colour = "-", green
	}
	text := e.GetText()
	if d := e.GetDetail(); d != "" {
		text += ": " + d
	}
	_, err := fmt.Fprintf(t.w.Out, "%s %6d %s %-8s %-16s %s %s\n", clockTime(e.GetAt().AsTime()), e.GetId(), mark,
		severityWord(e.GetSeverity()), subject(e.GetSubject()), t.paint(faint, strconv.Itoa(int(e.GetCode()))), t.paint(colour, oneLine(text)))
	return err
}

// severityWord leaves the informing events without a word, so that the others
// stand out.
func severityWord(s gemelv1.Severity) string {
	if s <= gemelv1.Severity_SEVERITY_OK {
		return "ok"
	}
	return wordOf(s)
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(clean(s)), "\n", " | ") }

func alarmsCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "alarms", GroupID: "look", Args: cobra.NoArgs,
		Short: "faults that stand, and what to do about each",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
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
				fmt.Fprintln(t.w.Out, "no alarm stands")
				return nil
			}
			for _, a := range r.GetAlarms() {
				if err := showEvent(t, a.GetEvent()); err != nil {
					return err
				}
				fmt.Fprintf(t.w.Out, "      means:  %s\n      effect: %s\n      do:     %s\n", a.GetMeans(), a.GetEffect(),
					strings.ReplaceAll(a.GetDo(), "NAME", subject(a.GetEvent().GetSubject())))
			}
			return nil
		},
	}
}
