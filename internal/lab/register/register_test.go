package register

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
)

// told makes a history in which each line takes ten units of time after the one before,
// and one that a test places itself takes from and to.
func told(t *testing.T, lines string) *History {
	t.Helper()
	h := &History{}
	for i, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		from, to := ha.Instant(10*i), ha.Instant(10*i+9)
		f := strings.Fields(line)
		if b, e, ok := strings.Cut(f[0], "-"); ok {
			n, err := fmt.Sscan(b+" "+e, &from, &to)
			if n != 2 {
				t.Fatal(line, err)
			}
			f = f[1:]
		}
		node, verb := f[0], f[1]
		var all []Version
		for _, w := range f[2:] {
			var v Version
			n, id, ok := strings.Cut(w, "=")
			if _, err := fmt.Sscan(n, &v.Number); err != nil || !ok {
				t.Fatal(line, err)
			}
			v.ID = id
			all = append(all, v)
		}
		switch verb {
		case "wrote":
			h.Wrote(Write{node, from, to, Acknowledged, all[0]})
		case "refused":
			h.Wrote(Write{node, from, to, Refused, all[0]})
		case "unknown":
			h.Wrote(Write{node, from, to, Unknown, all[0]})
		case "lists":
			h.Read(Listed{node, from, to, all})
		case "has":
			h.Saw(InForce{node, from, to, all[0]})
		default:
			t.Fatal(line)
		}
	}
	return h
}

