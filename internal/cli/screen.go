package cli

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// screen is where answers go: a terminal, or anything else. What is no terminal
// gets no colours and nothing is cut, for it may be read by a program.
type screen struct {
	w       io.Writer
	colour  bool
	columns int   // of the terminal; 0: it is none
	lines   int   // of the terminal; 0: it is none
	err     error // the first failure; nothing is written after it
}

func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	s.measure()
	_, tty := os.LookupEnv("NO_COLOR")
	s.colour = s.columns > 0 && (!tty || os.Getenv("NO_COLOR") == "") && os.Getenv("TERM") != "dumb"
	return s
}

// measure looks how large the terminal is; it may have changed since.
func (s *screen) measure() {
	f, ok := s.w.(*os.File)
	if !ok {
		return
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return
	}
	s.columns, s.lines = 80, 24
	if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
		s.columns, s.lines = int(ws.Col), int(ws.Row)
	}
}

// Write implements io.Writer. It takes everything: the failure is told once, at
// the end of the command.
func (s *screen) Write(b []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	return len(b), nil
}

// terminal reports whether somebody looks.
func (s *screen) terminal() bool { return s.columns > 0 }

// The colours have a meaning: green is well, yellow passes, red needs somebody.
const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	faint  = "\x1b[2m"
	bold   = "\x1b[1m"
)

func (s *screen) paint(colour, text string) string {
	if !s.colour || colour == plain || text == "" {
		return text
	}
	return colour + text + "\x1b[0m"
}

// draw replaces what is on the terminal by text, of which no more than fits is
// shown. Elsewhere it prints it below the last.
func (s *screen) draw(text string) {
	s.measure()
	if !s.terminal() {
		fmt.Fprintln(s, text)
		return
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) >= s.lines {
		left := len(lines) - (s.lines - 2)
		lines = append(lines[:s.lines-2], s.paint(faint, fmt.Sprintf("... %d more lines: make the terminal higher", left)))
	}
	fmt.Fprint(s, "\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J")
}

// cell is one field of a table.
type cell struct {
	text   string
	colour string
	right  bool
}

// leastLast is how much of the last column a terminal shows before the first one
// is cut.
const leastLast = 16

// table writes rows with columns as wide as they need. On a terminal the last
// column ends at its edge, and the first gives way if the others leave no room.
func (s *screen) table(w io.Writer, head []string, rows [][]cell) {
	widths := make([]int, len(head))
	for i, h := range head {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	at := 0 // where the last column begins
	for _, n := range widths[:len(widths)-1] {
		at += n + 2
	}
	last := &widths[len(widths)-1]
	if s.terminal() {
		if over := at + min(*last, leastLast) - s.columns; over > 0 {
			less := min(over, max(widths[0]-8, 0))
			widths[0] -= less
			at -= less
		}
		*last = min(*last, max(s.columns-at, 0))
	}
	line := func(r []cell) {
		var b strings.Builder
		for i, c := range r {
			text := cut(c.text, widths[i])
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(text))
			if c.right {
				b.WriteString(pad + s.paint(c.colour, text))
			} else {
				b.WriteString(s.paint(c.colour, text) + pad)
			}
			if i < len(r)-1 {
				b.WriteString("  ")
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	names := make([]cell, len(head))
	for i, h := range head {
		names[i] = cell{text: h, colour: faint, right: len(rows) > 0 && rows[0][i].right}
	}
	line(names)
	for _, r := range rows {
		line(r)
	}
}

// cut shortens s to n columns and marks it.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	if n < 2 {
		return strings.Repeat(">", max(n, 0))
	}
	return string([]rune(s)[:n-1]) + ">"
}

// wrap breaks text into lines of at most n columns, where words allow. What was
// broken already stays so.
func wrap(text string, n int) string {
	var out []string
	for _, par := range strings.Split(text, "\n") {
		line := ""
		for _, w := range strings.Fields(par) {
			switch {
			case line == "":
				line = w
			case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > n:
				out = append(out, line)
				line = w
			default:
				line += " " + w
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// hang writes text after a head, and its further lines below where it began. What
// is no terminal gets one line.
func (s *screen) hang(w io.Writer, head, text string) {
	if at := utf8.RuneCountInString(head); s.columns >= at+24 {
		first, rest, more := strings.Cut(wrap(text, s.columns-at), "\n")
		if text = first; more {
			text += "\n" + indented(rest, at)
		}
	}
	fmt.Fprintln(w, head+text)
}

func indented(text string, n int) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
}

// clean makes text of a program safe for a terminal: control characters are
// shown, not obeyed, and nothing turns the direction of the writing.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t':
			return r
		case r < ' ', r >= 0x7f && r <= 0x9f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f:
			return '?'
		}
		return r
	}, s)
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(clean(s)), "\n", " | ") }

// age prints a time span in its two largest units, as "3h12m".
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// amount prints bytes in KiB, MiB or GiB.
func amount(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n < 1<<20:
		return fmt.Sprintf("%.0fK", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1fM", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1fG", float64(n)/(1<<30))
}

// clockTime prints a wall time local with its offset.
func clockTime(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05.000-07:00") }

func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "ss"):
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// callOf finds the command lines of the tool within a sentence.
var callOf = regexp.MustCompile(`\bgemel (run|status|why|alarms|events|logs|top|get|set|lock|unlock|start|stop|restart|clear|apply|diff|manifest|evidence|replay|upgrade|detach|shutdown|whoami|init|token|leave|renew|backup|restore|move|drain|resume|confirm-off|brain)\b`)

func replaceCommands(line, with string) string {
	return callOf.ReplaceAllStringFunc(line, func(call string) string { return with + call[len("gemel "):] })
}

// quoted makes one word of a shell out of s.
func quoted(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\n'\"\\$`!*?[]{}()<>|&;#~") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
