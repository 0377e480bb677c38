package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// pageLines are the lines in the blocks of docs/cluster.md that are not YAML, without their
// comments, and spans are the commands in its text.
func pageLines(t *testing.T) (lines, spans []string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```\n")
	for _, m := range block.FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(m[2]) {
			line, _, _ = strings.Cut(line, " #")
			if line = strings.TrimSpace(line); m[1] == "" && line != "" {
				lines = append(lines, line)
			}
		}
	}
	for _, m := range regexp.MustCompile("`((?:gemel|systemctl|etcdctl|etcdutl|rm)\\s[^`]+)`").FindAllStringSubmatch(block.ReplaceAllString(string(b), ""), -1) {
		spans = append(spans, strings.Join(strings.Fields(m[1]), " "))
	}
	if len(lines) < 30 || len(spans) < 20 {
		t.Fatalf("only %d lines and %d commands were found in the page", len(lines), len(spans))
	}
	return lines, spans
}

// notHere are the lines of the page that are not typed here, and why.
func notHere() map[string]string {
	const own, ports = "an etcd of one's own, with its files, is in TestOwnEtcd and TestOwnEtcdByCertificate", "what a firewall comes to is in TestPortsThatAreShut of rack"
	const tools, device = "etcd's own tool is no part of this module; the calls that it makes are in TestOwnEtcd", "a part of node.yaml, which is no command; the device is in TestFence of rack"
	const sight = "no hardware watchdog is here; what status says of levels is in TestLevels of rack"
	return map[string]string{
		"systemctl enable --now gemel": "there is no systemd here; the unit is in systemd_test.go of daemon",
		"systemctl reload gemel":       "there is no systemd here; the unit is in systemd_test.go of daemon",
		"gemel guard":                  "the daemon starts it, and nobody types it",

		"etcdctl user add gemel": tools, "etcdctl role add gemel": tools, "etcdctl user grant-role gemel gemel": tools, "etcdctl snapshot save": tools,
		"etcdctl role grant-permission gemel --prefix=true readwrite /gemel/": tools,
		"mkdir -p /etc/gemel/etcd": own, "cp ca.pem password /etc/gemel/etcd/": own, "chmod 600 /etc/gemel/etcd/password": own, "gemel init --store /etc/gemel/etcd.yaml": own,
		"etcdutl snapshot restore etcd.snapshot --bump-revision 1000000000 --mark-compacted --data-dir /var/lib/etcd ...": "TestOwnEtcdRestored runs it, with the flags that the page names after it",

		"NODE   STATE   HEARD ON   GROUPS": sight, "alpha  member  -          web     level 2; this node; decides": sight, "beta   member  blue, red  -       level 1": sight,
		"GROUP  STATE   ON     FENCE  LEVEL  NODES        WHY": sight, "web    active  alpha  1.3    2      alpha, beta": sight,

		"level:": device, "fence: {agent: fence_ipmilan, parameters: {ip: 10.9.0.1, username: gemel, password: secret}, timeout: 1m}": device,
		"TCP 5316 from alpha to beta does not pass over blue (10.0.0.2:5316: no answer within 1s), and heartbeats of beta do: let it through in the firewalls of alpha and beta and between them": ports,
		"UDP from beta to alpha does not pass over red, and TCP from alpha to beta does: let UDP 5314 from beta through at alpha and between them":                                                ports,
	}
}

// A walk is the page as somebody goes through it: what was typed and what was printed.
type walk struct {
	t            *testing.T
	alpha, beta  *box
	gamma        *box
	typed, shown []string
}

// does types a line that has to succeed, and to print some words.
func (w *walk) does(b *box, line string, words ...string) string {
	w.t.Helper()
	out := b.does(line, words...)
	w.note(line, out)
	return out
}

func (w *walk) note(line, out string) {
	names := regexp.MustCompile(`gj1\w+`)
	w.typed = append(w.typed, names.ReplaceAllString(line, "gj1..."))
	for line := range strings.Lines(regexp.MustCompile(`\([a-z2-7]{8}\)`).ReplaceAllString(out, "(avxyapxs)")) {
		w.shown = append(w.shown, strings.TrimSpace(line))
	}
}

// runs types what Begin does.
func (w *walk) runs(b *box) {
	w.t.Helper()
	b.Begin()
	w.note("gemel run /etc/gemel/gemel.yaml", "")
}

// ends types gemel shutdown.
func (w *walk) ends(b *box) {
	w.t.Helper()
	b.unfollow()
	w.does(b, "gemel shutdown")
	await(w.t, "both halves are gone", func() bool { s, m := b.halves(); return s == 0 && m == 0 })
}

func (w *walk) whole() {
	w.t.Helper()
	for _, b := range []*box{w.alpha, w.beta, w.gamma} {
		b.whole("alpha member, beta member, gamma votes", "alpha beta gamma")
	}
}

// missing are the lines of the page that were neither typed nor printed.
func (w *walk) missing() []string {
	lines, spans := pageLines(w.t)
	why := notHere()
	var out []string
	used := map[string]bool{}
	among := func(list []string, line, end string) bool {
		pattern := regexp.MustCompile(`\b[A-Z]{4,}\b`).ReplaceAllString(regexp.QuoteMeta(line), `\S+`)
		re := regexp.MustCompile("^" + pattern + end)
		for _, l := range list {
			if re.MatchString(l) {
				return true
			}
		}
		return false
	}
	for _, line := range lines {
		if _, not := why[line]; not {
			used[line] = true
		} else if !among(w.typed, line, "$") && !among(w.shown, line, "$") {
			out = append(out, line)
		}
	}
	for _, line := range spans {
		if _, not := why[line]; not {
			used[line] = true
		} else if !among(w.typed, line, "( |$)") {
			out = append(out, line)
		}
	}
	for line := range why {
		if !used[line] {
			out = append(out, "not on the page: "+line)
		}
	}
	return out
}

// TestPageOfClusters goes through docs/cluster.md: each command of it is typed in a cluster
// that the first two of them made, and does what the page says.
func TestPageOfClusters(t *testing.T) {
	t.Parallel()
	s := newSite(t, "10.0.0.%d/24", "10.1.0.%d/24")
	w := &walk{t: t, alpha: s.box("alpha", 1, web), beta: s.box("beta", 2, ""), gamma: s.box("gamma", 3, "")}
	if none := w.missing(); !slices.Contains(none, "gemel init") || !slices.Contains(none, "gemel brain switch NODE") || !slices.Contains(none, "group=web") {
		t.Fatalf("who has typed nothing is said to miss only %q", none)
	}
	w.begins()
	w.asks()
	w.keeps()
	w.decides()
	w.replaces(s.box("fresh", 4, ""))
	w.restores()
	for _, line := range w.missing() {
		t.Errorf("docs/cluster.md has a line that nobody typed or saw: %s", line)
	}
}

// begins are the first machines and the witness.
func (w *walk) begins() {
	w.t.Helper()
	w.alpha.Begin()
	pid := w.alpha.Running("shop").GetPid()
	out := w.does(w.alpha, "gemel init", "net1=10.0.0.1:5314 on eth0", "net2=10.1.0.1:5314 on eth1")
	w.alpha.Until("web is active", func(s *gemelv1.Snapshot) bool { return on(s, "web") == "alpha" && active(s, "web") })
	if now := w.alpha.Running("shop").GetPid(); now != pid {
		w.t.Errorf("shop was pid %d and is %d", pid, now)
	}
	back := strings.TrimPrefix(printed(w.t, out, "to take it back:"), "to take it back: ")
	w.alpha.does(back)
	w.alpha.Until("it is in no cluster", func(s *gemelv1.Snapshot) bool { return s.GetCluster() == nil })
	out = w.does(w.alpha, "gemel init --address blue=10.0.0.1 --address red=10.1.0.1", "blue=10.0.0.1:5314 on eth0", "red=10.1.0.1:5314 on eth1")
	w.alpha.Until("web is active", func(s *gemelv1.Snapshot) bool { return on(s, "web") == "alpha" && active(s, "web") })
	w.does(w.beta, printed(w.t, out, "gemel join"), "beta is in the cluster")
	w.runs(w.beta)
	w.beta.Until("both are members", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "alpha member, beta member" && s.GetCluster().GetStore()
	})
	w.does(w.beta, "gemel status", "a witness is missing")
	line := printed(w.t, w.does(w.alpha, "gemel token --witness"), "gemel join --witness")
	w.does(w.gamma, line, "gamma is in the cluster")
	w.runs(w.gamma)
	w.whole()
	if out := w.does(w.beta, "gemel status"); strings.Contains(out, "missing") {
		w.t.Errorf("status says more:\n%s", out)
	}
}