func TestJudge(t *testing.T) {
	for _, c := range []struct{ name, lines, want string }{
		{"one after the other", `
			a lists 1=begin
			a wrote 2=x
			b wrote 3=y
			a has 3=y
			b lists 1=begin 2=x 3=y`, ""},
		{"a lost acknowledged write", `
			a lists 1=begin
			a wrote 2=x
			b lists 1=begin`, `"b reads 1"`},
		{"a lost acknowledged write, and another one under its number", `
			a lists 1=begin
			a wrote 2=x
			b wrote 2=y
			b lists 1=begin 2=y`, `version 2 is "y", and a, which acknowledged it, says that it is "x"`},
		{"a lost acknowledged write that nobody reads", `
			a lists 1=begin
			a wrote 2=x
			b wrote 2=y`, `version 2 is "x", and b`},
		{"an acknowledged write that is gone after others", `
			a lists 1=begin
			a wrote 2=x
			b wrote 3=y
			b lists 1=begin 2=z 3=y`, `version 2 is "z"`},
		{"a refused write in the store", `
			a lists 1=begin
			a refused 0=x
			b lists 1=begin 2=x`, `has "x", which a had refused`},
		{"a refused write in force", `
			a lists 1=begin
			a refused 0=x
			b has 0=x`, `has "x", which a had refused`},
		{"two versions swapped", `
			a lists 1=begin
			a wrote 3=x
			b wrote 2=y
			b lists 1=begin 2=y 3=x`, "has no place"},
		{"two versions swapped, at one time", `
			a lists 1=begin
			15-29 a wrote 3=x
			20-28 b wrote 2=y
			b lists 1=begin 2=y 3=x`, ""},
		{"an old reading of the store", `
			a lists 1=begin
			a wrote 2=x
			b wrote 3=y
			w lists 1=begin 2=x`, `"w reads 2"`},
		{"a reading of the store before the write", `
			a lists 1=begin
			b lists 1=begin 2=x
			a wrote 2=x`, "has no place"},
		{"an unknown one that happened at once", `
			a lists 1=begin
			a unknown 0=x
			b wrote 3=y
			b lists 1=begin 2=x 3=y`, ""},
		{"an unknown one that happened much later", `
			a lists 1=begin
			a unknown 0=x
			b wrote 2=y
			b lists 1=begin 2=y
			b lists 1=begin 2=y 3=x`, ""},
		{"an unknown one that happened before it was begun", `
			a lists 1=begin
			b lists 1=begin 2=x
			a unknown 0=x`, "has no place"},
		{"an unknown one that did not happen", `
			a lists 1=begin
			a unknown 0=x
			b wrote 2=y
			b lists 1=begin 2=y`, ""},
		{"an unknown one that nobody saw but for its number", `
			a lists 1=begin
			a unknown 0=x
			b wrote 3=y`, ""},
		{"a number that is nobody's", `
			a lists 1=begin
			b wrote 3=y`, "version 2 is nobody's"},
		{"one that happened twice", `
			a lists 1=begin
			a unknown 0=x
			b lists 1=begin 2=x 3=x`, `"x" is version 2`},
		{"one that nobody wrote", `
			a lists 1=begin
			b lists 1=begin 2=x`, "which nobody wrote"},
		{"a gap", `
			a lists 1=begin
			a wrote 2=x
			b wrote 3=y
			b lists 1=begin 3=y`, "listed version 3 after 1"},
		{"a node that was cut off", `
			a lists 1=begin
			a wrote 2=x
			b has 1=begin
			b has 2=x
			b lists 1=begin 2=x`, ""},
		{"a node that goes back", `
			a lists 1=begin
			a wrote 2=x
			b has 2=x
			b has 1=begin`, `b had version 1 ("begin") in force, after it had in force version 2 ("x")`},
		{"a node that goes back and does not know the number", `
			a lists 1=begin
			a wrote 2=x
			b has 0=x
			b has 0=begin`, `b had version 1 ("begin") in force, after it had in force version 2 ("x")`},
		{"a node that has not what it acknowledged", `
			a lists 1=begin
			b wrote 2=x
			b has 1=begin`, `b had version 1 ("begin") in force, after it acknowledged version 2 ("x")`},
		{"a node that has what it acknowledged, or what came after", `
			a lists 1=begin
			b wrote 2=x
			a wrote 3=y
			b has 2=x
			b has 3=y`, ""},
		{"a node that says a wrong number", `
			a lists 1=begin
			b wrote 2=x
			a has 3=x`, `"x" is version 2, and a, which has it in force, says that it is 3`},
		{"a node that has what was written later", `
			a lists 1=begin
			b has 0=x
			a wrote 2=x`, "before it was written"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong, err := told(t, c.lines).Judge()
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(wrong, "\n")
			if c.want == "" && got != "" {
				t.Errorf("it is in order, and was found to be wrong: %s", got)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}

// A history as long as a campaign's, with a hundred writes of unknown outcome, is judged
// in a moment, and so is one with a single fault in its middle.
func TestLong(t *testing.T) {
	for _, broken := range []bool{false, true} {
		h := &History{}
		h.Read(Listed{"a", 0, 1, []Version{{1, "begin"}}})
		n, at := uint64(1), ha.Instant(10)
		id := func(n uint64) string { return fmt.Sprintf("w%d", n) }
		for i := range 10000 {
			out := Acknowledged
			if i%100 == 7 {
				out = Unknown
				if i%200 == 7 { // it does not happen
					h.Wrote(Write{"b", at, at + 30, Unknown, Version{ID: fmt.Sprintf("never%d", i)}})
				}
			}
			n++
			w := Write{"a", at, at + 25, out, Version{n, id(n)}} // overlaps two others
			if out == Unknown {
				w.Number = 0
			}
			h.Wrote(w)
			at += 10
			if i%3 == 0 {
				l := Listed{"b", at + 16, at + 19, nil}
				for k := max(1, int(n)-19); k <= int(n); k++ {
					v := Version{uint64(k), id(uint64(k))}
					if k == 1 {
						v.ID = "begin"
					}
					l.Versions = append(l.Versions, v)
				}
				if broken && i == 4998 {
					l.Versions = l.Versions[:len(l.Versions)-4]
				}
				h.Read(l)
				at += 30
			}
		}
		began := time.Now()
		wrong, err := h.Judge()
		if err != nil || (len(wrong) > 0) != broken {
			t.Errorf("broken: %v; found %q, %v", broken, wrong, err)
		}
		t.Logf("broken: %v; judged in %v: %q", broken, time.Since(began), wrong)
	}
}
