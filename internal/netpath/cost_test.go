package netpath

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gemel/internal/clock"
	"gemel/internal/ha"
)

// BenchmarkDatagram is the work of one heartbeat without the kernel: sealed by
// one end, judged by the other.
func BenchmarkDatagram(b *testing.B) {
	for _, size := range []int{0, 200, MaxPayload} {
		b.Run(fmt.Sprintf("payload=%d", size), func(b *testing.B) {
			l, good := judged(b, make([]byte, size))
			if r := l.judge(good, at(1, 2), ha.Instant(time.Hour*1e4)); r != accepted {
				b.Fatal(r)
			}
			out, err := newSeal(oldKey, direction{"test", "net1", "n2", "n1"})
			if err != nil {
				b.Fatal(err)
			}
			h := head{
				key: 1, session: 99, seq: 1, cluster: tagOf("cluster", "test", ""),
				network: tagOf("network", "test", "net1"), sender: tagOf("node", "test", "n2"),
			}
			m := body{stamp: 1, payload: make([]byte, size)}
			m.stamp = ha.Instant(time.Hour * 1e4)
			d := make([]byte, 0, maxSize)
			b.ReportAllocs()
			for b.Loop() {
				h.seq++
				d = pack(d[:0], h, m, out)
				if r := l.judge(d, at(1, 2), m.stamp); r != accepted {
					b.Fatal(r)
				}
			}
		})
	}
}

// BenchmarkGarbage is what it costs to refuse.
func BenchmarkGarbage(b *testing.B) {
	l, good := judged(b, make([]byte, 200))
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	for _, c := range []struct {
		name string
		from netip.AddrPort
	}{{"stranger", at(1, 9)}, {"forged", at(1, 2)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			d := make([]byte, len(forged))
			for b.Loop() {
				copy(d, forged)
				l.judge(d, c.from, 1)
			}
		})
	}
}

// BenchmarkSocket is one datagram through the kernel's loopback.
func BenchmarkSocket(b *testing.B) {
	one, two := free(b, "127.0.0.1"), free(b, "127.0.0.1")
	w1, err := openSocket(Network{Name: "x", Local: one}, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer w1.close()
	w2, err := openSocket(Network{Name: "x", Local: two}, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer w2.close()
	out, in := make([]byte, 300), make([]byte, maxSize+1)
	b.ReportAllocs()
	for b.Loop() {
		if err := w1.write(out, two); err != nil {
			b.Fatal(err)
		}
		if _, _, err := w2.read(in, time.Second); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle runs whole clusters for a while and reports what one node of them
// takes of a core, the kernel's work included. Each iteration is one second.
func BenchmarkIdle(b *testing.B) {
	for _, c := range []struct {
		nodes    int
		interval time.Duration
	}{{3, 50 * time.Millisecond}, {3, 20 * time.Millisecond}, {16, 50 * time.Millisecond}, {16, 20 * time.Millisecond}} {
		b.Run(fmt.Sprintf("nodes=%d/%v", c.nodes, c.interval), func(b *testing.B) {
			addrs := make([][2]netip.AddrPort, c.nodes)
			for i := range addrs {
				addrs[i] = [2]netip.AddrPort{free(b, "127.0.0.1"), free(b, "127.0.0.1")}
			}
			var stops []func()
			var all []*Station
			for i := range c.nodes {
				cfg := Config{Node: ha.Node(fmt.Sprint("n", i)), Cluster: "test", Keys: []Key{oldKey}, Interval: c.interval}
				cfg.Payload = func(p []byte) []byte { return append(p, make([]byte, 200)...) }
				for n := range 2 {
					net := Network{Name: fmt.Sprint("net", n), Local: addrs[i][n]}
					for j := range c.nodes {
						if j != i {
							net.Peers = append(net.Peers, Peer{ha.Node(fmt.Sprint("n", j)), addrs[j][n]})
						}
					}
					cfg.Networks = append(cfg.Networks, net)
				}
				s, stop := start(b, cfg, clock.Machine(), nil)
				all, stops = append(all, s), append(stops, stop)
			}
			<-time.After(time.Second) // until all hear each other
			before, begin := cpu(b), time.Now()
			for b.Loop() {
				<-time.After(time.Second)
			}
			used, took := cpu(b)-before, time.Since(begin)
			var lost, received uint64
			for _, s := range all {
				for _, h := range s.Heard(nil) {
					lost, received = lost+h.Lost, received+h.Received
				}
			}
			b.ReportMetric(100*used.Seconds()/took.Seconds()/float64(c.nodes), "%core/node")
			b.ReportMetric(float64(lost)/float64(lost+received)*1e6, "lost/million")
			for _, stop := range stops {
				stop()
			}
		})
	}
}

// cpu is the time that this process took of the cores.
func cpu(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
