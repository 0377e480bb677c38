package spawn

import (
	"os/exec"
	"testing"

	"gemel/internal/proc"
)

// BenchmarkStart compares what stands between a decision and the exec of the
// program: everything that can be made before is made before, as the shadow does.
func BenchmarkStart(b *testing.B) {
	tr := tree(b)
	s := shell("")
	s.Path, s.Args = "/bin/true", []string{"true"}
	limited := *s
	limited.Memory, limited.PIDs = 1<<30, 100
	b.Run("spawn", func(b *testing.B) { benchmark(b, nil, s, false) })
	b.Run("spawn-in-cgroup", func(b *testing.B) { benchmark(b, tr, s, false) })
	b.Run("spawn-limited", func(b *testing.B) { benchmark(b, tr, &limited, false) })
	b.Run("parked-in-cgroup", func(b *testing.B) { benchmark(b, tr, s, true) })
	b.Run("parked-limited", func(b *testing.B) { benchmark(b, tr, &limited, true) })
	b.Run("os-exec", func(b *testing.B) {
		for b.Loop() {
			c := exec.Command("/bin/true")
			if err := c.Start(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := c.Wait(); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}

func benchmark(b *testing.B, tr *Tree, s *proc.Spec, park bool) {
	for b.Loop() {
		b.StopTimer()
		o := quiet()
		if tr != nil {
			var err error
			if o.Cgroup, err = tr.Make("true", o.Start, s); err != nil {
				b.Skip(err)
			}
		}
		r, err := Prepare(s, o)
		if err != nil {
			b.Fatal(err)
		}
		begin := r.Start
		if park {
			p, err := r.Park()
			if err != nil {
				b.Fatal(err)
			}
			until(b, "it waits", func() bool { st, _ := readStat(p.PID()); return st.state == 'S' })
			begin = p.Release
		}
		b.StartTimer()
		c, err := begin()
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		await(b, c)
		r.Close()
		if tr != nil {
			until(b, "the group is removed", func() bool { return o.Cgroup.Remove() == nil })
		}
		b.StartTimer()
	}
}
