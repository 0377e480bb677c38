package port

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxFile bounds what is read: no configuration of this kind comes near it.
const maxFile = 4 << 20

// A section is one [name] of an ini file with its keys.
type section struct {
	name string
	line int
	keys []entry
}

// An entry is one key and its value; line is where it begins.
type entry struct {
	key, value string // the key as it is written
	line       int
	used       bool
}

// dialect is what two ini files differ in.
type dialect struct {
	inlineComment string // characters that begin a comment after a blank
	continued     bool   // a line that begins with a blank goes on with the value before
	merge         bool   // a section or key that comes again adds to, or replaces, the first
	colon         bool   // a colon may stand for the equals sign
}

// parseINI splits a file into sections. Case does not matter in keys.
func parseINI(file string, b []byte, d dialect, n *notes) ([]*section, error) {
	switch {
	case len(b) > maxFile:
		return nil, fmt.Errorf("%s: it has %d bytes; at most %d are read", file, len(b), maxFile)
	case bytes.IndexByte(b, 0) >= 0:
		return nil, fmt.Errorf("%s: it has bytes of value zero: it is not a text file", file)
	case !utf8.Valid(b):
		n.add(0, "the file is not UTF-8; what is not is shown as a question mark")
		b = bytes.ToValidUTF8(b, []byte("?"))
	}
	p := &iniParser{dialect: d, notes: n}
	for i, line := range strings.Split(strings.TrimPrefix(string(b), "\ufeff"), "\n") {
		p.line(i+1, strings.TrimRight(line, "\r"))
	}
	if len(p.sections) == 0 {
		return nil, fmt.Errorf("%s: %w", file, errors.New("there is no [section] in it"))
	}
	return p.sections, nil
}

type iniParser struct {
	dialect
	notes    *notes
	sections []*section
	now      *section
	skipping bool   // within a section that is left out
	last     *entry // for a line that goes on
}

func (p *iniParser) line(number int, text string) {
	trimmed := strings.TrimSpace(text)
	if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
		return
	}
	if p.continued && p.last != nil && (text[0] == ' ' || text[0] == '\t') {
		p.last.value += "\n" + p.uncomment(trimmed)
		return
	}
	p.last = nil
	if trimmed[0] == '[' {
		p.header(number, trimmed)
		return
	}
	sep := "="
	if p.colon {
		sep = "=:"
	}
	i := strings.IndexAny(trimmed, sep)
	switch {
	case p.skipping:
	case i <= 0:
		p.notes.add(number, "%q is neither a [section] nor a key with a value; left out", clip(trimmed))
	case p.now == nil:
		p.notes.add(number, "%q stands before the first [section]; left out", clip(trimmed))
	default:
		p.add(entry{key: strings.TrimSpace(trimmed[:i]), value: p.uncomment(strings.TrimSpace(trimmed[i+1:])), line: number})
	}
}

func (p *iniParser) header(number int, text string) {
	p.skipping = true
	end := strings.LastIndexByte(text, ']')
	if before, _, ok := strings.Cut(text, " ;"); ok { // a comment may hold a bracket
		end = strings.LastIndexByte(before, ']')
	}
	if end < 0 {
		p.notes.add(number, "%q has no closing bracket; the section is left out", clip(text))
		return
	}
	name := strings.TrimSpace(text[1:end])
	for _, s := range p.sections {
		if strings.EqualFold(s.name, name) {
			if p.merge {
				p.now, p.skipping = s, false
			} else {
				p.notes.add(number, "the section [%s] stands in line %d already; this one is left out", clip(name), s.line)
			}
			return
		}
	}
	p.now, p.skipping = &section{name: name, line: number}, false
	p.sections = append(p.sections, p.now)
}

func (p *iniParser) add(e entry) {
	for i := range p.now.keys {
		if old := &p.now.keys[i]; strings.EqualFold(old.key, e.key) {
			p.notes.add(e.line, "%s stands in line %d already; this one counts", e.key, old.line)
			*old = e
			p.last = old
			return
		}
	}
	p.now.keys = append(p.now.keys, e)
	p.last = &p.now.keys[len(p.now.keys)-1]
}

// uncomment cuts a comment that follows a blank.
func (p *iniParser) uncomment(s string) string {
	for i := 1; i < len(s); i++ {
		if strings.IndexByte(p.inlineComment, s[i]) >= 0 && (s[i-1] == ' ' || s[i-1] == '\t') {
			return strings.TrimSpace(s[:i])
		}
	}
	if s != "" && strings.IndexByte(p.inlineComment, s[0]) >= 0 {
		return ""
	}
	return s
}

// take returns the entry of a key and marks it as understood.
func (s *section) take(key string) (entry, bool) {
	for i := range s.keys {
		if strings.EqualFold(s.keys[i].key, key) {
			s.keys[i].used = true
			return s.keys[i], true
		}
	}
	return entry{line: s.line}, false
}

// rest notes every key that nobody took.
func (s *section) rest(n *notes) {
	for _, e := range s.keys {
		if !e.used {
			n.add(e.line, "%s is not a key of [%s] that is known; left out", clip(e.key), clip(s.name))
		}
	}
}

// clip shortens a text of the file for a note.
func clip(s string) string {
	s = strings.ReplaceAll(s, "\n", " ")
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}
