package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gemel/internal/ha"
)

const (
	namePattern     = `^[A-Za-z0-9_][A-Za-z0-9_-]*([.][A-Za-z0-9_-]+)*$`
	durationPattern = `^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$`
	sizePattern     = `^[0-9]+(B|k|M|G|T|KiB|MiB|GiB|TiB)?$`
	maxName         = 64
	maxWord         = 4096 // bytes of a path, an address or a name of a user
	maxArgument     = 128<<10 - 1
)

// goodName checks the name of a process, check, group, file set or node. Names
// become names of files and cgroups.
func goodName(s, what string) (text, hint string, ok bool) {
	allowed := "letters, digits, point, hyphen and underscore, up to 64, not beginning with a point or a hyphen, without two points in a row or at the end"
	text = fmt.Sprintf("found %s as the name of a %s; allowed: %s", quoted(s), what, allowed)
	if !nameShape(s) {
		return text, "", false
	}
	if s == "shadow" || s == "monitor" || s == "node" {
		return fmt.Sprintf("the name %s is Gemel's own; allowed: any other name", quoted(s)),
			"the pair and the node are always watched and have a ladder of their own, which cannot be none", false
	}
	return "", "", true
}

// nameShape reports whether a text has the form of a name.
func nameShape(s string) bool {
	if s == "" || len(s) > maxName || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") ||
		strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return false
	}
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-", c) {
			return false
		}
	}
	return true
}

// nameKind is a reference to something by its name.
func nameKind[V ~string](what string) kind[V] {
	return textKind[V]("the name of a "+what, schema{"type": "string", "pattern": namePattern, "maxLength": maxName},
		func(s string) (string, bool) {
			_, hint, ok := goodName(s, what)
			return hint, ok
		})
}

// nameList is a list of references, each once.
func nameList[V ~string](what string) kind[[]V] {
	return listKind("names", nameKind[V](what), listing{unique: true})
}

// durationKind is a time such as 1h30m, in a range.
func durationKind(least, most time.Duration) kind[time.Duration] {
	return scalarKind(fmt.Sprintf("a duration from %s to %s, such as 500ms, 90s, 15m or 1h30m", durationText(least), durationText(most)),
		func(t *tree) (time.Duration, string, bool) {
			d, hint, ok := parseDuration(t.text)
			return d, hint, ok && d >= least && d <= most
		},
		func(d time.Duration) *tree { return word(durationText(d)) },
		schema{"type": "string", "minLength": 2, "pattern": durationPattern})
}

// parseDuration reads whole numbers with the units h, m, s and ms, each once and
// in this order.
func parseDuration(s string) (d time.Duration, hint string, ok bool) {
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Sprintf("a number needs a unit: %ss for seconds, %sms for milliseconds", clip(s), clip(s)), false
	}
	rest, units := s, []struct {
		name string
		unit time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}
	for rest != "" {
		i := 0
		for i < len(rest) && rest[i] >= '0' && rest[i] <= '9' {
			i++
		}
		n, err := strconv.ParseInt(rest[:i], 10, 32)
		j := i
		for j < len(rest) && rest[j] >= 'a' && rest[j] <= 'z' {
			j++
		}
		found := false
		for k, u := range units {
			if err == nil && u.name == rest[i:j] {
				d += time.Duration(n) * u.unit
				units, rest, found = units[k+1:], rest[j:], true
				break
			}
		}
		if !found {
			return 0, durationHint(s), false
		}
	}
	return d, "", s != ""
}

// durationHint writes a duration of Go or of people in the form that is allowed.
func durationHint(s string) string {
	if d, err := time.ParseDuration(strings.ReplaceAll(s, " ", "")); err == nil && d >= time.Millisecond {
		return "write " + durationText(d)
	}
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 100_000 {
		return ""
	}
	switch strings.TrimSuffix(strings.TrimSpace(s[len(digits):]), "s") {
	case "sec", "second":
		return fmt.Sprintf("write %ds", n)
	case "min", "minute":
		return fmt.Sprintf("write %dm", n)
	case "hour":
		return fmt.Sprintf("write %dh", n)
	case "d", "day":
		return fmt.Sprintf("write %dh", n*24)
	case "w", "week":
		return fmt.Sprintf("write %dh", n*24*7)
	}
	return ""
}

// durationText prints a duration in the form that is read.
func durationText(d time.Duration) string {
	var b strings.Builder
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// sizeUnit is a unit of bytes.
type sizeUnit struct {
	name string
	unit int64
}

func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
		{"T", 1e12}, {"G", 1e9}, {"M", 1e6}, {"k", 1e3}, {"B", 1}, {"", 1},
	}
}

// sizeKind is a number of bytes in a range.
func sizeKind(least, most int64) kind[int64] {
	return scalarKind(fmt.Sprintf("a size from %s to %s, such as 64KiB, 512MiB or 2GiB", sizeText(least), sizeText(most)),
		func(t *tree) (int64, string, bool) {
			n, hint, ok := parseSize(t.text)
			if ok && n < least && strings.Trim(t.text, "0123456789") == "" && n > 0 {
				hint = fmt.Sprintf("a number is bytes; write %dMiB, or the unit that is meant", n)
			}
			return n, hint, ok && n >= least && n <= most
		},
		func(n int64) *tree { return sizeTree(n) },
		schema{"oneOf": []schema{{"type": "integer", "minimum": least, "maximum": most}, {"type": "string", "pattern": sizePattern}}})
}