// asks are where groups belong, and why, and what is in maintenance.
func (w *walk) asks() {
	w.t.Helper()
	if err := os.WriteFile(w.alpha.Path("new.yaml"), []byte(strings.Replace(web, "alpha, beta", "beta, alpha", 1)), 0o644); err != nil {
		w.t.Fatal(err)
	}
	w.does(w.alpha, "gemel plan", "web", "alpha")
	w.does(w.alpha, "gemel plan --if 'node beta lost'", "web", "alpha")
	w.does(w.alpha, "gemel plan new.yaml --if 'group web on beta'", "web", "beta")
	w.does(w.alpha, "gemel why web", "alpha")
	w.does(w.alpha, "gemel why not web on beta", "beta")
	w.does(w.alpha, "gemel alarms", "no alarm stands")

	w.does(w.alpha, "gemel maintenance node/beta --for 2h", "beta")
	w.does(w.alpha, "gemel maintenance group/web --for 30m", "web")
	w.alpha.does("gemel resume beta") // ends a drain, and no maintenance
	w.does(w.alpha, "gemel maintenance cluster --for 15m", "cluster")
	w.alpha.Until("all of it is in maintenance", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetMaintenance() != nil && s.GetGroups()[0].GetMaintenance() != nil
	})
	if w.alpha.Status().GetCluster().GetNodes()[1].GetMaintenance() == nil {
		w.t.Error("gemel resume beta ended its maintenance")
	}
	w.does(w.alpha, "gemel status", "maintenance")
	w.does(w.alpha, "gemel maintenance node/beta --end", "beta")
	w.alpha.does("gemel maintenance group/web --end")
	w.alpha.does("gemel maintenance cluster --end")
	w.alpha.Until("nothing is in maintenance", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetMaintenance() == nil && s.GetGroups()[0].GetMaintenance() == nil && s.GetCluster().GetNodes()[1].GetMaintenance() == nil
	})

	role := w.alpha.does("cat " + w.alpha.Path("run/role/web"))
	w.note("cat role", regexp.MustCompile(`fence=1\.\d+`).ReplaceAllString(role, "fence=1.7"))
}

