package netpath

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// childOf is set in a child that is one node of several: see crowd.
const childOf = "GEMEL_TEST_NETPATH"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childOf); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A crowd is some nodes on loopback: how often they beat, and where each is on
// each network.
type crowd struct {
	Interval time.Duration
	Addrs    [][]netip.AddrPort // by node, by network
}

func newCrowd(t testing.TB, ip string, nodes, networks int, interval time.Duration) crowd {
	c := crowd{interval, make([][]netip.AddrPort, nodes)}
	for i := range c.Addrs {
		for range networks {
			c.Addrs[i] = append(c.Addrs[i], free(t, ip))
		}
	}
	return c
}

// config is that of node i, from zero; its name counts from one.
func (c crowd) config(i int) Config {
	cfg := Config{Node: ha.Node(fmt.Sprint("n", i+1)), Cluster: "test", Keys: []Key{oldKey}, Interval: c.Interval, DSCP: 48}
	cfg.Payload = func(p []byte) []byte { return append(p, make([]byte, 200)...) }
	for n, local := range c.Addrs[i] {
		net := Network{Name: fmt.Sprint("lo", n+1), Local: local}
		for j := range c.Addrs {
			if j != i {
				net.Peers = append(net.Peers, Peer{ha.Node(fmt.Sprint("n", j+1)), c.Addrs[j][n]})
			}
		}
		cfg.Networks = append(cfg.Networks, net)
	}
	return cfg
}

// child is the first node of a crowd until its standard input ends.
func child(spec string) error {
	var c crowd
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	s, err := New(c.config(0), clock.Machine(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return s.Run(ctx)
}

// process runs the first node of a crowd as a process, until the test ends.
func (c crowd) process(t testing.TB) *os.Process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childOf+"="+string(spec))
	cmd.Stderr = t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node that is a process: %v", err)
		}
	})
	return cmd.Process
}

// until waits for what is not told by any event.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const bound = 30 * time.Second
	for end := time.Now().Add(bound); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// free returns a port that nobody has.
func free(t testing.TB, ip string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
	need.Done(t, err, "binding "+ip)
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// heardAfter reports that something of a peer came after an instant.
func heardAfter(t testing.TB, s *Station, node, network string, at ha.Instant) func() bool {
	return func() bool { return of(t, s, node, network).Last > at }
}

func TestLoopback(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			c := newCrowd(t, ip, 2, 1, 20*time.Millisecond)
			s1, _ := start(t, c.config(0), clock.Machine(), nil)
			s2, stop2 := start(t, c.config(1), clock.Machine(), nil)
			until(t, "both hear each other", func() bool {
				return of(t, s1, "n2", "lo1").RTT > 0 && of(t, s2, "n1", "lo1").RTT > 0
			})
			if got := of(t, s1, "n2", "lo1"); got.RTT > 10*time.Second || got.Clock <= 0 || got.Sessions != 1 || got.Last < got.Alive {
				t.Errorf("%+v", got)
			}
			stop2()
			// Strangers are counted, and end nothing.
			stranger, err := net.Dial("udp", c.Addrs[0][0].String())
			if err != nil {
				t.Fatal(err)
			}
			defer stranger.Close()
			for _, b := range [][]byte{{}, []byte("x"), make([]byte, 1000), bytes.Repeat([]byte("GMH\x01"), 100), make([]byte, 9000)} {
				if _, err := stranger.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "five are refused", func() bool {
				r := s1.Links()[0].Refused
				return r["size"] == 3 && r["foreign"] == 1 && r["cluster"] == 1
			})
			again := clock.Now()
			start(t, c.config(1), clock.Machine(), nil)
			until(t, "heard again", heardAfter(t, s1, "n2", "lo1", again))
		})
	}
}

