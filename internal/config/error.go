package config

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	maxErrors = 200    // told about a file that is wrong everywhere
	maxKept   = 10_000 // kept until they are in order
)

// excerptWidth is the widest piece of a source line that is shown.
const excerptWidth = 100

// An Error is one thing that is wrong with a manifest.
type Error struct {
	File         string
	Line, Column int    // counted from 1, in characters; zero if it is no place in the file
	Path         string // as processes.nginx.stop.grace; empty: the file as a whole
	Found        string // what is there; may be empty
	Allowed      string // what may be there; may be empty
	Hint         string // what to do; may be empty
	Text         string // one sentence that holds Found and Allowed
	Source       string // the line of the file; empty if there is none
}

// Error prints "FILE:LINE:COL: PATH: TEXT", the source line with a caret under
// the column, and the hint.
func (e Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Text)
	if e.Line > 0 && e.Source != "" {
		text, pad := excerpt(e.Source, e.Column)
		fmt.Fprintf(&b, "\n  %4d | %s\n       | %s^", e.Line, text, pad)
	}
	if e.Hint != "" {
		b.WriteString("\n  hint: " + e.Hint)
	}
	return b.String()
}

// excerpt returns the part of line around column that is worth showing, and the
// white space that stands before the caret below it.
func excerpt(line string, column int) (text, pad string) {
	runes := []rune(strings.TrimRight(line, " \t"))
	at := min(max(column-1, 0), len(runes))
	from := 0
	if len(runes) > excerptWidth {
		from = max(0, min(at-excerptWidth/2, len(runes)-excerptWidth))
		runes = runes[from:min(from+excerptWidth, len(runes))]
	}
	var t, p strings.Builder
	for i, r := range runes {
		if r < ' ' && r != '\t' || r == utf8.RuneError || r == 0x7f {
			r = '?'
		}
		t.WriteRune(r)
		if i < at-from {
			if r != '\t' {
				r = ' '
			}
			p.WriteRune(r)
		}
	}
	return t.String(), p.String()
}

// Errors is everything that is wrong with a manifest, in the order of the file.
type Errors []Error

// Error prints all errors, one after the other.
func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i := range e {
		parts[i] = e[i].Error()
	}
	return strings.Join(parts, "\n")
}

// sorted brings the errors into the order of the file and cuts them to a number
// that somebody may read.
func (e Errors) sorted() Errors {
	sort.SliceStable(e, func(i, j int) bool {
		if e[i].Line != e[j].Line {
			return e[i].Line < e[j].Line
		}
		return e[i].Column < e[j].Column
	})
	if len(e) <= maxErrors {
		return e
	}
	more := len(e) - maxErrors
	cut := append(Errors{}, e[:maxErrors]...)
	return append(cut, Error{
		File: e[0].File,
		Text: fmt.Sprintf("and %d more errors", more),
		Hint: "repair the first ones: the others often follow from them",
	})
}
