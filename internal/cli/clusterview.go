package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

// until is an instant that is to come, and how far away that is.
func until(at *timestamppb.Timestamp, now time.Time) string {
	return fmt.Sprintf("%s (%s)", at.AsTime().Local().Format("2006-01-02 15:04:05-07:00"), age(at.AsTime().Sub(now)))
}

// groupTable lists the groups: on a machine of no cluster why they wait for one.
func groupTable(w io.Writer, out *screen, s *gemelv1.Snapshot) {
	if len(s.GetGroups()) == 0 {
		return
	}
	head := []string{"GROUP", "STATE", "NODES", "WHY"}
	if s.GetCluster() != nil {
		head = []string{"GROUP", "STATE", "ON", "FENCE", "LEVEL", "NODES", "WHY"}
	}
	var rows [][]cell
	for _, g := range s.GetGroups() {
		state := g.GetState()
		if g.GetLocked() {
			state += ", locked"
		}
		if g.GetMaintenance() != nil {
			state += ", maintenance"
		}
		row := []cell{{text: g.GetName()}, {text: state, colour: groupColour(g)}}
		if s.GetCluster() != nil {
			on := g.GetNode()
			if on == "" {
				on = "-"
			}
			row = append(row, cell{text: on}, cell{text: g.GetFence()}, levelCell(g))
		}
		reason := g.GetReason()
		if want := g.GetWanted(); want != "" && want != g.GetNode() {
			reason = strings.TrimPrefix(fmt.Sprintf("%s; asked for on %s", reason, want), "; ")
		}
		if g.GetMaintenance() != nil {
			reason = strings.TrimPrefix(fmt.Sprintf("%s; in maintenance until %s", reason, until(g.GetMaintenance(), s.GetAt().AsTime())), "; ")
		}
		rows = append(rows, append(row, cell{text: strings.Join(g.GetNodes(), ", ")}, cell{text: oneLine(reason)}))
	}
	fmt.Fprintln(w)
	out.table(w, head, rows)
}

// levelCell is the exclusivity in force, and what is needed where that is another one.
func levelCell(g *gemelv1.GroupStatus) cell {
	switch {
	case g.Level == nil:
		return cell{text: fmt.Sprintf("needs %d", g.GetRequireLevel())}
	case g.GetLevel() < g.GetRequireLevel():
		return cell{text: fmt.Sprintf("%d, needs %d", g.GetLevel(), g.GetRequireLevel()), colour: red}
	}
	return cell{text: fmt.Sprint(g.GetLevel())}
}

// nextLines say of each group what one more failure would do.
func nextLines(w io.Writer, out *screen, s *gemelv1.Snapshot) {
	first := true
	for _, g := range s.GetGroups() {
		if g.GetNext() == "" {
			continue
		}
		if first {
			fmt.Fprintln(w)
			first = false
		}
		text := fmt.Sprintf("%s: %s", g.GetName(), oneLine(g.GetNext()))
		if strings.Contains(text, "it runs nowhere") {
			text = out.paint(yellow, text)
		}
		fmt.Fprintln(w, text)
	}
}

func groupColour(g *gemelv1.GroupStatus) string {
	switch g.GetState() {
	case "active":
		return green
	case "standby", "elsewhere":
		return plain
	case "unplaced", "halted":
		return red
	}
	return yellow
}

// clusterTable shows the nodes of the cluster as this one sees them.
func clusterTable(w io.Writer, out *screen, c *gemelv1.ClusterStatus, now time.Time) {
	if c == nil {
		return
	}
	store := "the store answers"
	if !c.GetStore() {
		store = out.paint(red, fmt.Sprintf("the store has not answered for %s", age(now.Sub(c.GetStoreAway().AsTime()))))
	}
	fmt.Fprintf(w, "cluster %s (%s), profile %s, %s\n", c.GetName(), c.GetId(), c.GetProfile(), store)
	if c.GetLacks() != "" {
		fmt.Fprintln(w, "  "+out.paint(yellow, clean(c.GetLacks())))
	}
	if c.GetMaintenance() != nil {
		fmt.Fprintln(w, "  "+out.paint(yellow, "the whole cluster is in maintenance until "+until(c.GetMaintenance(), now)+": nothing is granted or moved by itself, also not after a loss"))
	}
	var rows [][]cell
	for _, n := range c.GetNodes() {
		state, colour := n.GetState(), yellow
		switch state {
		case "member", "votes":
			colour = green
		case "evicted":
			colour = red
		}
		if n.GetDrained() {
			state, colour = state+", drained", yellow
		}
		var notes []string
		if n.GetMaintenance() != nil {
			state, colour = state+", maintenance", yellow
			notes = append(notes, "in maintenance until "+until(n.GetMaintenance(), now))
		}
		if n.Level != nil {
			notes = append(notes, fmt.Sprintf("level %d", n.GetLevel()))
		}
		if n.GetSelf() {
			notes = append(notes, "this node")
		}
		if n.GetName() == c.GetBrain() {
			notes = append(notes, "decides")
		}
		heard := "-"
		if !n.GetSelf() {
			if heard = strings.Join(n.GetHears(), ", "); heard == "" {
				heard = out.paint(red, "no network")
			}
			if m := n.GetMisses(); len(m) > 0 && len(n.GetHears()) > 0 {
				notes = append(notes, "not heard on "+strings.Join(m, ", "))
			}
			if n.GetHeard() != nil && len(n.GetHears()) == 0 {
				notes = append(notes, "heard last "+age(now.Sub(n.GetHeard().AsTime()))+" ago")
			}
		}
		groups := strings.Join(n.GetGroups(), ", ")
		if groups == "" {
			groups = "-"
		}
		rows = append(rows, []cell{{text: n.GetName()}, {text: state, colour: colour}, {text: heard}, {text: groups}, {text: strings.Join(notes, "; ")}})
	}
	fmt.Fprintln(w)
	out.table(w, []string{"NODE", "STATE", "HEARD ON", "GROUPS", ""}, rows)
}