func TestSocket(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		one, two := free(t, ip), free(t, ip)
		w1, err := openSocket(Network{Name: "x", Local: one}, 48)
		if err != nil {
			t.Fatal(err)
		}
		w2, err := openSocket(Network{Name: "x", Local: two}, 0)
		if err != nil {
			t.Fatal(err)
		}
		out, in := make([]byte, 200), make([]byte, maxSize+1)
		if n := testing.AllocsPerRun(200, func() {
			if err := w1.write(out, two); err != nil {
				t.Fatal(err)
			}
			if n, from, err := w2.read(in, ha.Instant(time.Hour), 0); n != len(out) || from != one || err != nil {
				t.Fatal(n, from, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for a datagram", ip, n)
		}
		level, option := unix.IPPROTO_IP, unix.IP_TOS
		if ip == "::1" {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		if err := w1.(*socket).raw.Control(func(fd uintptr) {
			tos, err := unix.GetsockoptInt(int(fd), level, option)
			prio, err2 := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
			if tos != 48<<2 || prio != 6 || err != nil || err2 != nil {
				t.Errorf("%s: mark %d, priority %d (%v, %v)", ip, tos, prio, err, err2)
			}
		}); err != nil {
			t.Error(err)
		}
		if _, _, err := w1.read(in, 1e6, 0); err != errNothing {
			t.Errorf("nothing was sent: %v", err)
		}
		w1.wake()
		if _, _, err := w1.read(in, ha.Instant(time.Hour), 0); err != errNothing {
			t.Errorf("after wake: %v", err)
		}
		if _, err := openSocket(Network{Name: "x", Local: one}, 0); err == nil {
			t.Error("one address was bound twice")
		}
		for _, w := range []wire{w1, w2} {
			if err := w.close(); err != nil {
				t.Error(err)
			}
		}
		if err := w1.write(out, two); err == nil || passing(err) {
			t.Errorf("a write to a closed socket: %v", err)
		}
	}
}

// A peer that is stopped is silent, and goes on in the same session: it sends
// nothing late.
func TestFrozenPeer(t *testing.T) {
	c := newCrowd(t, "127.0.0.1", 2, 1, 20*time.Millisecond)
	s1, _ := start(t, c.config(1), clock.Machine(), nil)
	peer := c.process(t)
	until(t, "the peer is heard", func() bool { return of(t, s1, "n1", "lo1").RTT > 0 })
	before := of(t, s1, "n1", "lo1")
	if err := peer.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, "the frozen peer is silent", func() bool {
		return clock.Now().Sub(of(t, s1, "n1", "lo1").Last) > time.Second
	})
	silent := of(t, s1, "n1", "lo1")
	if err := peer.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "the peer is heard again", heardAfter(t, s1, "n1", "lo1", silent.Last))
	if got := of(t, s1, "n1", "lo1"); got.Session != before.Session || got.Sessions != 1 || got.Received > silent.Received+20 {
		t.Errorf("before %+v\nafter %+v", silent, got)
	}
}

// A ns is a network namespace. Its thread ends with the test, and it with that.
type ns struct {
	t    *testing.T
	work chan func()
	path string
}

func newNS(t *testing.T) *ns {
	t.Helper()
	n := &ns{t, make(chan func()), ""}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not used for anything else
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for f := range n.work {
			f()
		}
	}()
	err := <-ready
	t.Cleanup(func() { close(n.work) })
	need.Done(t, err, "a network namespace")
	n.ip("link set lo up")
	return n
}

