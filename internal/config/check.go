package config

import (
	"strings"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

const (
	checkEvery   = 10 * time.Second
	checkTimeout = 2 * time.Second
)

// A probe is an HTTP, TCP or gRPC check while it is read: the time-out may stand
// beside the address or beside `every`.
type probe[T any] struct {
	of      T
	timeout time.Duration
}

const caDoc = "The certificates that vouch for the server. Without it: those of the machine."

// checkObject is the table of the keys of a check.
func checkObject() object[manifest.Check] {
	type C = manifest.Check
	timeout := durationKind(10*time.Millisecond, time.Hour)
	return object[C]{fresh: freshCheck, fields: []field[C]{
		at("command", argvKind(), func(c *C) *[]string { return &c.Command },
			`Exit 0 is well. A printed line "accuse: NAME" names the bad process of several.`),
		probeField("http", httpFields(), func(c *C) **manifest.HTTP { return &c.HTTP }, "A request that must be answered."),
		probeField("tcp", tcpFields(), func(c *C) **manifest.TCP { return &c.TCP }, "A connection that must be made."),
		probeField("grpc", grpcFields(), func(c *C) **manifest.GRPC { return &c.GRPC }, "A question to grpc.health.v1."),
		at("user", accountKind("user"), func(c *C) *string { return &c.User }, "The user of the command. Without it: the user that Gemel runs as."),
		everyField(),
		at("once", boolKind(), func(c *C) *bool { return &c.Once }, "Only once after each start."),
		at("timeout", timeout, func(c *C) *time.Duration { return &c.Timeout }, "A run that takes longer has failed. Without it: 2s, or `every` if that is shorter.").
			unless(func(c *C) bool { return c.Timeout == defaultTimeout(c) }),
		at("failures", intKind(1, 1000), func(c *C) *int { return &c.Failures }, "Failures in a row that are a fault: the third of failures: 3. The CMM's -f N is N + 1.").
			unless(func(c *C) bool { return c.Failures == defaultFailures(c) }),
		at("covers", nameList[ha.Process]("process"), func(c *C) *[]ha.Process { return &c.Covers },
			"The processes that it judges. [] only reports.").must().unless(func(*C) bool { return false }),
		at("severity", severityKind(), func(c *C) *ha.Severity { return &c.Severity }, "The severity of the check's own events."),
		at("id", uidKind(ha.UIDCheckFirst, ha.UIDCheckLast), func(c *C) *ha.UID { return &c.UID }, "Its number on the classic surface (PmsPie)."),
	}}
}

// everyField is not written for a check that runs once: it has no interval.
func everyField() field[manifest.Check] {
	f := at("every", durationKind(10*time.Millisecond, day), func(c *manifest.Check) *time.Duration { return &c.Every }, "The time from one run to the next.")
	same := f.same
	f.same = func(a, b *manifest.Check) bool { return a.Once || same(a, b) }
	return f
}

func freshCheck() manifest.Check {
	return manifest.Check{Every: checkEvery, Timeout: checkTimeout, Failures: 3, Severity: ha.Minor}
}

// probeField is the field of one way to check.
func probeField[T any](key string, fields []field[probe[T]], of func(*manifest.Check) **T, doc string) field[manifest.Check] {
	fields = append(fields, at("timeout", durationKind(10*time.Millisecond, time.Hour),
		func(p *probe[T]) *time.Duration { return &p.timeout }, "The same as the check's own timeout."))
	o := object[probe[T]]{fresh: freshProbe[T], fields: fields}
	return field[manifest.Check]{
		key: key, doc: doc, schema: o.describe(),
		read: func(r *reader, path string, n *tree, to *manifest.Check) {
			v := o.fresh()
			if !o.fill(r, path, n, &v) {
				return
			}
			*of(to) = &v.of
			if v.timeout != 0 {
				to.Timeout = v.timeout
			}
		},
		write: func(c *manifest.Check) *tree {
			if *of(c) == nil {
				return nil
			}
			return o.tree(&probe[T]{of: **of(c)})
		},
		same: func(a, b *manifest.Check) bool { return *of(a) == nil },
	}
}

func freshProbe[T any]() probe[T] {
	var p probe[T]
	if h, ok := any(&p.of).(*manifest.HTTP); ok {
		h.Method, h.Verify = "GET", true
	}
	return p
}

func httpFields() []field[probe[manifest.HTTP]] {
	type H = probe[manifest.HTTP]
	method := textKind[string]("a method in capitals, as GET, HEAD or POST", schema{"type": "string", "pattern": "^[A-Z]+$"}, func(s string) (string, bool) {
		if strings.ToUpper(s) != s {
			return "write " + clip(strings.ToUpper(s)), false
		}
		return "", s != "" && len(s) < 20 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
	})
	return []field[H]{
		at("url", urlKind(), func(h *H) *string { return &h.of.URL }, "The address, with http or https.").must(),
		at("method", method, func(h *H) *string { return &h.of.Method }, "The method."),
		at("headers", pairsKind("the name of a header", headerRule), func(h *H) *map[string]string { return &h.of.Headers }, "Headers of the request."),
		at("status", listKind("codes", intKind(100, 599), listing{least: 1, unique: true, single: true}), func(h *H) *[]int { return &h.of.Status },
			"The answers that are well. Without it: 200 to 399."),
		at("body", patternKind(), func(h *H) *string { return &h.of.Body }, "A regular expression that the body must match."),
		at("verify", boolKind(), func(h *H) *bool { return &h.of.Verify }, "Check the certificate."),
		at("ca", pathKind("file of certificates (PEM)"), func(h *H) *string { return &h.of.CA }, caDoc),
	}
}

func headerRule(key string) (string, bool) {
	for _, c := range key {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c) {
			return "", false
		}
	}
	return "", key != ""
}

func tcpFields() []field[probe[manifest.TCP]] {
	type T = probe[manifest.TCP]
	send := scalarKind("a text", func(t *tree) (string, string, bool) { return t.text, "", true }, word, looseText())
	return []field[T]{
		at("address", dialKind(), func(t *T) *string { return &t.of.Address }, "host:port, a port of this machine, or the path of a socket.").must(),
		at("send", send, func(t *T) *string { return &t.of.Send }, `What is sent first, as "PING\r\n".`),
		at("expect", patternKind(), func(t *T) *string { return &t.of.Expect }, "A regular expression that the answer must match."),
	}
}

func grpcFields() []field[probe[manifest.GRPC]] {
	type G = probe[manifest.GRPC]
	return []field[G]{
		at("address", dialKind(), func(g *G) *string { return &g.of.Address }, "host:port, a port of this machine, or the path of a socket.").must(),
		at("service", textKind[string]("the name of a service", schema{"type": "string"}), func(g *G) *string { return &g.of.Service },
			"The service that is asked for. Without it: the server as a whole."),
		at("tls", boolKind(), func(g *G) *bool { return &g.of.TLS }, "Connect by TLS."),
		at("ca", pathKind("file of certificates (PEM)"), func(g *G) *string { return &g.of.CA }, caDoc),
	}
}
