package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

// The dataitems of the classic surface and their values with the CMM's numbers
// (facts: CMM, 6.4).
const (
	itemAdmin      = "AdminState"
	itemRecovery   = "RecoveryAction"
	itemEscalation = "EscalationAction"
	itemName       = "ProcessName"
	itemOp         = "OpState"
)

var items = []string{itemAdmin, itemRecovery, itemEscalation, itemName, itemOp}

func getCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "get TARGET [ITEM]", GroupID: "look", Args: args(1, 2),
		Short: "read a dataitem of the node, a process or a check",
		Long: `Reads one dataitem, or all of a target: AdminState, RecoveryAction, EscalationAction,
ProcessName, OpState. A target is node (or PmsGlobal), the name of a process or check,
or its number as PmsProc51 or PmsPie176. The answers have the CMM's form, as
"1:Unlocked" or "2:Process Restart".`,
		Example:           "  gemel get nginx\n  gemel get nginx RecoveryAction\n  gemel get PmsProc51 OpState",
		ValidArgsFunction: completeItems(t, false),
		RunE: func(c *cobra.Command, args []string) error {
			all, err := itemsOf(c.Context(), t, args[0])
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return allItems(t, all)
			}
			name, err := item(args[1])
			if err != nil {
				return err
			}
			v, ok := all[name]
			if !ok {
				return wrongUsage("%s has no %s; it has %s", args[0], name, strings.Join(present(all), ", "))
			}
			if t.json {
				return t.printJSON(map[string]string{"target": args[0], "item": name, "value": v})
			}
			fmt.Fprintln(t.out, v)
			return nil
		},
	}
}

func allItems(t *tool, values map[string]string) error {
	if t.json {
		return t.printJSON(values)
	}
	for _, n := range present(values) {
		fmt.Fprintf(t.out, "%-17s %s\n", n, values[n])
	}
	return nil
}

func present(values map[string]string) []string {
	var out []string
	for _, n := range items {
		if _, ok := values[n]; ok {
			out = append(out, n)
		}
	}
	return out
}

// item finds a dataitem by its name or by the manifest's word for it.
func item(given string) (string, error) {
	for _, n := range items {
		if strings.EqualFold(n, given) || shortItems[n] != "" && shortItems[n] == strings.ToLower(given) {
			return n, nil
		}
	}
	return "", wrongUsage("there is no dataitem %q; there are %s", given, strings.Join(items, ", "))
}

// shortItems are what the manifest calls some of the dataitems.
var shortItems = map[string]string{itemAdmin: "admin", itemRecovery: "recovery", itemEscalation: "escalation", itemOp: "op"}

// itemsOf reads all dataitems of a target.
func itemsOf(ctx context.Context, t *tool, target string) (map[string]string, error) {
	s, err := t.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := find(s, target)
	if err != nil {
		return nil, err
	}
	if sub.GetKind() == gemelv1.Kind_KIND_NODE {
		return map[string]string{itemAdmin: adminItem(s.GetNode().GetAdmin()), itemOp: opItem(s.GetNode().GetOp())}, nil
	}
	for _, p := range s.GetProcesses() {
		if sub.GetKind() == gemelv1.Kind_KIND_PROCESS && p.GetName() == sub.GetName() {
			return map[string]string{
				itemAdmin: adminItem(p.GetAdmin()), itemOp: opItem(p.GetOp()), itemName: p.GetLine(),
				itemRecovery: recoveryItem(p.GetRecovery()), itemEscalation: escalationItem(p.GetEscalation()),
			}, nil
		}
	}
	for _, c := range s.GetChecks() {
		if sub.GetKind() == gemelv1.Kind_KIND_CHECK && c.GetName() == sub.GetName() {
			return map[string]string{itemAdmin: adminItem(c.GetAdmin()), itemOp: opItem(c.GetOp()), itemName: c.GetLine()}, nil
		}
	}
	return nil, unknown("process or check", target, nil)
}

func adminItem(a gemelv1.Admin) string {
	if a == gemelv1.Admin_ADMIN_LOCKED {
		return "2:Locked"
	}
	return "1:Unlocked"
}

func opItem(o gemelv1.Op) string {
	if o == gemelv1.Op_OP_DISABLED {
		return "2:Disabled"
	}
	return "1:Enabled"
}

