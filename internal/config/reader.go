package config

import (
	"fmt"
	"strconv"
	"strings"
)

// A reader walks a tree with the tables and keeps what it finds wrong. It also
// keeps where each key stands, for the errors that are only found later, and to
// know which keys were written and which have their default.
type reader struct {
	src    *source
	errs   Errors
	spots  map[string]spot
	notMap map[string]bool // paths where a map should stand and something else does
}

// add keeps an error at a place.
func (r *reader) add(at spot, e Error) {
	e.File, e.Line, e.Column = r.src.file, at.line, at.column
	e.Source = r.src.line(at.line)
	if len(r.errs) < maxKept {
		r.errs = append(r.errs, e)
	}
}

// wrong keeps that a value is not what its key may hold.
func (r *reader) wrong(path string, at *tree, allowed, hint string) {
	found := at.describe()
	r.add(at.at, Error{
		Path: path, Found: found, Allowed: allowed, Hint: hint,
		Text: "found " + found + "; allowed: " + allowed,
	})
}

// refuse keeps an error about what stands at path, or about the nearest thing
// around it that is written.
func (r *reader) refuse(path, text, hint string) {
	at := spot{}
	for p := path; ; {
		if s, ok := r.spots[p]; ok {
			at = s
			break
		}
		i := strings.LastIndexAny(p, ".[")
		if i < 0 {
			break
		}
		p = p[:i]
	}
	r.add(at, Error{Path: path, Text: text, Hint: hint})
}

// given reports whether the key at path is written in the file.
func (r *reader) given(path string) bool {
	_, ok := r.spots[path]
	return ok
}

// sub is the path of a key below path. A key that could be taken for several is
// in quotes.
func sub(path, key string) string {
	if strings.ContainsAny(key, `.[]" `) || key == "" {
		key = quoted(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// item is the path of the i-th value of a list.
func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// quoted prints a text of the file for an error, cut to what one line takes.
func quoted(s string) string {
	if r := []rune(s); len(r) > 60 {
		return strconv.Quote(string(r[:57])) + "..."
	}
	return strconv.Quote(s)
}

// clip is quoted without the quotes where nothing needs them.
func clip(s string) string {
	q := quoted(s)
	if q == `"`+s+`"` && s != "" {
		return s
	}
	return q
}

// nearest returns the word that somebody who wrote s most likely meant, or "".
func nearest(s string, words []string) string {
	best, at := "", 3
	if len(s) <= 3 {
		at = 2
	}
	if len(s) > 40 {
		return ""
	}
	s = strings.ToLower(s)
	hyphens := strings.ReplaceAll(s, "_", "-")
	for _, w := range words {
		low := strings.ToLower(w)
		if d := min(distance(s, low), distance(hyphens, low)); d < at && d < len(s) {
			best, at = w, d
		}
	}
	if best == "" && len(s) > 2 {
		for _, w := range words {
			if strings.HasPrefix(w, s) || len(w) > 2 && strings.HasPrefix(s, w) {
				return w
			}
		}
	}
	return best
}

// distance is the number of letters to change, add, remove or swap.
func distance(a, b string) int {
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur := make([]int, len(b)+1)
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev = prev, cur
	}
	return prev[len(b)]
}

// didYouMean is the hint for a word that is not one of words.
func didYouMean(s string, words []string) string {
	if w := nearest(s, words); w != "" {
		return fmt.Sprintf("did you mean %s?", w)
	}
	return ""
}

// anyOf prints "a, b or c".
func anyOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
