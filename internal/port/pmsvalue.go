package port

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
)

// number reads a whole number of a range; without the key, or with a wrong
// value, the default counts.
func (p *pms) number(s *section, key string, least, most, fallback int) int {
	e, ok := s.take(key)
	if !ok {
		return fallback
	}
	n, err := strconv.Atoi(e.value)
	if err != nil || n < least || n > most {
		p.add(e.line, "%s: found %q; allowed: %d to %d; the default %d is used", key, clip(e.value), least, most, fallback)
		return fallback
	}
	return n
}

func (p *pms) seconds(s *section, key string, least, most, fallback int) time.Duration {
	return time.Duration(p.number(s, key, least, most, fallback)) * time.Second
}

// identity reads the two keys that have no default. A section without both is
// left out, and leaves its id to another one.
func (p *pms) identity(s *section, key string, first, last int) (ha.UID, []string, bool) {
	id, ok := p.uid(s, first, last)
	argv, lineOK := p.commandLine(s, key)
	if !ok || !lineOK {
		return 0, nil, false
	}
	p.bySection[id] = s.line
	return id, argv, true
}

// uid reads UniqueID.
func (p *pms) uid(s *section, first, last int) (ha.UID, bool) {
	e, ok := s.take("UniqueID")
	n, err := strconv.Atoi(e.value)
	switch {
	case !ok:
		p.add(s.line, "UniqueID is missing and has no default; the section [%s] is left out", clip(s.name))
	case err == nil && (n == int(ha.UIDGlobal) || n == int(ha.UIDShadow) || n == int(ha.UIDMonitor)):
		p.add(s.line, "UniqueID %d is the service's own; Gemel's two halves watch each other with a ladder of their own; [%s] is left out", n, clip(s.name))
	case err != nil || n < first || n > last:
		p.add(e.line, "UniqueID: found %q; allowed: %d to %d; there is no default, so the section [%s] is left out", clip(e.value), first, last, clip(s.name))
	case p.bySection[ha.UID(n)] != 0:
		p.add(e.line, "UniqueID %d is taken by the section in line %d; the section [%s] is left out", n, p.bySection[ha.UID(n)], clip(s.name))
	default:
		return ha.UID(n), true
	}
	return 0, false
}

// commandLine reads a command line.
func (p *pms) commandLine(s *section, key string) ([]string, bool) {
	e, ok := s.take(key)
	if !ok {
		p.add(s.line, "%s is missing and has no default; the section [%s] is left out", key, clip(s.name))
		return nil, false
	}
	argv, err := splitPMS(e.value)
	if err == nil && len(argv) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		p.add(e.line, "%s: %v; there is no default, so the section [%s] is left out", key, err, clip(s.name))
		return nil, false
	}
	return argv, true
}

func (p *pms) locked(s *section) {
	if p.number(s, "AdminState", 1, 2, 1) != 2 {
		return
	}
	e, _ := s.take("AdminState")
	p.add(e.line, "AdminState 2: it was locked, which no manifest says; after the first start: gemel lock NAME")
}

func (p *pms) applicability(s *section) {
	if e, ok := s.take("ChassisApplicability"); ok {
		p.add(e.line, "ChassisApplicability %s: there is no chassis here, so it applies; remove it if it should not", clip(e.value))
	}
}

// splitPMS splits a command line at blanks. An argument with blanks is in double
// quotes.
func splitPMS(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, inQuotes := false, false
	for _, c := range s {
		switch {
		case c == '"':
			inQuotes = !inQuotes
			inWord = true
		case (c == ' ' || c == '\t') && !inQuotes:
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
	if inQuotes {
		return nil, fmt.Errorf("a quotation mark is not closed in %q", clip(s))
	}
	if inWord {
		out = append(out, word.String())
	}
	if len(out) > 0 && out[0] == "" {
		return nil, errors.New("the program is empty")
	}
	return out, nil
}

// joinPMS is the reverse of splitPMS.
func joinPMS(argv []string) string {
	quoted := slices.Clone(argv)
	for i, a := range quoted {
		if a == "" || strings.ContainsAny(a, " \t") {
			quoted[i] = `"` + a + `"`
		}
	}
	return strings.Join(quoted, " ")
}
