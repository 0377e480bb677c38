package ask

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gemel/internal/ha"
)

// columns is the width of what is printed.
const columns = 80

// Text prints an answer for people, at most 80 columns wide where words allow.
func (a Answer) Text() string {
	var b strings.Builder
	para(&b, "", a.Title+".")
	if a.State != "" {
		para(&b, "", "Now "+a.State+".")
	}
	for _, s := range a.Because {
		para(&b, "  ", s+".")
	}
	for _, m := range [...]struct{ head, text string }{
		{"It means: ", a.Means}, {"To the service: ", a.Effect}, {"To do: ", a.Do},
	} {
		if m.text != "" {
			para(&b, "", m.head+m.text)
		}
	}
	for _, k := range a.Kept {
		para(&b, "", "Evidence: "+k)
	}
	if len(a.Chain) > 0 {
		b.WriteByte('\n')
		chain(&b, a.Chain)
	}
	if len(a.After) > 0 {
		b.WriteString("\nWhat came of it:\n")
		chain(&b, a.After)
	}
	for _, n := range a.Notes {
		b.WriteByte('\n')
		para(&b, "", "Note: "+n+".")
	}
	return b.String()
}

func chain(b *strings.Builder, links []Link) {
	for _, l := range links {
		if l.Left > 0 {
			fmt.Fprintf(b, "... %d more turns like these; gemel events has them all\n", l.Left)
			continue
		}
		para(b, "", clockTime(l.Wall)+"  "+l.Fact+".")
		said := l.Fact
		for _, r := range l.Reasons {
			if slices.Contains(l.Orders, grantedWord+r.Text) {
				continue // it is said there
			}
			para(b, "    ", "because "+because(r, said))
			said += "\n" + r.Text
		}
		for _, o := range l.Orders {
			para(b, "    ", "-> "+o)
		}
	}
}

// because prints a reason: its sentence, the rule, and the facts that neither the
// sentence nor what was said before it names already. A short value may be there
// by chance and is always printed.
func because(r ha.Reason, said string) string {
	const short = 5
	said += "\n" + r.Text
	s := r.Text + " [" + r.Rule
	sep := ": "
	for _, f := range r.Facts {
		if f.Value == "" || len(f.Value) > short && strings.Contains(said, f.Value) {
			continue
		}
		s += sep + f.Name + "=" + f.Value
		sep = ", "
	}
	return s + "]"
}

// para prints one paragraph, wrapped; later lines are indented further. What
// programs had a say in may hold anything: it is made harmless for a terminal.
func para(b *strings.Builder, indent, text string) {
	at := 0
	for i, w := range strings.Fields(harmless(text)) {
		n := utf8.RuneCountInString(w)
		switch {
		case i == 0:
			b.WriteString(indent)
			at = len(indent)
		case at+1+n > columns:
			b.WriteString("\n" + indent + "  ")
			at = len(indent) + 2
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(w)
		at += n
	}
	b.WriteByte('\n')
}

func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cc, unicode.Cf) {
			return ' '
		}
		return r
	}, s)
}
