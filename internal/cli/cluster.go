package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/places"
	"gemel/internal/roll"
)

func initCommand(t *tool) *cobra.Command {
	var m machine
	var profile, cluster string
	c := &cobra.Command{
		Use: "init", GroupID: "cluster", Args: args(0, 0),
		Short: "make a cluster of this machine, and print what to type on the second",
		Long: `Makes this machine the first node of a new cluster: its keys, its certificates, its list of
machines and node.yaml. It prints the command that takes the second machine in.

A daemon that runs here goes on as that node at once, and no program is restarted: those
of groups run by an authority from then on, with the deadlines that belong to it.

The cluster keeps its store itself, and needs a witness for that beside two nodes. With an
etcd of your own it does not: --store FILE, with a FILE as

  endpoints: [10.0.0.21:2379, 10.0.0.22:2379, 10.0.0.23:2379]
  election-timeout: 1s                    # with which the etcd was started
  ca: /etc/gemel/etcd/ca.pem
  user: gemel                             # or certificate and key
  password-file: /etc/gemel/etcd/password

The etcd is tried first: its version, who it takes this machine for, what it gives to it,
and how long a write takes.`,
		Example: "  gemel init\n  gemel init --address blue=10.0.0.1 --address red=10.1.0.1 --profile fast\n  gemel init --store /etc/gemel/etcd.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := setup(t, m)
			if err != nil {
				return err
			}
			s.Profile, s.Cluster = profile, cluster
			b, err := t.w.Begin(c.Context(), s)
			if err != nil {
				return undone(err)
			}
			runs, served, err := m.takeUp(c.Context(), t)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(begun(b, runs || served))
			}
			fmt.Fprintf(t.out, "cluster %s (%s) begins with this machine, %s\n", b.Name, b.Cluster, b.Node)
			tellWays(t, b)
			switch {
			case served:
				fmt.Fprintln(t.out, asService)
			case !runs:
				fmt.Fprintf(t.out, "start it here:\n  %s\n", t.command("gemel run FILE"))
			}
			fmt.Fprintf(t.out, "on the second machine, until %s:\n  %s\n", b.Until.Local().Format("15:04:05 -0700"), joinLine(b.Doors, b.Token))
			if s.Store.External() {
				fmt.Fprintf(t.out, "the etcd has the votes: no witness is needed. Its files, which %s names, have to be on that machine as well\n", quoted(m.store))
			} else {
				fmt.Fprintf(t.out, "then on a third one, which only votes: the command that this prints:\n  %s\n", t.command("gemel token --witness"))
			}
			fmt.Fprintf(t.out, "to take it back: %s\n", undoInit(t, s))
			return nil
		},
	}
	m.flags(c)
	c.Flags().StringVar(&profile, "profile", "normal", "the times of the cluster: `PROFILE` normal, fast or guarded")
	c.Flags().StringVar(&cluster, "cluster-name", "cluster", "`NAME` of the cluster, for people")
	return c
}

// undoInit says how an init is taken back, as long as nobody has joined.
func undoInit(t *tool, s roll.Setup) string {
	return fmt.Sprintf("rm -r %s %s %s; %s", s.Home.Node, filepath.Join(s.Home.Data, "cluster"), s.Home.StoreDir()+"*", t.command("gemel upgrade"))
}

func joinLine(doors []string, token string) string {
	return "gemel join " + quoted(strings.Join(doors, ",")) + " " + token // a shell takes [fd00::1] for a pattern
}

func tellWays(t *tool, b roll.Begun) {
	for _, w := range b.Ways {
		fmt.Fprintf(t.out, "  %s\n", w)
	}
}

func begun(b roll.Begun, runs bool) map[string]any {
	o := map[string]any{"cluster": b.Cluster, "name": b.Name, "node": b.Node, "ways": b.Ways, "running": runs, "fsync_p99_us": b.Fsync.Microseconds(), "missing": b.Missing}
	if b.Token != "" {
		o["token"], o["until"], o["doors"] = b.Token, b.Until.UTC().Format(time.RFC3339), b.Doors
	}
	if b.File != "" {
		o["manifest"] = b.File
	}
	return o
}

