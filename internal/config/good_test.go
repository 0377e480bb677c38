package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/manifest"
)

// Each good manifest, and each example, is taken, and its canonical form is the same manifest.
func TestGood(t *testing.T) {
	for _, file := range append(glob(t, "testdata/good/*.yaml"), glob(t, "../../examples/*.yaml")...) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(file, b)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, m)
		})
	}
}

// roundTrip checks that the canonical form of m is m, and is its own canonical
// form.
func roundTrip(t *testing.T, m *manifest.Manifest) {
	t.Helper()
	out, err := Encode(m)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	again, err := Parse("canonical", out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if same := equal(m, again); !same {
		t.Fatalf("not the same manifest:\n%s\nbefore %+v\nafter  %+v", out, m, again)
	}
	if c := Diff(m, again, ""); len(c) > 0 {
		t.Fatalf("equal manifests differ: %v", c)
	}
	twice, err := Encode(again)
	if err != nil || !bytes.Equal(out, twice) {
		t.Fatalf("the canonical form is not canonical (%v):\n%s\n%s", err, out, twice)
	}
}

func equal(a, b *manifest.Manifest) bool {
	x, y := *a, *b
	x.Digest, y.Digest = "", ""
	return reflect.DeepEqual(x, y)
}

// What each key of the largest manifest became.
func TestEverything(t *testing.T) {
	b, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse("everything.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := m.Process("main")
	want := manifest.Process{
		Name: "main", UID: 10,
		Command:   []string{"main", "--level", "3", "with space", "", "it's", "yes", "0x10", "1.50"},
		Directory: "/srv", User: "www-data", Group: "33", Groups: []string{"adm", "44"},
		Environment: map[string]string{"A": "1", "PORT": "8080", "DEBUG": "true", "EMPTY": "", "LINES": "one\ntwo\ttab", "VERSION": "1.10"},
		EnvFiles:    []string{"/etc/default/main", "-/etc/default/main.local"}, InheritEnv: true,
		Umask: 0o077, Nice: -5,
		Limits: []manifest.Limit{{Name: "core", Soft: -1, Hard: -1}, {Name: "memlock", Soft: 64 << 20, Hard: 64 << 20},
			{Name: "nofile", Soft: 1024, Hard: -1}, {Name: "nproc", Soft: 100, Hard: 100}},
		Caps: manifest.Caps{Set: true, Keep: []string{"chown", "net_bind_service"}}, NoNewPrivs: true,
		Resources: manifest.Resources{Memory: 512 << 20, CPU: 0.5, PIDs: 100}, OOMScore: -500,
		Stop:  manifest.Stop{Signal: 3, Grace: 90 * time.Second, Command: []string{"/bin/kill", "-QUIT"}},
		After: []ha.Process{"other"}, Needs: []ha.Process{"store"}, Follows: []ha.Process{"store"},
		Ready:    manifest.Ready{Kind: manifest.ReadyPort, Address: "[::1]:8080", Timeout: 20 * time.Second},
		Severity: ha.Critical, Recovery: ha.RecoveryFailoverReboot,
		Restarts: manifest.Restarts{Limit: 3, Within: time.Hour, Then: ha.EscalationFailover, Delay: time.Second, DelayMax: time.Minute},
		Watchdog: manifest.Watchdog{Interval: 500 * time.Millisecond, By: "page"},
		Output:   manifest.Output{Mode: "capture", Size: 1 << 20, Keep: 2, Rate: 64 << 10, Merge: true},
		Exits: []manifest.ExitRule{
			{Codes: []int{0, 3}, Do: manifest.ExitDone}, {Signals: []int{15, 9}, Do: manifest.ExitAgain},
			{Codes: []int{4}, Do: manifest.ExitGiveUp}, {Codes: []int{5}, Signals: []int{35}, Do: manifest.ExitRestart},
			{Codes: []int{6}, Do: manifest.ExitFault},
		},
		Handlers: manifest.Handlers{
			Restart:   manifest.Handler{Command: []string{"/bin/true"}, Timeout: 10 * time.Second},
			Failover:  manifest.Handler{Command: []string{"/bin/true"}, Timeout: time.Second},
			Reboot:    manifest.Handler{Command: []string{"/bin/true"}, Timeout: 10 * time.Second},
			GiveUp:    manifest.Handler{Command: []string{"/bin/true"}, Timeout: 10 * time.Second},
			Recovered: manifest.Handler{Command: []string{"/bin/true", "restart"}, Timeout: 10 * time.Second},
		},
		AutoStart: true, On: []ha.Node{"alpha", "beta"},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("main is\n%+v\nwant\n%+v", p, want)
	}
	for name, spare := range map[ha.Process]bool{"critical": true, "spare.kept": true, "quick": false, "by-unit": false, "main": false} {
		if p, _ := m.Process(name); p.Spare != spare {
			t.Errorf("%s: spare is %v", name, p.Spare)
		}
	}
	if p, _ := m.Process("by-pidfile"); p.Recovery != ha.RecoveryRestart || p.Attach.Every != 5*time.Second {
		t.Errorf("by-pidfile is %+v", p)
	}
	if p, _ := m.Process("critical"); p.Restarts.DelayMax != 2*time.Minute {
		t.Errorf("critical waits up to %v", p.Restarts.DelayMax)
	}
	if c, _ := m.Check("talk"); c.TCP.Address != "127.0.0.1:6379" || c.TCP.Send != "PING\r\n\x00\x01é" || c.Timeout != 500*time.Millisecond {
		t.Errorf("talk is %+v", c.TCP)
	}
	if c, _ := m.Check("socket"); c.Timeout != time.Second || c.Covers == nil {
		t.Errorf("socket is %+v", c)
	}
	if c, _ := m.Check("once"); c.Every != 0 || c.Failures != 1 || !c.Once {
		t.Errorf("once is %+v", c)
	}
	n := manifest.Node{
		Budget: manifest.Budget{Limit: 0, Within: time.Hour}, Reboot: []string{"/sbin/reboot"},
		Access: manifest.Access{Viewers: []string{"%users", "ann"}, Operators: []string{"%adm"}, Admins: []string{"1000"}},
		Syslog: true, JournalLimit: 64 << 20,
		Handler: manifest.Handler{Command: []string{"/usr/local/bin/tell"}, Timeout: 5 * time.Second},
	}
	if !reflect.DeepEqual(m.Node, n) {
		t.Errorf("node is\n%+v\nwant\n%+v", m.Node, n)
	}
}

// Every key of every table is in the manifest that the test above reads.
func TestEverythingHasEveryKey(t *testing.T) {
	b, err := os.ReadFile("testdata/good/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	keys := append(processObject().keys(), checkObject().keys()...)
	keys = append(keys, groupObject().keys()...)
	keys = append(keys, filesObject().keys()...)
	keys = append(keys, nodeObject().keys()...)
	keys = append(keys, restartsObject().keys()...)
	for _, k := range keys {
		if !strings.Contains(string(b), k+":") {
			t.Errorf("%s is missing", k)
		}
	}
}

func TestAnchors(t *testing.T) {
	b, err := os.ReadFile("testdata/good/anchors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := Parse("anchors.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	two, _ := m.Process("two")
	if two.Severity != ha.Minor || two.Restarts.Limit != 50 || two.Environment["MODE"] != "two" || two.Environment["LANG"] != "C.UTF-8" {
		t.Errorf("two is %+v", two)
	}
	three, _ := m.Process("three")
	if three.Restarts.Limit != 10 || three.Restarts.Within != time.Hour || len(three.Command) != 2 {
		t.Errorf("three is %+v", three)
	}
}

// A manifest that is too large is refused before it is read.
func TestTooLarge(t *testing.T) {
	_, err := Parse("gemel.yaml", bytes.Repeat([]byte("# x\n"), 1<<20+1))
	want := "gemel.yaml: the file has 4194308 bytes; allowed: up to 4194304 (4 MiB)\n  hint: check that this is the manifest and not some other file"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// A manifest that is made to cost much costs little. The bound is generous: what
// it guards against takes minutes and gigabytes.
func TestBounded(t *testing.T) {
	const size = 1 << 16
	units := []string{"a: b\n", "- a\n", "[a,", "[", "{a: ", "- ", "&a ", "*a ", "#\n", "\"", "'a' ", ": ", "? ", "a\t", "a\n", "a: |\n b\n",
		"!a ", "{a: b},", "\n", "---\n", "%a\n", "|\n", ">\n", "a:\n", "<<: *a\n", "a: &a\n", "\\x41", "a\n\n", "- - a\n", "a: {b: [c, d]}\n"}
	for _, u := range units {
		for _, head := range []string{"", "[", "a: |\n"} {
			start := time.Now()
			if _, err := Parse("x", []byte(head+strings.Repeat(u, size/len(u)))); err == nil && u != "#\n" {
				t.Errorf("%q after %q is taken", u, head)
			} else if n := len(err.Error()); n > 1<<20 {
				t.Errorf("%q after %q: %d bytes of errors", u, head, n)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%q after %q took %v", u, head, took)
			}
		}
	}
}

// Five thousand programs are an ordinary manifest.
func TestManyPrograms(t *testing.T) {
	m, err := Parse("many.yaml", many(5000))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Processes) != 5000 {
		t.Errorf("%d programs", len(m.Processes))
	}
}

func many(n int) []byte {
	var b bytes.Buffer
	b.WriteString("processes:\n")
	for i := range n {
		name := string(appendInt([]byte("p"), i))
		b.WriteString("  " + name + ":\n    command: [/bin/sleep, 1000]\n    severity: major\n    restarts: {limit: 10, within: 1h}\n    environment:\n      A: b\n      C: d\n")
		if i > 0 {
			b.WriteString("    needs: [" + string(appendInt([]byte("p"), i-1)) + "]\n")
		}
	}
	return b.Bytes()
}

func appendInt(b []byte, n int) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

func BenchmarkParse(b *testing.B) {
	src := many(1000)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if _, err := Parse("many.yaml", src); err != nil {
			b.Fatal(err)
		}
	}
}