func (n *ns) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// ip runs ip(8) in the namespace: a child has that of the thread that forks it.
func (n *ns) ip(args string) {
	n.t.Helper()
	var out []byte
	var err error
	n.do(func() { out, err = exec.Command(need.Command(n.t, "ip"), strings.Fields(args)...).CombinedOutput() })
	if err != nil {
		n.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func (n *ns) open(net Network, dscp int) (w wire, err error) {
	n.do(func() { w, err = openSocket(net, dscp) })
	return w, err
}

// Two nodes, two real networks, one of IPv4 and one of IPv6.
func TestNetworks(t *testing.T) {
	need.Root(t)
	need.Command(t, "ip")
	a, b := newNS(t), newNS(t)
	addr := netip.MustParseAddrPort
	plug := func() {
		a.ip("link add y type veth peer name y netns " + b.path)
		for _, n := range []*ns{a, b} {
			n.ip("link set y up")
		}
		a.ip("addr add fd77::1/64 dev y nodad")
		b.ip("addr add fd77::2/64 dev y nodad")
	}
	a.ip("link add x type veth peer name x netns " + b.path)
	a.ip("addr add 10.77.0.1/24 dev x")
	b.ip("addr add 10.77.0.2/24 dev x")
	for _, n := range []*ns{a, b} {
		n.ip("link set x up")
	}
	cfg := func(own, other ha.Node, i, j int) Config {
		return Config{Node: own, Cluster: "test", Keys: []Key{oldKey}, Interval: 20 * time.Millisecond, Networks: []Network{
			{"x", addr(fmt.Sprintf("10.77.0.%d:5316", i)), "", []Peer{{other, addr(fmt.Sprintf("10.77.0.%d:5316", j))}}},
			{"y", addr(fmt.Sprintf("[fd77::%d]:5316", i)), "y", []Peer{{other, addr(fmt.Sprintf("[fd77::%d]:5316", j))}}},
		}}
	}
	s1, stop1 := start(t, cfg("n1", "n2", 1, 2), clock.Machine(), a.open)
	s2, stop2 := start(t, cfg("n2", "n1", 2, 1), clock.Machine(), b.open)
	defer func() { stop1(); stop2() }() // before the namespaces go
	fresh := func(what, network string) {
		t.Helper()
		now := clock.Now()
		until(t, what, func() bool {
			return of(t, s1, "n2", network).Alive > now && of(t, s2, "n1", network).Alive > now
		})
	}
	// silence waits until s1 hears n2 on one network no more; the other one goes on.
	silence := func(what, network, other string) {
		t.Helper()
		until(t, what, func() bool { return clock.Now().Sub(of(t, s1, "n2", network).Last) > 500*time.Millisecond })
		fresh(what+": the other network goes on", other)
		if since := clock.Now().Sub(of(t, s1, "n2", network).Last); since < 500*time.Millisecond {
			t.Errorf("%s: heard %v ago", what, since)
		}
	}
	fresh("x is heard both ways", "x")
	if l := s1.Links()[1]; l.Open != 0 {
		t.Errorf("a socket on an interface that is not there: %+v", l)
	}
	plug()
	fresh("y is heard after it was plugged in", "y")

	b.ip("link set x down")
	silence("the link of x is down", "x", "y")
	b.ip("link set x up")
	fresh("the link of x is up again", "x")

	a.ip("addr del 10.77.0.1/24 dev x")
	silence("the address on x was removed", "x", "y")
	until(t, "no socket without its address", func() bool { return s1.Links()[0].Open == 0 })
	a.ip("addr add 10.77.0.1/24 dev x")
	fresh("the address on x is back", "x")

	a.ip("addr del fd77::1/64 dev y")
	silence("the address on y was removed", "y", "x")
	a.ip("addr add fd77::1/64 dev y nodad")
	fresh("the address on y is back", "y")

	a.ip("link del y")
	silence("the interface y was removed", "y", "x")
	plug()
	fresh("the interface y is back", "y")

	// A rule that forbids to send: we hear, we are not heard, the socket stays.
	opens := s1.Links()[0].Opens
	a.ip("route add prohibit 10.77.0.2/32")
	now := clock.Now()
	until(t, "n2 does not hear n1 on x", func() bool { return clock.Now().Sub(of(t, s2, "n1", "x").Last) > 1500*time.Millisecond })
	until(t, "n1 hears n2 on x", heardAfter(t, s1, "n2", "x", now.Add(time.Second)))
	if l := s1.Links()[0]; l.Opens != opens || l.Failing < now || l.Error == "" {
		t.Errorf("forbidden to send: %+v", l)
	}
	a.ip("route del prohibit 10.77.0.2/32")
	fresh("allowed again", "x")
}

// Link-local addresses name their interface, which has another name at each end.
func TestLinkLocal(t *testing.T) {
	need.Root(t)
	need.Command(t, "ip")
	a, b := newNS(t), newNS(t)
	a.ip("link add la type veth peer name lb netns " + b.path)
	a.ip("link set la up")
	b.ip("link set lb up")
	a.ip("addr add fe80::a1/64 dev la nodad")
	b.ip("addr add fe80::b1/64 dev lb nodad")
	addr := netip.MustParseAddrPort
	cfg := func(own, other ha.Node, local, peer string) Config {
		return Config{Node: own, Cluster: "test", Keys: []Key{oldKey}, Interval: 20 * time.Millisecond, Networks: []Network{
			{"link", addr(local), "", []Peer{{other, addr(peer)}}},
		}}
	}
	s1, stop1 := start(t, cfg("n1", "n2", "[fe80::a1%la]:5316", "[fe80::b1%la]:5316"), clock.Machine(), a.open)
	s2, stop2 := start(t, cfg("n2", "n1", "[fe80::b1%lb]:5316", "[fe80::a1%lb]:5316"), clock.Machine(), b.open)
	defer func() { stop1(); stop2() }()
	until(t, "both hear each other", func() bool {
		return of(t, s1, "n2", "link").Alive > 0 && of(t, s2, "n1", "link").Alive > 0
	})
}