// keeps are the versions of the manifest.
func (w *walk) keeps() {
	w.t.Helper()
	for _, span := range []string{"60ms", "70ms", "80ms"} {
		w.alpha.Write(strings.Replace(web, "50ms", span, 1))
		w.does(w.alpha, "gemel apply gemel.yaml", "version")
	}
	w.does(w.beta, "gemel manifest --versions", "\n4 ", "in force")
	w.does(w.beta, "gemel manifest --version 3 | gemel diff -", "ramp-up")
	w.does(w.beta, "gemel rollback --dry-run", "ramp-up")
	w.does(w.beta, "gemel rollback", "version")
	w.does(w.beta, "gemel manifest", "70ms")
	await(w.t, "it is in force on the other one", func() bool { out, _ := w.alpha.types("gemel manifest"); return strings.Contains(out, "70ms") })
}

// decides are moves, the brain and keys.
func (w *walk) decides() {
	w.t.Helper()
	is := func(name string) {
		w.t.Helper()
		w.beta.Until("web is on "+name, func(s *gemelv1.Snapshot) bool { return on(s, "web") == name })
	}
	w.does(w.alpha, "gemel move web", "beta")
	is("beta")
	w.does(w.alpha, "gemel drain beta", "beta")
	is("alpha")
	w.does(w.alpha, "gemel resume beta", "beta")
	was := w.alpha.Status().GetCluster().GetBrain()
	w.does(w.alpha, "gemel brain switch")
	w.alpha.Until("another one decides", func(s *gemelv1.Snapshot) bool {
		return s.GetCluster().GetBrain() != "" && s.GetCluster().GetBrain() != was
	})
	w.does(w.alpha, "gemel brain switch "+was)
	w.alpha.Until(was+" decides", func(s *gemelv1.Snapshot) bool { return s.GetCluster().GetBrain() == was })

	w.does(w.alpha, "gemel cert", "alpha")
	w.does(w.alpha, "gemel renew", "new keys and certificates are in force")
	steady := func(what string, signers int) {
		w.t.Helper()
		await(w.t, what+" is replaced", func() bool {
			keys, busy := w.beta.hearts()
			by, _ := w.beta.signedBy()
			return len(keys) == 1 && len(by) == signers && !busy
		})
	}
	w.does(w.alpha, "gemel cert rotate heartbeats")
	steady("the key of the heartbeats", 1)
	w.does(w.alpha, "gemel cert rotate nodes")
	steady("the authority", 1)
	w.does(w.beta, "gemel upgrade")
	w.whole()
}

