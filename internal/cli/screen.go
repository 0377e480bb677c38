package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// colours reports whether the output is a terminal that wants colours.
func colours(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// width is the terminal's, or 0 if the output is none: then nothing is cut.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(ws.Col)
}

// The colours have a meaning: green is well, yellow passes, red needs somebody.
const (
	plain  = ""
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	faint  = "\x1b[2m"
	bold   = "\x1b[1m"
)

func (t *tool) paint(colour, s string) string {
	if !t.colour || colour == plain || s == "" {
		return s
	}
	return colour + s + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text   string
	colour string
	right  bool
}

// table prints rows with columns as wide as they need. The last column is cut at
// the terminal's edge, and never when the output goes into a file.
func (t *tool) table(head []string, rows [][]cell) {
	widths := make([]int, len(head))
	for i, h := range head {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, r := range rows {
		for i, c := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	most := width(t.w.Out)
	line := func(r []cell) {
		var b strings.Builder
		at := 0
		for i, c := range r {
			text := c.text
			last := i == len(r)-1
			if last && most > 0 && at+utf8.RuneCountInString(text) > most {
				text = cut(text, most-at)
			}
			pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0))
			switch {
			case c.right:
				b.WriteString(pad + t.paint(c.colour, text))
			case last:
				b.WriteString(t.paint(c.colour, text))
			default:
				b.WriteString(t.paint(c.colour, text) + pad)
			}
			if !last {
				b.WriteString("  ")
			}
			at += widths[i] + 2
		}
		fmt.Fprintln(t.w.Out, strings.TrimRight(b.String(), " "))
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
	if n <= 1 {
		return ""
	}
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + ">"
}

// clean makes text of a program safe for a terminal: control characters are
// shown, not obeyed.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return '?'
	}, s)
}

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