func recoveryItem(r gemelv1.Recovery) string {
	switch r {
	case gemelv1.Recovery_RECOVERY_NONE:
		return "1:No Action"
	case gemelv1.Recovery_RECOVERY_RESTART:
		return "2:Process Restart"
	case gemelv1.Recovery_RECOVERY_FAILOVER_RESTART:
		return "3:Failover and Restart"
	}
	return "4:Failover and Reboot"
}

// escalationItem: Gemel's own escalation "failover" has no number of the CMM.
func escalationItem(e gemelv1.Escalation) string {
	switch e {
	case gemelv1.Escalation_ESCALATION_NONE:
		return "1:No Action"
	case gemelv1.Escalation_ESCALATION_FAILOVER_REBOOT:
		return "2:Failover and Reboot"
	}
	return "Failover"
}

func setCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "set TARGET ITEM VALUE", GroupID: "act", Args: args(3, 3),
		Short: "change a dataitem: AdminState, RecoveryAction, EscalationAction",
		Long: `Changes a dataitem at once. It is kept over the manifest (gemel diff shows it) until an
apply changes the same field of the manifest. Values are the CMM's numbers or the words
of the manifest:

  AdminState        1 or unlocked, 2 or locked
  RecoveryAction    1 or none, 2 or restart, 3 or failover-restart, 4 or failover-reboot
  EscalationAction  1 or none, 2 or failover-reboot, failover`,
		Example:           "  gemel set nginx RecoveryAction failover-restart\n  gemel set PmsProc51 AdminState 2",
		ValidArgsFunction: completeItems(t, true),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := item(args[1])
			if err != nil {
				return err
			}
			verb, value, err := setting(name, args[2])
			if err != nil {
				return err
			}
			return t.request(c.Context(), verb, args[0], value, false)
		},
	}
}

// allowed are the values of the dataitems that can be set: the CMM's numbers and
// Gemel's words, by Gemel's word.
var allowed = map[string]map[string]string{
	itemAdmin:      {"1": "unlocked", "2": "locked", "unlocked": "unlocked", "locked": "locked"},
	itemRecovery:   {"1": "none", "2": "restart", "3": "failover-restart", "4": "failover-reboot", "none": "none", "restart": "restart", "failover-restart": "failover-restart", "failover-reboot": "failover-reboot"},
	itemEscalation: {"1": "none", "2": "failover-reboot", "none": "none", "failover": "failover", "failover-reboot": "failover-reboot"},
}

// values lists the words of a dataitem.
func values(item string) []string {
	var out []string
	for given, word := range allowed[item] {
		if given == word {
			out = append(out, word)
		}
	}
	slices.Sort(out)
	return out
}

// setting reads a value of a dataitem: the CMM's number or Gemel's word.
func setting(item, given string) (verb gemelv1.Verb, value string, err error) {
	if allowed[item] == nil {
		return 0, "", wrongUsage("%s can only be read; AdminState, RecoveryAction and EscalationAction can be set", item)
	}
	value, ok := allowed[item][strings.ToLower(given)]
	if !ok {
		return 0, "", wrongUsage("%s cannot be %q; it can be %s, or the number that gemel set --help tells", item, given, strings.Join(values(item), ", "))
	}
	switch {
	case item == itemAdmin && value == "locked":
		return gemelv1.Verb_VERB_LOCK, "", nil
	case item == itemAdmin:
		return gemelv1.Verb_VERB_UNLOCK, "", nil
	case item == itemRecovery:
		return gemelv1.Verb_VERB_SET_RECOVERY, value, nil
	}
	return gemelv1.Verb_VERB_SET_ESCALATION, value, nil
}

func completeItems(t *tool, settable bool) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names := t.names(true, "node")
	return func(c *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var out []string
		switch {
		case len(given) == 0:
			return names(c, given, prefix)
		case len(given) == 1:
			for _, n := range items {
				if _, ok := allowed[n]; (ok || !settable) && strings.HasPrefix(strings.ToLower(n), strings.ToLower(prefix)) {
					out = append(out, n)
				}
			}
		case len(given) == 2 && settable:
			if n, err := item(given[1]); err == nil {
				out = values(n)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
