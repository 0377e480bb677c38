package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

// fewEvents are told when nobody says how many.
const (
	fewEvents   = 100
	fewFollowed = 10
	mostEvents  = 10000 // of one answer of the daemon
)

// eventFlags choose events.
type eventFlags struct {
	follow   bool
	since    string
	number   uint32
	code     []uint
	severity string
	alarms   bool
	classic  bool
	after    uint64
}

func eventsCommand(t *tool) *cobra.Command {
	var f eventFlags
	c := &cobra.Command{
		Use: "events [NAME...]", GroupID: "look",
		Short: "what happened",
		Long: `Prints recorded events, oldest first: time, number, what it does to the alarm (! raises,
- clears, a blank only informs), severity, subject, code and text. With -f it goes on as
events happen; a restart of the daemon is no end of it. gemel why NUMBER tells how one
came about, gemel catalogue what each code means, gemel help times how times are given.`,
		Example:           "  gemel events\n  gemel events -f\n  gemel events nginx --since 2h\n  gemel events --since 2026-01-31T10:00:00Z --json",
		ValidArgsFunction: t.names(true, "node"),
		RunE: func(c *cobra.Command, names []string) error {
			filter, err := eventFilter(f, names)
			if err != nil {
				return err
			}
			if err := subjects(c.Context(), t, filter, names); err != nil {
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
	fl.StringVar(&f.since, "since", "", "only events from `TIME` on: a span (90s, 2h), an hour of today (10:00), a date, RFC 3339")
	fl.Uint32VarP(&f.number, "number", "n", 0, "only the newest `N` (default 100, with -f 10; with --since: all)")
	fl.UintSliceVar(&f.code, "code", nil, "only events of these `CODES`, as 368,375")
	fl.StringVar(&f.severity, "severity", "", "only `SEVERITY` and above: minor, major, critical")
	fl.BoolVar(&f.alarms, "alarms", false, "only events that raise or clear an alarm")
	fl.BoolVar(&f.classic, "classic", false, "only the CMM's own codes")
	fl.Uint64Var(&f.after, "after", 0, "only events after this `NUMBER`")
	_ = c.RegisterFlagCompletionFunc("severity", cobra.FixedCompletions([]string{"minor", "major", "critical"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func eventFilter(f eventFlags, names []string) (*gemelv1.EventFilter, error) {
	filter := &gemelv1.EventFilter{Classic: f.classic, Alarms: f.alarms}
	for _, c := range f.code {
		if c > 0xffff {
			return nil, wrongUsage("there is no event code %d; gemel catalogue lists them", c)
		}
		filter.Codes = append(filter.Codes, uint32(c))
	}
	if f.number > mostEvents {
		return nil, wrongUsage("--number is %d; at most %d, or --since", f.number, mostEvents)
	}
	if f.since != "" {
		at, err := parseTime(f.since, time.Now())
		if err != nil {
			return nil, err
		}
		filter.Since = timestamppb.New(at)
	}
	if f.severity != "" {
		sev, ok := gemelv1.Severity_value["SEVERITY_"+strings.ToUpper(f.severity)]
		if !ok || sev == 0 {
			return nil, wrongUsage("there is no severity %q; there are ok, minor, major, critical", f.severity)
		}
		filter.Severity = gemelv1.Severity(sev)
	}
	return filter, nil
}

// subjects puts names into a filter. A name that nothing has now may have had a
// past: it is refused only if there is no event of it either.
func subjects(ctx context.Context, t *tool, filter *gemelv1.EventFilter, names []string) error {
	if len(names) == 0 {
		return nil
	}
	client, err := t.dial()
	if err != nil {
		return err
	}
	s, err := t.snapshot(ctx)
	if err != nil {
		return err
	}
	for _, n := range names {
		sub, err := find(s, n)
		if err != nil {
			sub = &gemelv1.Subject{Name: n}
			past, e := client.Events(ctx, &gemelv1.EventsRequest{Filter: &gemelv1.EventFilter{Subjects: []*gemelv1.Subject{sub}}, Limit: 1})
			if e != nil {
				return e
			}
			if len(past.GetEvents()) == 0 {
				return err
			}
		}
		filter.Subjects = append(filter.Subjects, sub)
	}
	return nil
}

// timeForms are the times that --since takes; those without an offset are local.
var timeForms = [...]string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05.999-07:00",
	"2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02", "15:04:05", "15:04"}

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
			at = time.Date(now.Year(), now.Month(), now.Day(), at.Hour(), at.Minute(), at.Second(), 0, now.Location())
		}
		return at, nil
	}
	return time.Time{}, usageError{fmt.Sprintf("%q is neither a span (90s, 2h) nor a time (10:00, 2026-01-31 10:00, 2026-01-31T10:00:00Z)", s), "see gemel help times"}
}

func listEvents(ctx context.Context, t *tool, f eventFlags, filter *gemelv1.EventFilter) error {
	client, err := t.dial()
	if err != nil {
		return err
	}
	p := &eventPrinter{t: t}
	if f.number == 0 && (filter.Since != nil || f.after != 0) {
		// All of them, however many: the stream's past knows no bound and ends with
		// the mark.
		err := client.Follow(ctx, &gemelv1.WatchEventsRequest{Filter: filter, After: f.after, AllSince: true}, func(r *gemelv1.WatchEventsResponse) error {
			if r.GetLive() || t.out.err != nil {
				return errSeen
			}
			return p.print(r.GetEvent())
		})
		if errors.Is(err, errSeen) {
			return nil
		}
		return err
	}
	r, err := client.Events(ctx, &gemelv1.EventsRequest{Filter: filter, After: f.after, Limit: orElse(f.number, fewEvents)})
	if err != nil {
		return err
	}
	for _, e := range r.GetEvents() {
		if err := p.print(e); err != nil {
			return err
		}
	}
	return nil
}

func orElse(n, other uint32) uint32 {
	if n == 0 {
		return other
	}
	return n
}

func followEvents(ctx context.Context, t *tool, f eventFlags, filter *gemelv1.EventFilter) error {
	client, err := t.dial()
	if err != nil {
		return err
	}
	past := f.number
	if past == 0 && filter.Since == nil {
		past = fewFollowed
	}
	ctx, stop := t.out.reader(ctx)
	defer stop()
	p := &eventPrinter{t: t}
	// Follow goes on over a restart of the daemon's monitor, from the last event.
	return because(ctx, client.Follow(ctx, &gemelv1.WatchEventsRequest{
		Filter: filter, After: f.after, Past: past, AllSince: f.number == 0 && filter.Since != nil,
	}, func(r *gemelv1.WatchEventsResponse) error {
		if e := r.GetEvent(); e != nil {
			return errors.Join(p.print(e), t.out.err)
		}
		return nil
	}))
}

// eventPrinter writes events one below the other. A terminal gets the day on a
// line of its own, so that more of the text has room; anything else gets all of
// an event on one line.
type eventPrinter struct {
	t     *tool
	day   string
	width int // of the subjects so far
}

func (p *eventPrinter) print(e *gemelv1.Event) error {
	t := p.t
	if t.json {
		return t.printJSON(object(e))
	}
	mark, colour := " ", plain
	severity := ""
	switch e.GetChange() {
	case gemelv1.Change_CHANGE_ASSERT:
		mark, colour, severity = "!", yellow, wordOf(e.GetSeverity())
		if e.GetSeverity() >= gemelv1.Severity_SEVERITY_MAJOR {
			colour = red
		}
	case gemelv1.Change_CHANGE_CLEAR:
		mark, colour = "-", green
	}
	who, text, at := subject(e.GetSubject()), withDetail(e), e.GetAt().AsTime().Local()
	if !t.out.terminal() {
		_, err := fmt.Fprintf(t.out, "%s %6d %s %-8s %-16s %4d %s\n", clockTime(at), e.GetId(), mark, severity, who, e.GetCode(), text)
		return err
	}
	if day := at.Format("Mon 2006-01-02 (-07:00)"); day != p.day {
		p.day = day
		fmt.Fprintln(t.out, t.out.paint(faint, day))
	}
	p.width = min(max(p.width, len(who), 8), 20)
	head := fmt.Sprintf("%s %5d %s %-*s ", at.Format("15:04:05.000"), e.GetId(), mark, p.width, who)
	text = strconv.Itoa(int(e.GetCode())) + " " + text
	if severity != "" {
		text = severity + " " + text
	}
	var b strings.Builder
	t.out.hang(&b, head, text)
	_, err := fmt.Fprint(t.out, b.String()[:len(head)], t.out.paint(colour, strings.TrimSuffix(b.String()[len(head):], "\n")), "\n")
	return err
}
