package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"gemel/internal/manifest"
)

const (
	aPrefix        = "an IP address with the length of its network, as 192.0.2.10/24 or 2001:db8::10/64"
	maxDevice      = 15 // bytes of the name of a network device, by Linux
	minutesOfAnDay = 24 * 60
)

// addressKind is an address with the length of its network, or a map that says
// the device as well.
func addressKind() kind[manifest.Address] {
	type A = manifest.Address
	prefix := scalarKind(aPrefix, func(t *tree) (netip.Prefix, string, bool) { return parsePrefix(t.text) },
		func(p netip.Prefix) *tree { return word(p.String()) }, schema{"type": "string", "pattern": "/[0-9]+$"})
	o := object[A]{fresh: func() A { return A{} }, fields: []field[A]{
		at("address", prefix, func(a *A) *netip.Prefix { return &a.Prefix }, "The address with the length of its network.").must(),
		at("device", deviceKind(), func(a *A) *string { return &a.Device }, "The network device that gets it."),
	}}
	return kind[A]{
		read: func(r *reader, path string, n *tree) (A, bool) {
			v := o.fresh()
			switch n.kind {
			case treeMap:
				ok := o.fill(r, path, n, &v)
				return v, ok
			case treeScalar:
				p, ok := prefix.read(r, path, n)
				return A{Prefix: p}, ok
			}
			r.wrong(path, n, aPrefix, "to name the device: {address: 192.0.2.10/24, device: eth0}")
			return v, false
		},
		write: func(a A) *tree {
			if a.Device == "" {
				return prefix.write(a.Prefix)
			}
			return o.tree(&a)
		},
		schema: schema{"oneOf": []schema{prefix.schema, o.describe()}},
	}
}

// parsePrefix reads an address that one node can have, with its length.
func parsePrefix(s string) (netip.Prefix, string, bool) {
	none := netip.Prefix{}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			if a.Is4() {
				return none, "add the length, as " + s + "/24", false
			}
			return none, "add the length, as " + s + "/64", false
		} else if err == nil {
			return none, "the device is a key of its own: {address: " + a.WithZone("").String() + "/64, device: " + a.Zone() + "}", false
		}
		return none, "", false
	}
	a := p.Addr()
	if hint, ok := unicast(a); !ok {
		return none, hint, false
	}
	switch host := a.BitLen() - p.Bits(); {
	case p.Bits() == 0:
		return none, "a network of length 0 is everything: write the length of the network that the address is in", false
	case host > 1 && a == p.Masked().Addr():
		return none, clip(s) + " is a network and no address in it", false
	case host > 1 && a.Is4() && a == broadcast(p):
		return none, clip(s) + " is the broadcast address of its network", false
	}
	return p, "", true
}

// unicast reports whether an address can be that of one machine for others.
func unicast(a netip.Addr) (hint string, ok bool) {
	switch {
	case a.Is4In6():
		return "write it as IPv4: " + a.Unmap().String(), false
	case a.IsUnspecified():
		return "that is no address but the absence of one", false
	case a.IsLoopback():
		return "an address of the loopback is seen by nobody else", false
	case a.IsMulticast():
		return "a multicast address belongs to nobody", false
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "that is the broadcast address", false
	case a.Is4() && a.As4()[0] == 0:
		return "addresses that begin with 0 belong to nobody", false
	}
	return "", true
}

