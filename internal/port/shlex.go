package port

import (
	"errors"
	"strings"
)

// splitShell splits a command as supervisord does: POSIX quoting without any
// expansion. Blanks separate; single quotes keep everything; double quotes keep
// everything but a backslash before a backslash or a double quote; elsewhere a
// backslash keeps the next character. # has no meaning.
func splitShell(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord := false
	quote := rune(0)
	escaped := false
	for _, c := range s {
		switch {
		case escaped:
			if quote == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0:
			if c == quote {
				quote = 0
			} else {
				word.WriteRune(c)
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	switch {
	case quote != 0:
		return nil, errors.New("a quotation mark is not closed")
	case escaped:
		return nil, errors.New("nothing follows the last backslash")
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}

// splitPairs reads supervisord's environment: KEY=value,KEY2="a value,with commas".
func splitPairs(s string) (map[string]string, error) {
	out := map[string]string{}
	rest := strings.TrimSpace(s)
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t\n,\"'") {
			return nil, errors.New("it is not of the form KEY=value,KEY=value")
		}
		value, left, err := pairValue(strings.TrimLeft(after, " \t\n"))
		if err != nil {
			return nil, err
		}
		out[key] = value
		rest = strings.TrimSpace(left)
	}
	return out, nil
}

// pairValue takes one value, quoted or up to the next comma, and what follows.
func pairValue(s string) (value, rest string, err error) {
	if s != "" && (s[0] == '"' || s[0] == '\'') {
		end := strings.IndexByte(s[1:], s[0])
		if end < 0 {
			return "", "", errors.New("a quotation mark is not closed")
		}
		value, rest = s[1:1+end], strings.TrimLeft(s[2+end:], " \t\n")
		if rest == "" {
			return value, "", nil
		}
		if rest[0] != ',' {
			return "", "", errors.New("a comma is missing after a quoted value")
		}
		return value, rest[1:], nil
	}
	value, rest, _ = strings.Cut(s, ",")
	return strings.TrimSpace(value), rest, nil
}
