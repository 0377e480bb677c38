package config

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxBytes bounds a manifest. A thousand programs with every key take a tenth.
const maxBytes = 4 << 20

// maxEmpty bounds empty lines in a row: the time that the YAML library takes for
// those at the end of a block of text grows with their square.
const maxEmpty = 100

// source is the text of a manifest, cut into lines for the excerpts.
type source struct {
	file  string
	what  string // that it should be, as manifest
	text  string
	lines []string
}

// line returns the n-th line, or nothing.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// newSource checks what must hold of any text before YAML is thought of. The
// ends of lines of other systems and a mark of UTF-8 are taken as they come.
func newSource(file, what string, b []byte) (*source, Errors) {
	s := &source{file: file, what: what}
	whole := func(text, hint string) (*source, Errors) {
		return s, Errors{{File: file, Text: text, Hint: hint}}
	}
	switch {
	case len(b) > maxBytes:
		return whole(fmt.Sprintf("the file has %d bytes; allowed: up to %d (4 MiB)", len(b), maxBytes),
			"check that this is the "+what+" and not some other file")
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}), bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		return whole("the file is in UTF-16; allowed: UTF-8", "save it as UTF-8, or: iconv -f UTF-16 -t UTF-8")
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	s.text = strings.ReplaceAll(string(b), "\r\n", "\n")
	s.lines = strings.Split(s.text, "\n")
	var errs Errors
	empty := 0
	for i, line := range s.lines {
		if empty++; strings.TrimSpace(line) != "" {
			empty = 0
		}
		if empty == maxEmpty+1 {
			errs = append(errs, Error{File: file, Line: i + 1, Column: 1,
				Text: fmt.Sprintf("more than %d empty lines in a row", maxEmpty), Hint: "remove some"})
		}
		if e, bad := badLine(line); bad {
			e.File, e.Line, e.Source = file, i+1, strings.ToValidUTF8(line, "?")
			if errs = append(errs, e); len(errs) == maxKept {
				break
			}
		}
	}
	return s, errs
}

// badLine finds the first character of a line that cannot stand in a manifest.
func badLine(line string) (Error, bool) {
	column, indent := 0, true
	for i := 0; i < len(line); {
		r, n := utf8.DecodeRuneInString(line[i:])
		column++
		e := Error{Column: column}
		switch {
		case r == utf8.RuneError && n == 1:
			e.Text = fmt.Sprintf("found the byte 0x%02x, which is not UTF-8", line[i])
			e.Hint = "save the file as UTF-8"
			return e, true
		case r == '\t' && indent && strings.TrimSpace(line) != "" && !strings.HasPrefix(strings.TrimSpace(line), "#"):
			e.Text = "found a tab in the indentation; allowed: spaces"
			e.Hint = "replace each tab by two spaces"
			return e, true
		case r == '\r':
			e.Text = "found a carriage return without a line feed"
			e.Hint = "end each line with a line feed"
			return e, true
		case r < ' ' && r != '\t', r >= 0x7f && r < 0xa0 && r != 0x85:
			e.Text = fmt.Sprintf("found the control character 0x%02x", r)
			e.Hint = `remove it, or write it as \x` + fmt.Sprintf("%02x", r) + " inside double quotes"
			return e, true
		case r == 0xfeff:
			e.Text = "found a byte order mark inside the file"
			e.Hint = "remove it"
			return e, true
		}
		if r != ' ' && r != '\t' {
			indent = false
		}
		i += n
	}
	return Error{}, false
}