// parseSize reads bytes: a whole number and a unit. K is refused, because half of
// the world takes it for 1000.
func parseSize(s string) (n int64, hint string, ok bool) {
	digits := strings.TrimRight(s, "BkKMGTibmg")
	unit := s[len(digits):]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || strings.HasPrefix(digits, "+") {
		if strings.Contains(s, ".") {
			return 0, "write it without a point, in the next smaller unit", false
		}
		return 0, "", false
	}
	for _, u := range sizeUnits() {
		if u.name != unit {
			continue
		}
		if n > (1<<62)/u.unit {
			return 0, "", false
		}
		return n * u.unit, "", true
	}
	for _, u := range sizeUnits() {
		if u.name != "" && strings.EqualFold(u.name[:1], unit[:1]) && unit[0] != 'b' {
			return 0, fmt.Sprintf("write %s%s, or %s%s for 1000s", digits, strings.ToUpper(unit[:1])+"iB", digits, sizeDecimal(unit)), false
		}
	}
	return 0, "", false
}

func sizeDecimal(unit string) string {
	if u := strings.ToUpper(unit[:1]); u != "K" {
		return u
	}
	return "k"
}

// sizeText prints bytes with the largest unit of 1024s that leaves no rest.
func sizeText(n int64) string {
	for _, u := range sizeUnits()[:4] {
		if n >= u.unit && n%u.unit == 0 {
			return strconv.FormatInt(n/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

func sizeTree(n int64) *tree {
	t := sizeText(n)
	if t[len(t)-1] == 'B' {
		return word(t)
	}
	return plain(t)
}

// modeKind is a umask in octal, in quotes or not.
func modeKind() kind[int] {
	return scalarKind("three or four octal digits up to 0777, as 0022", func(t *tree) (int, string, bool) {
		n, err := strconv.ParseUint(t.text, 8, 16)
		if err != nil || n > 0o777 || len(t.text) < 3 || len(t.text) > 4 {
			if err == nil && len(t.text) < 3 {
				return 0, fmt.Sprintf("write %04o", n), false
			}
			return 0, "", false
		}
		return int(n), "", true
	}, func(n int) *tree { return plain(fmt.Sprintf("%04o", n)) },
		schema{"type": []string{"integer", "string"}})
}

// signalKind is a signal by name or number.
func signalKind() kind[int] {
	return scalarKind("a signal by name or number, as TERM, HUP or 15", func(t *tree) (int, string, bool) {
		n, ok := ha.SignalNumber(t.text)
		if !ok {
			return 0, didYouMean(strings.TrimPrefix(strings.ToUpper(t.text), "SIG"), signalWords()), false
		}
		return n, "", true
	}, func(n int) *tree { return word(strings.TrimPrefix(ha.SignalName(n), "SIG")) },
		schema{"type": []string{"string", "integer"}})
}

func signalWords() []string {
	var out []string
	for n := 1; n < 32; n++ {
		out = append(out, strings.TrimPrefix(ha.SignalName(n), "SIG"))
	}
	return out
}

// absolute is the rule for paths.
func absolute(s string) (string, bool) {
	switch {
	case strings.HasPrefix(s, "~"):
		return "the shell's ~ is not known here: write the whole path", false
	case !strings.HasPrefix(s, "/"):
		return "write it from the root: it begins with /", false
	}
	return "", len(s) < maxWord
}

// pathKind is the absolute path of a file or a directory.
func pathKind(what string) kind[string] {
	return textKind[string]("the absolute path of a "+what, schema{"type": "string", "pattern": "^/"}, absolute)
}

// dialKind is where to connect to. A number is a port of this machine.
func dialKind() kind[string] {
	return scalarKind("host:port, a port of this machine, or the absolute path of a socket", func(t *tree) (string, string, bool) {
		if t.plain {
			if n, err := strconv.Atoi(t.text); err == nil {
				return "127.0.0.1:" + t.text, "", n > 0 && n < 65536 && t.text[0] != '0'
			}
		}
		hint, ok := dialRule(t.text)
		return t.text, hint, ok
	}, func(s string) *tree { return word(s) },
		schema{"oneOf": []schema{{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string", "pattern": "^/|:[0-9]+$"}}})
}

func dialRule(s string) (string, bool) {
	if strings.HasPrefix(s, "/") {
		return "", !strings.ContainsRune(s, 0) && len(s) < 108
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "add the port, as " + clip(s) + ":80", false
	}
	host, port := s[:i], s[i+1:]
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || port[0] == '+' || port[0] == '0' {
		return "the port is a number from 1 to 65535", false
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		_, err := netip.ParseAddr(host[1 : len(host)-1])
		return "", err == nil
	}
	if strings.Contains(host, ":") {
		return "put an IPv6 address in brackets: [::1]:80", false
	}
	return "", hostRule(host)
}

func hostRule(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, c := range s {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", c) {
			return false
		}
	}
	return true
}

// urlKind is the address of an HTTP check.
func urlKind() kind[string] {
	return textKind[string]("a URL with http or https and a host, as http://127.0.0.1:8080/healthz",
		schema{"type": "string", "pattern": "^https?://"}, func(s string) (string, bool) {
			u, err := url.Parse(s)
			switch {
			case err != nil:
				return err.Error(), false
			case u.Scheme == "" || u.Opaque != "" || !strings.Contains(s, "://"):
				return "write http:// or https:// before it", false
			case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
				return "", false
			}
			if p := u.Port(); p != "" {
				if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
					return "the port is a number from 1 to 65535", false
				}
			}
			return "", true
		})
}

// patternKind is a regular expression.
func patternKind() kind[string] {
	return textKind[string]("a regular expression (RE2)", schema{"type": "string", "format": "regex"}, func(s string) (string, bool) {
		if _, err := regexp.Compile(s); err != nil {
			return strings.TrimPrefix(err.Error(), "error parsing regexp: "), false
		}
		return "", true
	})
}
