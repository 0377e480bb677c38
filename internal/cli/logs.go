package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func logsCommand(t *tool) *cobra.Command {
	var follow bool
	var lines uint32
	c := &cobra.Command{
		Use: "logs NAME", GroupID: "look", Args: cobra.ExactArgs(1),
		Short:             "what a process printed",
		Long:              "Prints the end of a process's captured output; with -f it goes on as it prints.\nControl characters are shown as ? on a terminal.",
		Example:           "  gemel logs nginx\n  gemel logs -f -n 20 orders",
		ValidArgsFunction: t.completeNames,
		RunE: func(c *cobra.Command, args []string) error {
			return showLogs(c.Context(), t, &gemelv1.LogsRequest{Process: args[0], Lines: lines, Follow: follow, FromNow: follow && lines == 0 && c.Flags().Changed("lines")})
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it prints, until Ctrl-C")
	c.Flags().Uint32VarP(&lines, "lines", "n", 0, "so many lines of the end (default 100)")
	return c
}

func showLogs(ctx context.Context, t *tool, q *gemelv1.LogsRequest) error {
	client, err := t.dial(ctx)
	if err != nil {
		return err
	}
	stream, err := client.Logs(ctx, q)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		b := stream.Msg().GetData()
		switch {
		case t.json:
			err = t.printJSON(map[string]string{"process": q.GetProcess(), "data": string(b)})
		case t.colour || width(t.w.Out) > 0:
			_, err = fmt.Fprint(t.w.Out, clean(string(b)))
		default:
			_, err = t.w.Out.Write(b)
		}
		if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return stream.Err()
}

func topCommand(t *tool) *cobra.Command {
	var once bool
	c := &cobra.Command{
		Use: "top", GroupID: "look", Args: cobra.NoArgs,
		Short: "processor and memory use of each process, the busiest first",
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial(c.Context())
			if err != nil {
				return err
			}
			stream, err := client.WatchStatus(c.Context(), &gemelv1.WatchStatusRequest{IntervalMs: 2000})
			if err != nil {
				return err
			}
			defer stream.Close()
			for n := 0; stream.Receive(); n++ {
				// The first picture has no span to count processor time over.
				if once && n == 0 && !t.json {
					continue
				}
				if err := showTop(t, stream.Msg().GetSnapshot()); err != nil {
					return err
				}
				if once {
					return nil
				}
			}
			if c.Context().Err() != nil {
				return nil
			}
			return stream.Err()
		},
	}
	c.Flags().BoolVarP(&once, "once", "1", false, "print one table and end")
	return c
}
