package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func certCommand(t *tool) *cobra.Command {
	c := &cobra.Command{
		Use: "cert", GroupID: "cluster", Args: args(0, 0),
		Short: "the certificates and keys of the cluster: whose, for what, until when, signed by whom",
		Long: `Lists the authorities of the cluster, the certificates that they gave out and that count, and
the keys of the heartbeats, all without a secret. AUTHORITY is a number by which an
authority and what it signed are found.

Certificates renew themselves when two thirds of their life, or of a year, are over. One
that could not is an alarm (certificate-ends). gemel renew makes new ones for this machine
now; gemel cert rotate replaces keys of the whole cluster.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Certificates(c.Context(), &gemelv1.CertificatesRequest{})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			var rows [][]cell
			for _, x := range r.GetCertificates() {
				colour := ""
				if x.GetTrouble() != "" {
					colour = red
				}
				rows = append(rows, []cell{{text: x.GetName()}, {text: x.GetPurpose()}, {text: x.GetUntil().AsTime().Local().Format("2006-01-02 15:04 -0700"), colour: colour}, {text: x.GetAuthority()}, {text: x.GetTrouble(), colour: colour}})
			}
			t.out.table(t.out, []string{"NAME", "FOR", "UNTIL", "AUTHORITY", ""}, rows)
			var keys []string
			for _, k := range r.GetKeys() {
				text := k.GetId()
				if k.GetSeals() {
					text += " (seals)"
				}
				keys = append(keys, text)
			}
			fmt.Fprintf(t.out, "heartbeats: %s\n", strings.Join(keys, ", "))
			for _, text := range r.GetUnderWay() {
				fmt.Fprintln(t.out, text)
			}
			return nil
		},
	}
	c.AddCommand(rotateCommand(t))
	return c
}

func rotateCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "rotate WHAT...", Args: args(1, -1),
		Short: "replace keys of the whole cluster, the old ones being good until all machines have the new ones",
		Long: `Begins to replace keys of the whole cluster; the machines do the rest by themselves. WHAT is

  heartbeats   the key that seals the heartbeats
  nodes        the authority of nodes, witnesses and people, and all that it signed for
               machines; tokens that were made before are good no more
  agents       the authority of agents

First every machine accepts the new one beside the old one, then all use the new one, then
the old one is forgotten. Each step waits until all machines of the cluster have taken
the one before: one that is down holds up the next step and loses nothing. gemel cert shows
for whom it waits. Nothing is restarted, and no heartbeat is lost. The authority of the
store is not replaced: its members read it at their start only.`,
		ValidArgs: []string{"heartbeats", "nodes", "agents"},
		Example:   "  gemel cert rotate heartbeats\n  gemel cert rotate nodes",
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Rotate(c.Context(), &gemelv1.RotateRequest{What: args})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.out, "it has begun; %s shows how far it is. There is no way back but to do it again\n", t.command("gemel cert"))
			return nil
		},
	}
}
