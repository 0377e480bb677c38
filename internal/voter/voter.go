// Package voter runs this node's member of the cluster's store: it tells it who it is
// from node.yaml and the files beside it, and where the others are when that changes.
// With it comes etcd, so that neither half of the daemon imports it: the program that
// gemel-store is made of does.
package voter

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"gemel/internal/manifest"
	"gemel/internal/places"
	"gemel/internal/proc"
	"gemel/internal/roll"
	"gemel/internal/store/member"
)

// lookAgain is how often a member looks whether the others are elsewhere by now.
const lookAgain = time.Second

// Run runs the member until ctx ends or the member does.
func Run(ctx context.Context, p places.Places, log *slog.Logger) error {
	home := roll.HomeOf(p)
	id, err := home.Identity()
	if err != nil {
		return err
	}
	if id == nil {
		return fmt.Errorf("this machine is of no cluster: there is no %s", home.Node)
	}
	if err := proc.Urgent(); err != nil {
		log.Warn("a machine that is busy can make this node lose its authority", "why", err)
	}
	m := member.Member{
		Name: string(id.Name), Dir: home.StoreDir(), Socket: p.StoreSocket(),
		Token: id.Cluster.Token, Heartbeat: id.Timers.Tick, Election: id.Timers.Election, Plain: true,
	}
	if m.Token == "" {
		m.Token = id.Cluster.ID
	}
	if tls, err := home.TLS(id.Cluster.ID); err != nil {
		return err
	} else if tls.Cert != "" {
		m.TLS, m.Plain = tls, false
	} else {
		log.Warn("the members of the store speak without TLS: this node has no certificates, which gemel init and gemel join make", "node", home.Node)
	}
	m.Cluster = voters(id)
	m.Listen = m.Cluster[m.Name]
	m.Join = home.Joining()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	defer func() { cancel(); <-ended }()
	moved := make(chan map[string][]string)
	m.Moved = moved
	go func() {
		defer close(ended)
		follow(ctx, home, moved, log)
	}()
	return member.Serve(ctx, m, log)
}

// voters are where the members of the store are, by name.
func voters(id *manifest.Identity) map[string][]string {
	out := map[string][]string{}
	for _, p := range id.Peers {
		if !p.Voter {
			continue
		}
		for _, at := range p.Store {
			out[string(p.Name)] = append(out[string(p.Name)], at.String())
		}
	}
	return out
}

// follow tells a member of each change of node.yaml, until ctx ends.
func follow(ctx context.Context, home roll.Home, moved chan<- map[string][]string, log *slog.Logger) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last os.FileInfo
	for {
		if st, err := os.Stat(home.Node); err == nil && (last == nil || !os.SameFile(st, last) || st.ModTime() != last.ModTime()) {
			last = st
			id, err := home.Identity()
			if err != nil || id == nil {
				log.Warn("node.yaml cannot be read; the voters stay where they were", "error", err)
			} else {
				select {
				case moved <- voters(id):
				case <-ctx.Done():
					return
				}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