func broadcast(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// deviceKind is the name of a network device.
func deviceKind() kind[string] {
	return textKind[string]("the name of a network device, as eth0", schema{"type": "string", "maxLength": maxDevice}, func(s string) (string, bool) {
		if len(s) > maxDevice {
			return fmt.Sprintf("Linux has at most %d bytes for it", maxDevice), false
		}
		return "", s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n") && strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
	})
}

// amountsKind is a map from resources to amounts.
func amountsKind(least int64) kind[[]manifest.Amount] {
	const most = 1 << 50
	const what = "a map from names of resources to amounts, such as {memory: 4GiB, licences: 1}"
	value := scalarKind(fmt.Sprintf("a whole number or a size from %d to %s, such as 2 or 4GiB", least, sizeText(most)), func(t *tree) (int64, string, bool) {
		n, hint, ok := parseSize(t.text)
		return n, hint, ok && n >= least && n <= most
	}, amountTree, schema{"oneOf": []schema{{"type": "integer", "minimum": least}, {"type": "string", "pattern": sizePattern}}})
	return kind[[]manifest.Amount]{
		read: func(r *reader, path string, n *tree) ([]manifest.Amount, bool) {
			if n.kind != treeMap {
				r.wrong(path, n, what, "")
				return nil, false
			}
			before := len(r.errs)
			var out []manifest.Amount
			for _, p := range n.pairs {
				below := sub(path, p.key)
				r.spots[below] = p.value.at
				if !nameShape(p.key) {
					r.add(p.at, Error{Path: path, Found: p.key, Text: "found " + quoted(p.key) + " as the name of a resource; allowed: letters, digits, point, hyphen and underscore, up to 64"})
					continue
				}
				if p.value.kind == treeNull {
					p.value.at = p.at
				}
				if v, ok := value.read(r, below, p.value); ok {
					out = append(out, manifest.Amount{Resource: p.key, Value: v})
				}
			}
			slices.SortFunc(out, func(a, b manifest.Amount) int { return cmp.Compare(a.Resource, b.Resource) })
			return out, len(r.errs) == before
		},
		write: func(all []manifest.Amount) *tree {
			t := &tree{kind: treeMap}
			for _, a := range all {
				t.put(a.Resource, amountTree(a.Value))
			}
			return t
		},
		schema: schema{"type": "object", "propertyNames": schema{"pattern": namePattern}, "additionalProperties": value.schema},
	}
}

// amountTree writes an amount, from a million on by the unit that makes it shortest.
func amountTree(n int64) *tree {
	best := strconv.FormatInt(n, 10)
	for _, u := range sizeUnits() {
		if text := strconv.FormatInt(n/u.unit, 10) + u.name; n >= 1_000_000 && n%u.unit == 0 && len(text) < len(best) {
			best = text
		}
	}
	return plain(best)
}

func dayWords() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

// windowKind is a time of day, with days of the week before it or not.
func windowKind() kind[manifest.Window] {
	return scalarKind(`a time of day, such as "02:00-04:00", "sat,sun 00:00-06:00" or "mon-fri 22:00-02:00"`,
		func(t *tree) (manifest.Window, string, bool) { return parseWindow(t.text) },
		func(w manifest.Window) *tree { return word(windowText(w)) },
		schema{"type": "string", "pattern": `^([a-z,-]+ )?[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}$`})
}

func parseWindow(s string) (w manifest.Window, hint string, ok bool) {
	days, times, both := strings.Cut(s, " ")
	if !both {
		if _, hint, ok := parseDays(s); ok {
			return w, `the hours are missing; where a comma stands between days the whole window is in quotes, as "` + s + `,sun 02:00-04:00"`, false
		} else if hint != "" {
			return w, hint, false
		}
		days, times = "", s
	}
	if days != "" {
		if w.Days, _, ok = parseDays(days); !ok {
			return w, daysHint(), false
		}
	}
	from, to, _ := strings.Cut(times, "-")
	var ok1, ok2 bool
	w.From, ok1 = parseClock(from)
	w.To, ok2 = parseClock(to)
	switch {
	case !ok1 || !ok2:
		return w, "hours and minutes have two digits each, from 00:00 to 24:00", false
	case w.From == minutesOfAnDay || w.To == 0:
		return w, "a window begins at 23:59 at the latest, and one that ends at midnight ends at 24:00", false
	case w.From == w.To:
		return w, "it begins and ends at one time; the whole day is 00:00-24:00", false
	}
	return w, "", true
}

func daysHint() string { return "days are written " + anyOf(dayWords()) }

// parseDays reads days and ranges of days, as mon-wed,sat. All days are none.
func parseDays(s string) (days uint8, hint string, ok bool) {
	words := dayWords()
	number := func(w string) int { return slices.Index(words, w) }
	for _, part := range strings.Split(s, ",") {
		first, last, span := strings.Cut(part, "-")
		if !span {
			last = first
		}
		a, b := number(first), number(last)
		if a < 0 || b < 0 {
			low := strings.ToLower(part)
			if len(low) > 3 && number(low[:3]) >= 0 || low != part && number(low) >= 0 {
				return 0, daysHint(), false
			}
			return 0, "", false
		}
		for d := a; ; d = (d + 1) % 7 {
			days |= 1 << d
			if d == b {
				break
			}
		}
	}
	if days == 1<<7-1 {
		days = 0
	}
	return days, "", true
}

func parseClock(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	h, err1 := strconv.ParseUint(s[:2], 10, 8)
	m, err2 := strconv.ParseUint(s[3:], 10, 8)
	return int(h*60 + m), err1 == nil && err2 == nil && m < 60 && h*60+m <= minutesOfAnDay
}

// windowText writes a window in its shortest form; the week begins on Monday.
func windowText(w manifest.Window) string {
	words, days := dayWords(), ""
	for i := 0; i < 7; {
		day := func(i int) time.Weekday { return time.Weekday((i + 1) % 7) }
		if w.Days&(1<<day(i)) == 0 {
			i++
			continue
		}
		n := i
		for n+1 < 7 && w.Days&(1<<day(n+1)) != 0 {
			n++
		}
		switch text := words[day(i)]; {
		case n > i+1:
			days += "," + text + "-" + words[day(n)]
		case n > i:
			days += "," + text + "," + words[day(n)]
		default:
			days += "," + text
		}
		i = n + 1
	}
	text := fmt.Sprintf("%02d:%02d-%02d:%02d", w.From/60, w.From%60, w.To/60, w.To%60)
	if days != "" {
		text = days[1:] + " " + text
	}
	return text
}

// targetKind is something to be reached.
func targetKind() kind[manifest.Target] {
	return scalarKind("a name or an address, with a port or without, such as 192.0.2.1, db.example.org:5432 or [2001:db8::1]:443",
		func(t *tree) (manifest.Target, string, bool) { return parseTarget(t.text) },
		func(t manifest.Target) *tree { return word(t.String()) },
		schema{"type": "string"})
}

func parseTarget(s string) (manifest.Target, string, bool) {
	var t manifest.Target
	if a, err := netip.ParseAddr(s); err == nil {
		hint, ok := targetAddr(a)
		return manifest.Target{Host: a.String()}, hint, ok
	}
	t.Host = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		if strings.Contains(s, "://") {
			return t, "write the host and the port alone, as example.org:443", false
		}
		if hint, ok := dialRule(s); !ok {
			return t, hint, false
		}
		t.Host = strings.Trim(s[:i], "[]")
		t.Port, _ = strconv.Atoi(s[i+1:]) // dialRule saw it
	}
	if a, err := netip.ParseAddr(t.Host); err == nil {
		t.Host = a.String()
		hint, ok := targetAddr(a)
		return t, hint, ok
	}
	last := t.Host[strings.LastIndexByte(strings.TrimSuffix(t.Host, "."), '.')+1:]
	switch {
	case !hostRule(t.Host):
		return t, "", false
	case strings.Trim(last, "0123456789.") == "":
		return t, "no name ends in a number, and it is no address", false
	case t.Host == "localhost" || strings.HasPrefix(t.Host, "localhost."):
		return t, "a node always reaches itself", false
	}
	return t, "", true
}