func joinCommand(t *tool) *cobra.Command {
	var m machine
	var witness, anew bool
	c := &cobra.Command{
		Use: "join ADDRESS[,ADDRESS]... TOKEN", GroupID: "cluster", Args: args(2, -1),
		Short: "take this machine into a cluster, with the token that a node of it printed",
		Long: `Makes this machine a node of a cluster, or its witness if the token is for one. ADDRESS is
one of a node; TOKEN comes from gemel init or gemel token on a node, and is good once.

Before anything is changed it is looked whether ports are free, all nodes are reached on
all networks in both directions, clocks run alike, and the disk is quick enough. What
would break later is refused now, with the sequence of events that would break it. The
same command may be repeated until it has come to its end.`,
		Example: "  gemel join 10.0.0.1,10.1.0.1 gj1...\n  gemel join 10.0.0.1 gj1... --address blue=10.0.0.2 --address red=10.1.0.2",
		RunE: func(c *cobra.Command, args []string) error {
			s, err := setup(t, m)
			if err != nil {
				return err
			}
			if err := idle(c.Context(), t); err != nil {
				return err
			}
			s.Witness, s.Anew = witness, anew
			last := len(args) - 1
			b, err := t.w.Join(c.Context(), s, args[:last], args[last])
			if err != nil {
				return undone(err)
			}
			runs, served, err := m.takeUp(c.Context(), t)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(begun(b, runs || served))
			}
			fmt.Fprintf(t.out, "%s is in the cluster %s (%s)\n", b.Node, b.Name, b.Cluster)
			tellWays(t, b)
			what := "the manifest of the cluster is"
			if witness {
				what = "what it runs, nothing, is"
			}
			switch {
			case runs:
				fmt.Fprintf(t.out, "%s in %s; put it in force here:\n  %s\n", what, b.File, t.command("gemel apply "+quoted(b.File)))
			case served:
				fmt.Fprintf(t.out, "%s in %s\n%s\n", what, b.File, asService)
			default:
				fmt.Fprintf(t.out, "%s in %s; start it:\n  %s\n", what, b.File, t.command("gemel run "+quoted(b.File)))
			}
			if b.Missing != "" {
				fmt.Fprintf(t.out, "%s\n", b.Missing)
				fmt.Fprintf(t.out, "for the witness, the command that this prints on a node: %s\n", t.command("gemel token --witness"))
			}
			return nil
		},
	}
	m.flags(c)
	c.Flags().BoolVar(&witness, "witness", false, "it must be a token for a witness")
	c.Flags().BoolVar(&anew, "anew", false, "forget the cluster that this machine was in before, which was restored elsewhere or is no more")
	return c
}

// idle refuses a machine on which groups run: they are the cluster's from now on.
func idle(ctx context.Context, t *tool) error {
	s, err := t.snapshot(ctx)
	if err != nil {
		var known *ha.Error
		if errors.As(err, &known) && known.Kind == ha.ErrUnavailable {
			return nil
		}
		return err
	}
	if s.GetCluster() != nil {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "in-cluster", Hint: "gemel leave takes it out", Err: fmt.Errorf("this machine is in the cluster %s already", s.GetCluster().GetName())}
	}
	var names []string
	for _, g := range s.GetGroups() {
		names = append(names, g.GetName())
	}
	if len(names) == 0 {
		return nil
	}
	return &ha.Error{Kind: ha.ErrRefused, Reason: "groups", Hint: "gemel shutdown; then join, then gemel run with the manifest that join brings",
		Err: fmt.Errorf("groups run here: %s. In the cluster each of them may be on another node by the time this one is in it: it would be active twice until one of them learned of the other", strings.Join(names, ", "))}
}