// replaces puts another machine in the place of beta, which is broken for good.
func (w *walk) replaces(fresh *box) {
	w.t.Helper()
	w.beta.crashes()
	w.alpha.Until("beta is evicted", func(s *gemelv1.Snapshot) bool { return strings.Contains(nodes(s), "beta evicted") })
	w.does(w.alpha, "gemel confirm-off beta", "beta")
	out := w.does(w.alpha, "gemel token --name beta")
	fresh.does(printed(w.t, out, "gemel join"), "beta is in the cluster")
	w.runs(fresh)
	w.beta = fresh
	w.whole()
}

// restores are a copy of the store, and the loss of most voters; then a node leaves.
func (w *walk) restores() {
	w.t.Helper()
	mark := w.alpha.Mark()
	w.does(w.alpha, "gemel backup store.backup", "bytes")
	w.beta.crashes()
	w.gamma.crashes()
	w.alpha.Await(mark, ha.StoreAway, "alpha")
	w.ends(w.alpha)
	out := w.does(w.alpha, "gemel restore store.backup --off beta,gamma", "begins anew with this machine, alpha")
	w.runs(w.alpha)
	s := w.alpha.Until("web is active in the new era", func(s *gemelv1.Snapshot) bool { return on(s, "web") == "alpha" && active(s, "web") })
	if f := fence(s, "web"); !strings.HasPrefix(f, "2.") {
		w.t.Errorf("the fence is %s", f)
	}
	w.beta.boots()
	w.ends(w.beta)
	w.does(w.beta, printed(w.t, out, "gemel join"), "beta is in the cluster")
	w.runs(w.beta)
	w.gamma.boots()
	w.ends(w.gamma)
	line := printed(w.t, w.does(w.alpha, "gemel token --witness"), "gemel join --witness")
	w.does(w.gamma, line+" --anew", "gamma is in the cluster")
	w.runs(w.gamma)
	w.whole()

	w.beta.denies("gemel leave", "gemel leave --with-witness")
	w.note("gemel leave", "")
	w.does(w.beta, "gemel leave --with-witness", "this machine has left its cluster")
	w.alpha.Until("alpha is alone", func(s *gemelv1.Snapshot) bool {
		return nodes(s) == "alpha member" && s.GetCluster().GetStore() && on(s, "web") == "alpha"
	})
	w.ends(w.gamma)
	w.beta.denies("gemel run /etc/gemel/gemel.yaml", "left the cluster")
}