func targetAddr(a netip.Addr) (string, bool) {
	if a.Zone() != "" {
		return "an address with a zone means something else on each node", false
	}
	if a.IsLoopback() {
		return "a node always reaches itself", false
	}
	return unicast(a)
}

// agentKind is the name of an OCF resource agent; its value is provider:type.
func agentKind() kind[string] {
	return scalarKind("an OCF resource agent, as ocf:heartbeat:IPaddr2", func(t *tree) (string, string, bool) {
		parts := strings.Split(t.text, ":")
		plain := func(s string) bool { return nameShape(s) }
		switch {
		case len(parts) == 3 && parts[0] == "ocf" && plain(parts[1]) && plain(parts[2]):
			return parts[1] + ":" + parts[2], "", true
		case len(parts) == 2 && parts[0] == "systemd" && plain(parts[1]):
			return "", "a systemd unit is a process with attach: {unit: " + strings.TrimSuffix(parts[1], ".service") + ".service}", false
		case len(parts) == 2 && parts[0] != "lsb" && plain(parts[0]) && plain(parts[1]):
			return "", "write ocf:" + t.text, false
		case len(parts) == 1 && plain(t.text):
			return "", "write ocf:heartbeat:" + t.text, false
		}
		return "", "", false
	}, func(s string) *tree { return word("ocf:" + s) }, schema{"type": "string", "pattern": "^ocf:[^:]+:[^:]+$"})
}