func tokenCommand(t *tool) *cobra.Command {
	var q gemelv1.TokenRequest
	var life time.Duration
	c := &cobra.Command{
		Use: "token", GroupID: "cluster", Args: args(0, 0),
		Short: "make a token, with which one machine joins once",
		Long: `Makes a token and prints the command for the machine that joins by it. With --name it is
good for that name alone; if a machine of that name is in the cluster, the newcomer takes
its place, and the certificates of the old one are good no more.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("for") && life < time.Minute || life > 7*24*time.Hour {
				return wrongUsage("--for is %s; from a minute to seven days is allowed", ha.Span(life))
			}
			q.Seconds = uint32(life / time.Second)
			r, err := token(c.Context(), t, &q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			line := joinLine(r.GetAddresses(), r.GetToken())
			if q.Witness {
				line = strings.Replace(line, "join", "join --witness", 1)
			}
			fmt.Fprintf(t.out, "on the machine that joins, until %s:\n  %s\n", r.GetUntil().AsTime().Local().Format("2006-01-02 15:04:05 -0700"), line)
			return nil
		},
	}
	c.Flags().BoolVar(&q.Witness, "witness", false, "for a witness, which only votes")
	c.Flags().StringVar(&q.Name, "name", "", "for this `NAME` alone; the machine that has it is replaced")
	c.Flags().DurationVar(&life, "for", time.Hour, "how long it is good: `DURATION`")
	return c
}

// tokenBound is how long a monitor may take to be replaced, once and again.
const tokenBound = 10 * time.Second

// token asks for a token, and asks again when the monitor is replaced in the middle of it,
// as it is whenever a machine has joined, which is when the next token is asked for.
func token(ctx context.Context, t *tool, q *gemelv1.TokenRequest) (*gemelv1.TokenResponse, error) {
	for end := time.Now().Add(tokenBound); ; {
		client, err := t.dial()
		if err != nil {
			return nil, err
		}
		r, err := client.Token(ctx, q)
		var e *ha.Error
		if err == nil || time.Now().After(end) || !errors.As(err, &e) || e.Reason != "connection" && e.Reason != "ending" && e.Reason != "starting" {
			return r, err
		}
		pause := time.NewTimer(reachLook)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		case <-pause.C:
		}
	}
}

func leaveCommand(t *tool) *cobra.Command {
	var q gemelv1.LeaveRequest
	c := &cobra.Command{
		Use: "leave", GroupID: "cluster", Args: args(0, 0),
		Short: "take this machine out of its cluster, and stop everything on it",
		Long: `The groups of this node go to others, then its name, its vote and its certificates end, and
then everything that runs here is stopped: what its manifest says may run elsewhere now.

A cluster of two nodes and a witness shrinks to one node only together with the witness
(--with-witness), since two voters are fewer than one: the death of either stops both.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Leave(c.Context(), &q)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintf(t.out, "this machine has left its cluster; everything on it is being stopped\n  to take it back: %s on a node, and join by it\n", t.command("gemel token"))
			return nil
		},
	}
	c.Flags().BoolVar(&q.WithWitness, "with-witness", false, "the witnesses leave with it")
	return c
}

func renewCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "renew", GroupID: "cluster", Args: args(0, 0),
		Short: "get new keys and certificates for this machine now",
		Long: `Certificates renew themselves long before their end. This does it now, as after a key may
have been seen. The ones before stay good for what is under way; the fourth key takes the
first one back.`,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			r, err := client.Renew(c.Context(), &gemelv1.RenewRequest{})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(object(r))
			}
			fmt.Fprintln(t.out, "new keys and certificates are in force")
			return nil
		},
	}
}

