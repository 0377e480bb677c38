package rpc

import (
	"fmt"
	"slices"
	"strings"
)

const (
	around    = 3       // lines shown around a difference
	mostPairs = 4 << 20 // pairs of lines that are compared; beyond that the middle is one difference
)

// edit is one line of a difference: ' ' is in both, '-' only in the first, '+'
// only in the second text.
type edit struct {
	sign byte
	line string
}

// unified returns the difference of two texts in the form of diff -u; empty if
// they are the same.
func unified(a, b string) string {
	if a == b {
		return ""
	}
	var out strings.Builder
	out.WriteString("--- in force\n+++ given\n")
	all := edits(lines(a), lines(b))
	fromA, fromB := 1, 1 // line numbers at all[i]
	for i := 0; i < len(all); {
		if all[i].sign == ' ' && !near(all, i) {
			i, fromA, fromB = i+1, fromA+1, fromB+1
			continue
		}
		end := i
		for end < len(all) && (all[end].sign != ' ' || near(all, end)) {
			end++
		}
		var text strings.Builder
		inA, inB := 0, 0
		for _, e := range all[i:end] {
			text.WriteByte(e.sign)
			text.WriteString(e.line)
			text.WriteByte('\n')
			if e.sign != '+' {
				inA++
			}
			if e.sign != '-' {
				inB++
			}
		}
		fmt.Fprintf(&out, "@@ -%d,%d +%d,%d @@\n%s", begins(fromA, inA), inA, begins(fromB, inB), inB, text.String())
		i, fromA, fromB = end, fromA+inA, fromB+inB
	}
	return out.String()
}

// begins is the number that stands for a piece: the line before it if it is empty.
func begins(line, count int) int {
	if count == 0 {
		return line - 1
	}
	return line
}

// near reports whether a difference is close enough to line i to show it.
func near(all []edit, i int) bool {
	return slices.ContainsFunc(all[max(0, i-around):min(len(all), i+around+1)], func(e edit) bool { return e.sign != ' ' })
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// edits is the shortest way from a to b, by lines.
func edits(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, edit{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	slices.Reverse(tail)
	if len(a)*len(b) > mostPairs {
		for _, l := range a {
			head = append(head, edit{'-', l})
		}
		for _, l := range b {
			head = append(head, edit{'+', l})
		}
		return append(head, tail...)
	}
	return slices.Concat(head, shortest(a, b), tail)
}

// shortest walks the table of the longest common subsequences of the ends.
func shortest(a, b []string) []edit {
	width := len(b) + 1
	common := make([]int32, (len(a)+1)*width)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i*width+j] = common[(i+1)*width+j+1] + 1
			} else {
				common[i*width+j] = max(common[(i+1)*width+j], common[i*width+j+1])
			}
		}
	}
	var out []edit
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[(i+1)*width+j] >= common[i*width+j+1]:
			out = append(out, edit{'-', a[i]})
			i++
		default:
			out = append(out, edit{'+', b[j]})
			j++
		}
	}
	return out
}
