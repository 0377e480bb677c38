package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ask"
)

func replayCommand(t *tool) *cobra.Command {
	var since string
	var limit uint32
	c := &cobra.Command{
		Use: "replay [DIR]", GroupID: "look", Args: args(0, 1),
		Short: "run the journal through the deciding core and say where it differs",
		Long: `Feeds every recorded fact to the core again and compares the orders with the recorded
ones. No difference means that the journal explains everything that was done. The exit
status is 1 if there is one.

With DIR it reads the journal there (a data directory or the journal in one, as somebody
sent it) and asks no daemon.`,
		Example: "  gemel replay\n  gemel replay --since 2h\n  gemel replay /tmp/from-a-customer/journal",
		RunE: func(c *cobra.Command, args []string) error {
			var from time.Time
			if since != "" {
				var err error
				if from, err = parseTime(since, time.Now()); err != nil {
					return err
				}
			}
			var r *gemelv1.ReplayResponse
			var err error
			if len(args) == 1 {
				r, err = replayThere(args[0], from, int(limit))
			} else {
				r, err = replayHere(c.Context(), t, from, limit)
			}
			if err != nil {
				return err
			}
			if t.json {
				err = t.printJSON(json.RawMessage(r.GetReportJson()))
			} else {
				_, err = fmt.Fprint(t.out, clean(r.GetText()))
			}
			if err == nil && r.GetDifferences() > 0 {
				err = exitStatus(ExitFailed)
			}
			return err
		},
	}
	c.Flags().StringVar(&since, "since", "", "compare only from `TIME` on (gemel help times)")
	c.Flags().Uint32Var(&limit, "limit", 0, "show at most `N` differences (default 20); all are counted")
	return c
}

func replayHere(ctx context.Context, t *tool, since time.Time, limit uint32) (*gemelv1.ReplayResponse, error) {
	client, err := t.dial()
	if err != nil {
		return nil, err
	}
	q := &gemelv1.ReplayRequest{Limit: limit}
	if !since.IsZero() {
		q.Since = timestamppb.New(since)
	}
	return client.Replay(ctx, q)
}

// replayThere replays a journal that lies somewhere.
func replayThere(dir string, since time.Time, limit int) (*gemelv1.ReplayResponse, error) {
	if st, err := os.Stat(filepath.Join(dir, "journal")); err == nil && st.IsDir() {
		dir = filepath.Join(dir, "journal")
	}
	list, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound{dir + " does not exist", "name a data directory, or the journal in one"}
	case err != nil:
		return nil, fmt.Errorf("reading the journal: %w", err)
	case len(list) == 0:
		return nil, notFound{dir + " is empty: it is no journal", "name a data directory, or the journal in one"}
	}
	r, err := ask.Replay(dir, since, limit)
	if err != nil {
		return nil, err
	}
	if r.Lives == 0 && r.Skipped == 0 {
		return nil, notFound{"there is no journal in " + dir, "name a data directory, or the journal in one"}
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("telling the replay: %w", err)
	}
	return &gemelv1.ReplayResponse{Text: r.Text(), Differences: uint64(r.Differences), ReportJson: string(doc)}, nil
}
