package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	gemelv1 "gemel/api/gemel/v1"
)

// concern is something that somebody should look at, and what to do about it.
type concern struct{ who, text, do string }

// patient is how long a process may be on its way before it is mentioned.
const patient = 10 * time.Second

// concerns lists what is wrong in a picture.
func concerns(s *gemelv1.Snapshot, now time.Time) []concern {
	out := ofNode(s.GetNode())
	told := make(map[string]bool)
	for _, a := range s.GetAlarms() {
		who := subject(a.GetSubject())
		told[who] = true
		text := wordOf(a.GetSeverity()) + ": " + withDetail(a)
		out = append(out, concern{who, text, fmt.Sprintf("gemel why %d tells why%s", a.GetId(), wayOut(s, a.GetSubject()))})
	}
	for _, p := range s.GetProcesses() {
		if text := downText(p, now); text != "" && !told[p.GetName()] {
			out = append(out, concern{p.GetName(), text, downAdvice(p)})
		}
	}
	for _, c := range s.GetChecks() {
		who := "check/" + c.GetName()
		if c.GetState() == "failing" && !told[who] {
			covers := ""
			if len(c.GetCovers()) > 0 {
				covers = " (it covers " + strings.Join(c.GetCovers(), ", ") + ")"
			}
			out = append(out, concern{who, "it fails" + covers + ": " + oneLine(c.GetDetail()), "gemel status " + who})
		}
	}
	return out
}

// ofNode lists what is wrong with Gemel itself. A nil node was not asked about.
func ofNode(n *gemelv1.NodeStatus) []concern {
	var out []concern
	switch {
	case n == nil:
		return nil
	case n.GetOp() == gemelv1.Op_OP_DISABLED:
		out = append(out, concern{"node", "nothing is watched: the reboots and failovers of this node are used up",
			"find what brought it down, then: gemel lock node; gemel unlock node"})
	case len(n.GetBudget()) > 0 && len(n.GetBudget()) >= int(n.GetBudgetMax()):
		out = append(out, concern{"node", fmt.Sprintf("all %d reboots and failovers that it may do are counted", n.GetBudgetMax()), "when the cause is repaired: gemel clear node"})
	}
	if n.GetShadow() == 0 && !n.GetStopping() {
		out = append(out, concern{"node", "the shadow is away; the programs run on", "the monitor starts another one in a moment"})
	}
	return out
}

func withDetail(e *gemelv1.Event) string {
	if d := e.GetDetail(); d != "" {
		return e.GetText() + ": " + oneLine(d)
	}
	return e.GetText()
}

// wayOut is the command that ends an alarm, where there is one.
func wayOut(s *gemelv1.Snapshot, sub *gemelv1.Subject) string {
	for _, p := range s.GetProcesses() {
		if sub.GetKind() == gemelv1.Kind_KIND_PROCESS && p.GetName() == sub.GetName() && p.GetOp() == gemelv1.Op_OP_DISABLED {
			return fmt.Sprintf("; when repaired: gemel lock %s; gemel unlock %s", p.GetName(), p.GetName())
		}
	}
	return ""
}

// downText says that a process which should run does not; "" if all is well. What
// was stopped by order, or is on its way, is no concern.
func downText(p *gemelv1.ProcessStatus, now time.Time) string {
	switch p.GetState() {
	case "given-up", "stuck", "down":
		if p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
			return "" // locked: a remark, and no fault
		}
	case "delayed", "failing-over", "rebooting":
	case "waiting", "seeking", "starting", "stopping":
		if now.Sub(p.GetSince().AsTime()) < patient {
			return ""
		}
	default:
		return ""
	}
	return strings.ReplaceAll(p.GetState(), "-", " ") + ": " + oneLine(p.GetReason())
}

func downAdvice(p *gemelv1.ProcessStatus) string {
	n := p.GetName()
	switch p.GetState() {
	case "given-up":
		return fmt.Sprintf("repair it, then: gemel lock %s; gemel unlock %s", n, n)
	case "down":
		return "gemel start " + n
	}
	return "gemel why " + n
}

// remarks lists what is unusual and may well be meant. What the machine lacks is
// one line unless verbose: it is the same each day.
func remarks(s *gemelv1.Snapshot, skew string, verbose bool) []concern {
	var out []concern
	add := func(who, text, do string) { out = append(out, concern{who, text, do}) }
	n := s.GetNode()
	if n.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
		add("node", "locked"+lockText(n.GetLock())+": nothing on it is watched", lockAdvice(n.GetLock(), "node"))
	}
	for _, p := range s.GetProcesses() {
		if p.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
			does := "it runs and is not watched"
			if p.GetPid() == 0 {
				does = "it does not run"
			}
			add(p.GetName(), "locked"+lockText(p.GetLock())+": "+does, lockAdvice(p.GetLock(), p.GetName()))
		}
	}
	for _, c := range s.GetChecks() {
		if c.GetAdmin() == gemelv1.Admin_ADMIN_LOCKED {
			who := "check/" + c.GetName()
			add(who, "locked"+lockText(c.GetLock())+": it judges nothing", lockAdvice(c.GetLock(), who))
		}
	}
	if used := len(n.GetBudget()); used > 0 && used < int(n.GetBudgetMax()) {
		add("node", fmt.Sprintf("%d of %d reboots and failovers are counted", used, n.GetBudgetMax()), "gemel clear node forgets them")
	}
	if n.GetDiffers() {
		add("node", n.GetManifest()+" is not what is in force", fmt.Sprintf("gemel diff %s; gemel apply %s", quoted(n.GetManifest()), quoted(n.GetManifest())))
	}
	if names := n.GetUnknownAccess(); len(names) > 0 {
		add("node", "node.access names "+strings.Join(names, ", ")+", which nobody on this machine is: that lets nobody in",
			"correct the manifest, or make the user or group")
	}
	if notes := n.GetNotes(); len(notes) > 1 && !verbose {
		add("node", fmt.Sprintf("%d things that Gemel would use are not here", len(notes)), "gemel status -v lists them")
	} else {
		for _, note := range notes {
			add("node", note, "")
		}
	}
	if skew != "" {
		add("gemel", skew, "")
	}
	return out
}

// lockAdvice is how a lock is ended, and where to look for who made it if the lock
// itself does not tell.
func lockAdvice(l *gemelv1.Lock, who string) string {
	if l != nil {
		return "gemel unlock " + who
	}
	return fmt.Sprintf("gemel why %s tells since when; gemel unlock %s", who, who)
}

// showConcerns ends a status with what to look at.
func showConcerns(w io.Writer, t *tool, cs []concern) {
	if len(cs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", t.out.paint(bold, "What to look at:"))
	for _, c := range cs {
		t.out.hang(w, "  "+c.who+"  ", clean(c.text))
		if c.do != "" {
			t.out.hang(w, "      ", clean(t.command(c.do)))
		}
	}
}
