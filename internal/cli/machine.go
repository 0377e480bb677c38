package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/places"
	"gemel/internal/roll"
)

// machine are the flags of init and join about this machine.
type machine struct {
	name      string
	addresses []string
	one       bool
	still     bool
	store     string
}

func (m *machine) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&m.name, "name", "", "`NAME` of this node (default: the host's, up to the first dot)")
	f.StringArrayVar(&m.addresses, "address", nil, "an address of this machine: `NET=IP`; once for each network (default: they are looked for)")
	f.StringVar(&m.store, "store", "", "the `FILE` that says where an etcd of your own is, to keep the cluster's store; for join: where this machine has its files")
	f.BoolVar(&m.one, "one-network", false, "there is one network only, and it is known what follows from that")
	f.BoolVar(&m.still, "no-start", false, "do not have systemd run Gemel as its service")
}

// start has the service manager run this node from now on, where there is one for that.
func (m *machine) start(ctx context.Context, t *tool) (bool, error) {
	if m.still || t.w.Serve == nil {
		return false, nil
	}
	p, err := places.Find(t.given)
	if err != nil {
		return false, err
	}
	served, err := t.w.Serve(ctx, p)
	if err != nil {
		return false, fmt.Errorf("everything is written, but the node does not run: %w", err)
	}
	return served, nil
}

const asService = "it runs, as the service gemel of systemd, and after each boot"

// setup is what a person says of this machine.
func setup(t *tool, m machine) (roll.Setup, error) {
	p, err := places.Find(t.given)
	if err != nil {
		return roll.Setup{}, err
	}
	name := m.name
	if name == "" {
		name, _, _ = strings.Cut(places.Node(""), ".")
	}
	s := roll.Setup{Home: roll.HomeOf(p), Name: name, Named: m.name != "", Addresses: m.addresses, One: m.one, Say: func(text string) {
		if !t.json {
			t.say(text)
		}
	}}
	if m.store == "" {
		return s, nil
	}
	b, err := os.ReadFile(m.store)
	if err != nil {
		return s, &ha.Error{Kind: ha.ErrInvalid, Reason: "store", Hint: "gemel help init has an example", Err: fmt.Errorf("reading where the etcd is: %w", err)}
	}
	s.Store, err = config.ParseStore(m.store, b)
	return s, err
}

// undone turns a refusal into an error that the tool tells as one.
func undone(err error) error {
	var no *roll.Refused
	if errors.As(err, &no) {
		return &ha.Error{Kind: ha.ErrRefused, Reason: "refused", Hint: no.Hint, Err: err}
	}
	return err
}

// takeUp has a daemon that runs here begin anew as what node.yaml says, by exec in the
// same pids: no program notices. Without one, the service is started.
func (m *machine) takeUp(ctx context.Context, t *tool) (runs, served bool, err error) {
	if _, err := t.dial(); err != nil {
		var known *ha.Error
		if errors.As(err, &known) && known.Kind == ha.ErrUnavailable {
			served, err := m.start(ctx, t)
			return false, served, err
		}
		return false, false, err
	}
	if _, _, err := upgrade(ctx, t, &gemelv1.UpgradeRequest{}); err != nil {
		return true, false, fmt.Errorf("everything is written, but the daemon has not taken it up: %w", err)
	}
	return true, false, nil
}
