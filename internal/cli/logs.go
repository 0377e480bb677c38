package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
)

func logsCommand(t *tool) *cobra.Command {
	var follow bool
	var lines uint32
	c := &cobra.Command{
		Use: "logs NAME", GroupID: "look", Args: args(1, 1),
		Short: "what a process printed",
		Long: `Prints the end of a process's captured output; with -f it goes on as it prints, also over
a restart of the process or of the daemon. On a terminal control characters are shown as
?; into a file or a pipe the output goes as it was written.`,
		Example:           "  gemel logs nginx\n  gemel logs -f -n 20 orders",
		ValidArgsFunction: firstOnly(t.names(false)),
		RunE: func(c *cobra.Command, args []string) error {
			sub, err := t.target(c.Context(), args[0])
			if err != nil {
				return err
			}
			if sub.GetKind() != gemelv1.Kind_KIND_PROCESS {
				return wrongUsage("%s is no process; only processes print", args[0])
			}
			q := &gemelv1.LogsRequest{Process: sub.GetName(), Lines: lines}
			if lines == 0 && c.Flags().Changed("lines") {
				if !follow {
					return nil
				}
				q.FromNow = true
			}
			l := &logReader{t: t, process: sub.GetName()}
			if follow {
				return l.follow(c.Context(), q)
			}
			return l.read(c.Context(), q, l.print)
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it prints, until Ctrl-C")
	c.Flags().Uint32VarP(&lines, "lines", "n", 0, "so many `LINES` of the end (default 100)")
	return c
}

// logReader prints the output of one process.
type logReader struct {
	t       *tool
	process string
	place   string // after what was printed last; empty: nothing was
	told    func() // called with each piece; nil: nobody
}

// read asks for output and gives each piece of it to each.
func (l *logReader) read(ctx context.Context, q *gemelv1.LogsRequest, each func([]byte) error) error {
	client, err := l.t.dial()
	if err != nil {
		return err
	}
	stream, err := client.Logs(ctx, q)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if l.told != nil {
			l.told()
		}
		if err := each(stream.Msg().GetData()); err != nil {
			return err
		}
		if at := stream.Msg().GetPlace(); at != "" {
			l.place = at
		}
	}
	return stream.Err()
}

// follow goes on until ctx ends or the daemon stays away. The log is in files
// that the death of a monitor does not touch: what came meanwhile is read there.
func (l *logReader) follow(ctx context.Context, q *gemelv1.LogsRequest) error {
	client, err := l.t.dial()
	if err != nil {
		return err
	}
	ctx, stop := l.t.out.reader(ctx)
	defer stop()
	patience := client.Patience()
	l.told = patience.Back
	q.Follow = true
	for {
		err := l.read(ctx, q, l.print)
		if l.t.out.err != nil {
			return l.t.out.err
		}
		if err == nil {
			err = ended("the stream of output")
		}
		if err := patience.Wait(ctx, err); err != nil {
			return because(ctx, err)
		}
		q.After = l.place
	}
}

func (l *logReader) print(b []byte) error {
	var err error
	switch {
	case len(b) == 0:
	case l.t.json:
		err = l.t.printJSON(map[string]string{"process": l.process, "data": string(b)})
	case l.t.out.terminal():
		_, err = fmt.Fprint(l.t.out, clean(string(b)))
	default:
		_, err = l.t.out.Write(b)
	}
	return errors.Join(err, l.t.out.err)
}
