package netpath

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

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
	const due = ha.Instant(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if err := w1.write(out, two); err != nil {
			b.Fatal(err)
		}
		if _, _, err := w2.read(in, due, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle reports what a node takes of a core, the kernel's work included,
// in a process of its own among the others of its cluster, which share one. Each
// iteration is one second.
func BenchmarkIdle(b *testing.B) {
	for _, x := range []struct {
		nodes    int
		interval time.Duration
	}{{3, 50 * time.Millisecond}, {3, 20 * time.Millisecond}, {16, 50 * time.Millisecond}, {16, 20 * time.Millisecond}} {
		b.Run(fmt.Sprintf("nodes=%d/%v", x.nodes, x.interval), func(b *testing.B) {
			c := newCrowd(b, "127.0.0.1", x.nodes, 2, x.interval)
			pid := c.process(b).Pid
			var others []*Station
			for i := 1; i < x.nodes; i++ {
				s, _ := start(b, c.config(i), clock.Machine(), nil)
				others = append(others, s)
			}
			until(b, "the process is heard by all", func() bool {
				for _, s := range others {
					if h := of(b, s, "n1", "lo2"); h.Alive == 0 {
						return false
					}
				}
				return true
			})
			before, begin := cpu(b, pid), time.Now()
			for b.Loop() {
				<-time.After(time.Second)
			}
			used, took := cpu(b, pid)-before, time.Since(begin)
			var lost, received uint64
			for _, s := range others {
				h := of(b, s, "n1", "lo2")
				lost, received = lost+h.Lost, received+h.Received
			}
			b.ReportMetric(100*used.Seconds()/took.Seconds(), "%core/node")
			b.ReportMetric(float64(lost)/float64(lost+received)*1e6, "lost/million")
		})
	}
}

// cpu is the time that a process took of the cores, as the scheduler counts it: the
// clock's ticks are too coarse for work of microseconds.
func cpu(b *testing.B, pid int) (sum time.Duration) {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		b.Fatal("no schedstat of the process", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
