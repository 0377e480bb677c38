package cli

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

func TestTable(t *testing.T) {
	rows := [][]cell{
		{{text: "nginx"}, {text: "7", right: true}, {text: "it says that it is well and goes on and on"}},
		{{text: "a-process-with-a-long-name", colour: red}, {text: "12345", right: true}, {text: ""}},
	}
	head := []string{"NAME", "PID", "WHY"}
	for _, c := range []struct {
		name    string
		columns int
		colour  bool
		want    string
	}{
		{"no terminal", 0, false, "" +
			"NAME                          PID  WHY\n" +
			"nginx                           7  it says that it is well and goes on and on\n" +
			"a-process-with-a-long-name  12345\n"},
		{"the last column ends at the edge", 60, false, "" +
			"NAME                          PID  WHY\n" +
			"nginx                           7  it says that it is well >\n" +
			"a-process-with-a-long-name  12345\n"},
		{"the first one gives way", 40, false, "" +
			"NAME               PID  WHY\n" +
			"nginx                7  it says that it>\n" +
			"a-process-with>  12345\n"},
		{"colours take no room", 60, true, "" +
			"\x1b[2mNAME\x1b[0m                        \x1b[2m  PID\x1b[0m  \x1b[2mWHY\x1b[0m\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			s := &screen{w: &b, columns: c.columns, colour: c.colour}
			s.table(s, head, rows)
			got := strings.ReplaceAll(b.String(), "  \x1b[0m", "\x1b[0m")
			if c.colour {
				if first, _, _ := strings.Cut(b.String(), "\n"); strings.Count(first, "\x1b[2m") != 3 || !strings.Contains(b.String(), red+"a-process-with-a-long-name\x1b[0m") {
					t.Errorf("got %q", b.String())
				}
				return
			}
			if got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			for _, line := range strings.Split(got, "\n") {
				if c.columns > 0 && len(line) > c.columns {
					t.Errorf("%q is wider than %d", line, c.columns)
				}
			}
		})
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"short", 10, "short"}, {"short", 5, "short"}, {"short", 4, "sho>"}, {"short", 1, ">"}, {"short", 0, ""}, {"zwölf", 4, "zwö>"}, {"", 0, ""}} {
		if got := cut(c.in, c.n); got != c.want {
			t.Errorf("cut(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func TestHang(t *testing.T) {
	for _, c := range []struct {
		columns int
		want    string
	}{
		{0, "  head  one two three four five six seven\n"},
		{34, "  head  one two three four five\n        six seven\n"},
		{20, "  head  one two three four five six seven\n"}, // no room to hang anything
	} {
		var b bytes.Buffer
		(&screen{columns: c.columns}).hang(&b, "  head  ", "one two three four five six seven")
		if b.String() != c.want {
			t.Errorf("%d columns: got\n%swant\n%s", c.columns, b.String(), c.want)
		}
	}
}

// A terminal shows what fits, and says so.
func TestDraw(t *testing.T) {
	var b bytes.Buffer
	s := &screen{w: &b, columns: 80, lines: 5}
	s.draw("1\n2\n3\n4\n5\n6\n")
	if want := "\x1b[H1\x1b[K\n2\x1b[K\n3\x1b[K\n... 3 more lines: make the terminal higher\x1b[K\n\x1b[J"; b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestClean(t *testing.T) {
	if got := clean("a\x1b[31mb\x07\r\u202eé\u009bz\n\t"); got != "a?[31mb???é?z\n\t" {
		t.Errorf("got %q", got)
	}
	if got := oneLine(" a\nb\x00 \n"); got != "a | b?" {
		t.Errorf("got %q", got)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 0: "0s", 59*time.Second + 900*time.Millisecond: "59s", time.Minute: "1m00s", 61 * time.Minute: "1h01m",
		24 * time.Hour: "1d00h", 400*24*time.Hour + 5*time.Hour: "400d05h",
	} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{-1: "-", 0: "-", 1024: "1K", 1 << 20: "1.0M", 3 << 29: "1.5G"} {
		if got := amount(n); got != want {
			t.Errorf("amount(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int]string{0: "0 processes", 1: "1 process", 2: "2 processes"} {
		if got := plural(n, "process"); got != want {
			t.Errorf("plural(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("there", 2*3600)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	for in, want := range map[string]time.Time{
		"90s":                           now.Add(-90 * time.Second),
		"2h30m":                         now.Add(-150 * time.Minute),
		"10:00":                         time.Date(2026, 3, 1, 10, 0, 0, 0, zone),
		"10:00:30":                      time.Date(2026, 3, 1, 10, 0, 30, 0, zone),
		"2026-01-31":                    time.Date(2026, 1, 31, 0, 0, 0, 0, zone),
		"2026-01-31 10:00":              time.Date(2026, 1, 31, 10, 0, 0, 0, zone),
		"2026-01-31T10:00":              time.Date(2026, 1, 31, 10, 0, 0, 0, zone),
		"2026-01-31T10:00:00Z":          time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC),
		"2026-01-31T10:00:00.5+05:30":   time.Date(2026, 1, 31, 4, 30, 0, 5e8, time.UTC),
		"2026-01-31 10:00:00.123+02:00": time.Date(2026, 1, 31, 8, 0, 0, 123e6, time.UTC), // as events prints it
	} {
		if got, err := parseTime(in, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "yesterday", "-5s", "25:00", "2026-13-01", "10"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("parseTime(%q) = %v", in, got)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"nginx", "redis-server", "orders", "web"}
	for in, want := range map[string]string{
		"ngnix": "nginx", "Nginx": "nginx", "redis": "redis-server", "order": "orders", "wbe": "web", "w": "", "snmpd": "", "": "",
	} {
		if got := nearest(in, names); got != want {
			t.Errorf("nearest(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	s := &gemelv1.Snapshot{
		Processes: []*gemelv1.ProcessStatus{{Name: "web", Uid: 51}, {Name: "both"}},
		Checks:    []*gemelv1.CheckStatus{{Name: "pages", Uid: 176}, {Name: "both"}},
	}
	for in, want := range map[string]string{
		"node": "node", "PmsGlobal": "node", "web": "web", "PmsProc51": "web", "pmsproc51": "web", "process/web": "web", "process:web": "web",
		"pages": "check/pages", "PmsPie176": "check/pages", "check/both": "check/both", "check:both": "check/both", "both": "both",
	} {
		if got, err := find(s, in); err != nil || subject(got) != want {
			t.Errorf("find(%q) = %v, %v; want %s", in, got, err, want)
		}
	}
	for _, in := range []string{"", "pagse", "check/web", "process/pages", "PmsProc0", "PmsProc52", "group/web"} {
		if got, err := find(s, in); err == nil {
			t.Errorf("find(%q) = %v", in, got)
		}
	}
}

// What the tool prints as JSON: words, numbers that are numbers, UTC.
func TestObject(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 5e8, time.FixedZone("", 3600))
	got := object(&gemelv1.ProcessStatus{
		Name: "web", State: "running", Recovery: gemelv1.Recovery_RECOVERY_FAILOVER_RESTART, Op: gemelv1.Op_OP_DISABLED, Pid: 7,
		Start: 1 << 60, Since: timestamppb.New(at), Last: &gemelv1.ExitStatus{Signal: 9, Cpu: durationpb.New(1500 * time.Millisecond)},
	})
	for name, want := range map[string]any{
		"name": "web", "recovery": "failover-restart", "op": "disabled", "pid": int32(7), "start": uint64(1) << 60, "window": int32(0),
		"since": "2026-01-31T11:00:00.5Z", "overlay": false,
	} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %#v, want %#v", name, got[name], want)
		}
	}
	if last, ok := got["last"].(map[string]any); !ok || last["cpu"] != 1.5 || last["signal"] != int32(9) {
		t.Errorf("last is %v", got["last"])
	}
	for _, name := range []string{"started", "usage", "status", "group"} {
		if v, ok := got[name]; ok {
			t.Errorf("%s is not set and shown as %v", name, v)
		}
	}
}

// The command that takes a change back reaches the same daemon.
func TestCommand(t *testing.T) {
	t.Parallel()
	plain, other := &tool{}, &tool{}
	other.given.Run = "/tmp/a b"
	const line = "another gemel runs here; gemel lock web; gemel unlock web"
	if got := plain.command(line); got != line {
		t.Errorf("got %q", got)
	}
	if got, want := other.command(line), "another gemel runs here; gemel --run-dir '/tmp/a b' lock web; gemel --run-dir '/tmp/a b' unlock web"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRoff(t *testing.T) {
	if got, want := escape(`.it's -x \ ^~`+"`"), `\&.it\(aqs \-x \e \(ha\(ti\(ga`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	r := &roff{}
	r.prose("one\ntwo\n\n  a  b\n  c\nthree")
	if got, want := r.b.String(), ".PP\none\ntwo\n.PP\n.nf\n  a  b\n  c\n.fi\nthree\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