func backupCommand(t *tool) *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", GroupID: "cluster", Args: args(1, 1),
		Short: "write a copy of the cluster's store to a file",
		Long: `Writes the whole store, at one instant, to FILE, which must not exist. It is for gemel
restore, when most of the voters are lost for good.`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := t.dial()
			if err != nil {
				return err
			}
			stream, err := client.Backup(c.Context(), &gemelv1.BackupRequest{})
			if err != nil {
				return err
			}
			defer stream.Close()
			n, err := save(args[0], func(w io.Writer) error {
				for stream.Receive() {
					if _, err := w.Write(stream.Msg().GetData()); err != nil {
						return err
					}
				}
				return stream.Err()
			})
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(map[string]any{"file": args[0], "bytes": n})
			}
			fmt.Fprintf(t.out, "%s: %d bytes\n", args[0], n)
			return nil
		},
	}
}

func restoreCommand(t *tool) *cobra.Command {
	var m machine
	var off []string
	c := &cobra.Command{
		Use: "restore FILE", GroupID: "cluster", Args: args(1, 1),
		Short: "begin the cluster anew from a backup, when most of its voters are lost for good",
		Long: `Makes the cluster anew from FILE, a file of gemel backup, with this machine as its only
node. It is the last resort: while most of the voters live, or come back, there is nothing
to restore (a machine that is broken is replaced with gemel token --name).

The sequence:
  1. on this machine, which was a node: gemel shutdown
  2. turn off every other node that may run something, or be sure that it is
  3. gemel restore FILE --off b,c      names them: that somebody says so is written down
  4. gemel run                          this machine has all groups that may be here
  5. on each other one, once it is on:  gemel shutdown; gemel join --anew, with the token
     that this prints (gemel token for more)

A new era begins. Keys, certificates and tokens are made anew, and what was granted is
forgotten: no right, fence or membership of before counts. The fences go on, since those
of a later era are greater. What was applied or set after the backup is lost.

A node that is not named is refused, also one that does not answer; one that answers and
proves who it is is refused in any case. Before this machine becomes a node again, the
command waits until every right of before is over by every clock.`,
		Example: "  gemel restore /var/backups/store.gemel --off beta",
		RunE: func(c *cobra.Command, args []string) error {
			p, err := places.Find(t.given)
			if err != nil {
				return err
			}
			s, err := setup(t, m)
			if err != nil {
				return err
			}
			file, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("finding %s: %w", args[0], err)
			}
			b, err := t.w.Restore(c.Context(), RunOptions{Places: p, File: file}, s, off)
			if err != nil {
				return undone(err)
			}
			served, err := m.start(c.Context(), t)
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(begun(b, served))
			}
			fmt.Fprintf(t.out, "cluster %s (%s) begins anew with this machine, %s\n", b.Name, b.Cluster, b.Node)
			tellWays(t, b)
			if served {
				fmt.Fprintln(t.out, asService)
			} else {
				fmt.Fprintf(t.out, "start it here:\n  %s\n", t.command("gemel run FILE"))
			}
			fmt.Fprintf(t.out, "on a second machine, until %s:\n  %s\n", b.Until.Local().Format("15:04:05 -0700"), joinLine(b.Doors, b.Token)+" --anew")
			fmt.Fprintln(t.out, "there is no way back: the store of before is gone from this machine")
			return nil
		},
	}
	c.Flags().StringVar(&m.name, "name", "", "`NAME` of the node whose place this machine takes (default: its own)")
	c.Flags().BoolVar(&m.still, "no-start", false, "do not have systemd run Gemel as its service")
	c.Flags().StringSliceVar(&off, "off", nil, "the other nodes that are off, as `a,b`")
	return c
}

// save writes a new file, which is there whole or not at all.
func save(path string, fill func(io.Writer) error) (n int64, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, &ha.Error{Kind: ha.ErrRefused, Reason: "exists", Hint: "give another name", Err: fmt.Errorf("%s is there already", path)}
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = fill(f)
	if err == nil {
		n, err = f.Seek(0, io.SeekCurrent)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return 0, fmt.Errorf("writing %s: %w", path, err)
	}
	return n, errors.Join(os.Link(f.Name(), path), os.Remove(f.Name()))
}
