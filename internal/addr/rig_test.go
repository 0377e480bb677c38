package addr

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/need"
)

// TestMain runs the tests of a plain user in a user namespace, where there is one
// to be had: there he is root over networks of his own.
func TestMain(m *testing.M) {
	if inside, path := os.Getenv("ADDR_TEST_INSIDE"), "unshare"; os.Geteuid() != 0 && inside == "" {
		if exec.Command(path, "-Urn", "true").Run() == nil {
			cmd := exec.Command(path, append([]string{"-Urn", os.Args[0]}, os.Args[1:]...)...)
			cmd.Env = append(os.Environ(), "ADDR_TEST_INSIDE=1")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
			if err := cmd.Run(); err != nil {
				fmt.Fprintln(os.Stderr, "in a user namespace:", err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// A ns is a network namespace. Its thread ends with the test, and it with that.
type ns struct {
	t     testing.TB
	work  chan func()
	path  string
	links *netlink.Handle
}

func newNS(t testing.TB) *ns {
	t.Helper()
	need.Root(t)
	need.Command(t, "ip")
	n := &ns{t: t, work: make(chan func())}
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
	n.do(func() { n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.links.Close)
	n.ip("link set lo up")
	return n
}

func (n *ns) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

// ip runs ip(8) in the namespace: a child has that of the thread that forks it.
func (n *ns) ip(args string, input ...string) string {
	n.t.Helper()
	var out []byte
	var err error
	n.do(func() {
		cmd := exec.Command(need.Command(n.t, "ip"), strings.Fields(args)...)
		cmd.Stdin = strings.NewReader(strings.Join(input, "\n"))
		out, err = cmd.CombinedOutput()
	})
	if err != nil {
		n.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
	return string(out)
}

// neighbour is the hardware address that a namespace knows for an address, or "".
func (n *ns) neighbour(ip string) string {
	n.t.Helper()
	all, err := n.links.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range all {
		if e.IP.Equal(net.ParseIP(ip)) && e.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE|netlink.NUD_NONE) == 0 {
			return e.HardwareAddr.String()
		}
	}
	return ""
}

// speak sends something to an address, so that its neighbour is looked up.
func (n *ns) speak(ip string) {
	n.t.Helper()
	var err error
	n.do(func() {
		var c net.Conn
		if c, err = net.Dial("udp", net.JoinHostPort(ip, "9")); err == nil {
			_, err = c.Write([]byte("x"))
			_ = c.Close()
		}
	})
	if err != nil {
		n.t.Fatalf("sending to %s: %v", ip, err)
	}
}

func (n *ns) mac(device string) string {
	n.t.Helper()
	l, err := n.links.LinkByName(device)
	if err != nil {
		n.t.Fatal(err)
	}
	return l.Attrs().HardwareAddr.String()
}

// has is how often an address is in the namespace.
func (n *ns) has(ip string) (count int) {
	n.t.Helper()
	all, err := n.links.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, a := range all {
		if a.IP.Equal(net.ParseIP(ip)) {
			count++
		}
	}
	return count
}

// lan is a switch and the machines on it. Each has eth0 with 10.9.0.N/24 and
// fd09::N/64, N from 1 on.
func lan(t testing.TB, machines int) (bridge *ns, hosts []*ns) {
	t.Helper()
	bridge = newNS(t)
	bridge.ip("link add br0 type bridge")
	bridge.ip("link set br0 up")
	for i := 1; i <= machines; i++ {
		h := newNS(t)
		plug(bridge, h, fmt.Sprintf("p%d", i), "eth0")
		h.ip(fmt.Sprintf("addr add 10.9.0.%d/24 dev eth0", i))
		h.ip(fmt.Sprintf("addr add fd09::%d/64 dev eth0 nodad", i))
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		until(t, "the kernel says that the link is up", func() bool {
			l, err := h.links.LinkByName("eth0")
			return err == nil && deviceOf(l).up
		})
		for _, ip := range []string{"10.9.0.1", "fd09::1"} {
			until(t, "the first machine is seen by all", func() bool {
				if h == hosts[0] || h.neighbour(ip) == hosts[0].mac("eth0") {
					return true
				}
				h.speak(ip)
				return false
			})
		}
	}
	return bridge, hosts
}

func plug(bridge, h *ns, port, device string) {
	h.t.Helper()
	bridge.ip(fmt.Sprintf("link add %s type veth peer name %s netns %s", port, device, h.path))
	bridge.ip("link set " + port + " master br0 up")
	h.ip("link set " + device + " up")
}

// A witness keeps what a Keeper told.
type witness struct {
	mu  sync.Mutex
	all []Event
}

func (w *witness) tell(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, e)
}

// of returns the events of a kind about an address.
func (w *witness) of(k Kind, ip string) []Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.all), func(e Event) bool { return e.Kind != k || e.Address.Addr.String() != ip })
}

// keep runs a Keeper in a namespace until the test or stop ends it.
func (n *ns) keep(cfg Config) (k *Keeper, w *witness, stop func()) {
	n.t.Helper()
	w = &witness{}
	cfg.Tell = w.tell
	log := slog.New(slog.NewTextHandler(n.t.Output(), nil))
	k, err := newKeeper(cfg, clock.Machine(), log, n.do)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Run: %v", err)
		}
	})
	n.t.Cleanup(stop)
	return k, w, stop
}

func add(t testing.TB, k *Keeper, s string) Address {
	t.Helper()
	a, err := k.Add(t.Context(), parse(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func remove(t testing.TB, k *Keeper, s string) {
	t.Helper()
	if err := k.Remove(parse(t, s)); err != nil {
		t.Fatal(err)
	}
}

func parse(t testing.TB, s string) Address {
	t.Helper()
	a, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func list(t testing.TB, k *Keeper) string {
	t.Helper()
	all, err := k.List()
	if err != nil {
		t.Fatal(err)
	}
	words := make([]string, len(all))
	for i, a := range all {
		words[i] = a.String()
	}
	return strings.Join(words, " ")
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	const bound = 20 * time.Second
	for end := time.Now().Add(bound); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", bound, what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// each runs a test for IPv4 and for IPv6, with a service address of the lan.
func each(t *testing.T, f func(t *testing.T, vip string)) {
	t.Run("IPv4", func(t *testing.T) { f(t, "10.9.0.100") })
	t.Run("IPv6", func(t *testing.T) { f(t, "fd09::100") })
}
