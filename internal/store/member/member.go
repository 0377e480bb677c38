package member

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"gemel/internal/store"
)

const (
	peerPort = "5316"

	// Two voters come at once, so that there are never two in all.
	maxLearners = 2
	// Operations of one transaction: a brain that evicts a node moves all its groups.
	txnLimit = 4096

	// Bounds of what stays on the disk: after so many entries the log begins anew.
	// Who is further behind than the second gets the whole store, which is small.
	snapshotEvery   = 2000
	snapshotCatchUp = 500
	walSegment      = 16 << 20
	keepRevisions   = "1000"
)

// A Member is one voter, as it is started.
type Member struct {
	// Name is the node's.
	Name string
	// Dir is the data directory, which is etcd's alone. Beside it are Dir.mark, which
	// says whose data it is, and Dir.lock.
	Dir string
	// Socket is where clients of this machine connect, and nobody else: its mode is
	// 0600. It may be longer than what the kernel takes in an address.
	Socket string
	// Listen are the addresses for the other voters, as "10.0.0.1:5316" or
	// "[fd00::1]"; 5316 is the port if there is none.
	Listen []string
	// Cluster says of each voter by name where the others reach it, this one
	// included. One address for each network; the first that answers is taken, and
	// another one when it falls silent.
	Cluster map[string][]string
	// Moved tells Cluster anew, while the member runs: voters that came, left or have
	// other addresses. nil: it never changes.
	Moved <-chan map[string][]string `json:"-"`
	// Join says that the cluster lives and has added this one. Otherwise it is made
	// by those in Cluster, together and once.
	Join bool
	// Token tells clusters apart that have the same addresses. A cluster that is
	// restored gets another one.
	Token string
	TLS   store.TLS
	// Plain lets voters speak without TLS over more than loopback.
	Plain bool
	// Heartbeat and Election are etcd's timers, in whole milliseconds; zero is
	// 40 ms and ten heartbeats. Law of the timers: 0.8 L less the stop budget is at
	// least twice Election and what a write and a round trip take.
	Heartbeat, Election time.Duration
	// Ready is called once, when the member serves.
	Ready func() `json:"-"`
}

// checked returns the member with its defaults, or what is wrong with it.
func (m Member) checked() (Member, error) {
	if m.Heartbeat == 0 {
		m.Heartbeat = 40 * time.Millisecond
	}
	if m.Election == 0 {
		m.Election = 10 * m.Heartbeat
	}
	var wrong []error
	for _, c := range []struct {
		bad  bool
		text string
	}{
		{m.Name == "" || len(m.Name) > 50 || strings.ContainsAny(m.Name, ",="), fmt.Sprintf("the name %q of a store member must be 1 to 50 bytes, without comma and equals sign", m.Name)},
		{!filepath.IsAbs(m.Dir), fmt.Sprintf("the store's directory %q must be an absolute path", m.Dir)},
		{!filepath.IsAbs(m.Socket), fmt.Sprintf("the store's socket %q must be an absolute path", m.Socket)},
		{m.Token == "", "the store's token is empty; it must tell this cluster from all others"},
		{len(m.Listen) == 0, "the store listens on no address for the other voters; give at least one"},
		{len(m.Cluster[m.Name]) == 0, fmt.Sprintf("the list of voters says no address of %q itself", m.Name)},
		{m.Heartbeat < time.Millisecond || m.Heartbeat%time.Millisecond != 0 || m.Election%time.Millisecond != 0,
			fmt.Sprintf("the store's timers %v and %v must be whole milliseconds", m.Heartbeat, m.Election)},
		{m.Election < 5*m.Heartbeat || m.Election > 50*time.Second,
			fmt.Sprintf("the store's election time-out %v must be at least 5 heartbeats (%v) and at most 50s", m.Election, 5*m.Heartbeat)},
		{m.TLS != (store.TLS{}) && (m.TLS.Cert == "" || m.TLS.Key == "" || m.TLS.CA == "" || m.TLS.Role == ""),
			"TLS between voters needs all of certificate, key, CA and role"},
	} {
		if c.bad {
			wrong = append(wrong, errors.New(c.text))
		}
	}
	for _, at := range slices.Concat(m.Listen, m.Cluster[m.Name]) {
		host, _, err := splitAddr(at)
		if err != nil {
			wrong = append(wrong, err)
		} else if m.TLS == (store.TLS{}) && !m.Plain && !store.Loopback(host) {
			wrong = append(wrong, fmt.Errorf("voters speak over %s without TLS: only loopback may do so; give a certificate, a key and a CA", at))
		}
	}
	return m, errors.Join(wrong...)
}

// splitAddr returns host and port of an address that may have no port.
func splitAddr(at string) (host, port string, err error) {
	if ip, err := netip.ParseAddr(strings.Trim(at, "[]")); err == nil {
		host, port = ip.String(), peerPort
	} else if host, port, err = net.SplitHostPort(at); err != nil {
		return "", "", fmt.Errorf("address %q of a voter: want an IP address, with a port or without, as 10.0.0.1:5316 or [fd00::1]:5316", at)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", fmt.Errorf("address %q of a voter: the port must be a number from 1 to 65535", at)
	}
	if strings.Contains(host, "%") {
		return "", "", fmt.Errorf("address %q of a voter: an address with a zone means something else on every machine; give one that has none", at)
	}
	return host, port, nil
}

// initial returns the voters as etcd wants them: "a=unix://61:1,b=unix://62:1". The
// addresses are not among it: they may change without etcd.
func (m Member) initial() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m.Cluster)) {
		out = append(out, name+"="+store.PeerURL(name))
	}
	return strings.Join(out, ",")
}

// config returns etcd's configuration. socket is the address of Socket.
func (m Member) config(socket string, log *zap.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = m.Name, m.Dir
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	c.LogLevel = "warn"

	own := url.URL{Scheme: "unix", Host: door(m.Name)}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{own}, []url.URL{own}
	c.InitialCluster = m.initial()
	c.ListenClientUrls = []url.URL{{Scheme: "unix", Path: socket}}
	// Nobody connects to this one: it is how others see that the member has served.
	c.AdvertiseClientUrls = []url.URL{{Scheme: "unix", Path: "/" + m.Name}}
	c.InitialClusterToken = m.Token
	if m.Join {
		c.ClusterState = embed.ClusterStateFlagExisting
	}

	c.TickMs, c.ElectionMs = uint(m.Heartbeat/time.Millisecond), uint(m.Election/time.Millisecond)
	c.PreVote, c.StrictReconfigCheck = true, true
	c.MaxLearners = maxLearners
	c.QuotaBackendBytes, c.MaxRequestBytes, c.MaxTxnOps = store.Quota, store.RequestLimit, txnLimit
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, keepRevisions
	c.SnapshotCount, c.SnapshotCatchUpEntries = snapshotEvery, snapshotCatchUp
	c.MaxSnapFiles, c.MaxWalFiles = 2, 2
	c.EnableGRPCGateway, c.EnablePprof = false, false
	// What is in the address or the host name of a request over the socket says nothing.
	// Windows of a fixed size: a window that is measured costs a ping, and its answer, with
	// each question, and everybody here is on this machine.
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.InitialWindowSize(store.RequestLimit), grpc.InitialConnWindowSize(store.RequestLimit)}
	c.CORS, c.HostWhitelist = map[string]struct{}{}, map[string]struct{}{"*": {}}
	return c
}
