package lab

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
	"gemel/internal/need"
)

// freePort finds a port of 127.0.0.1 that nobody has now, for TCP and UDP.
func freePort(t *testing.T) int {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// A daemon is one that Debian ships, and the ways to break it.
type daemon struct {
	name  string
	port  int
	spoil func(t *testing.T, i *Instance, d daemon) // until a restart heals it
}

const nginxConf = `worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body; proxy_temp_path %[1]s/nginx-proxy; fastcgi_temp_path %[1]s/nginx-fast;
  uwsgi_temp_path %[1]s/nginx-uwsgi; scgi_temp_path %[1]s/nginx-scgi;
  server { listen 127.0.0.1:%[2]d; location / { return %[3]d "well\n"; } }
}
`

const snmpdConf = "rocommunity public 127.0.0.1\nsysLocation %s\n"

const location = ".1.3.6.1.2.1.1.6.0"

// realDaemons begins an instance with nginx, redis and snmpd, unmodified, as
// their packages ship them. Each has a check, and a watchdog by command that is
// slower than the check.
func realDaemons(t *testing.T) (*Instance, []daemon) {
	need.Root(t)
	for _, c := range []string{"nginx", "redis-server", "redis-cli", "snmpd", "snmpget", "curl"} {
		need.Command(t, c)
	}
	i := New(t, "")
	web, db, agent := freePort(t), freePort(t), freePort(t)
	i.put("nginx.conf", fmt.Sprintf(nginxConf, i.Dir, web, 200))
	i.put("snmpd.conf", fmt.Sprintf(snmpdConf, "well"))
	get := fmt.Sprintf("snmpget -v2c -c public -t 2 -r 0 -Oqv 127.0.0.1:%d %s", agent, location)
	i.Write(fmt.Sprintf(`processes:
  nginx:
    id: 51
    command: [%[1]s, -e, stderr, -p, %[4]s, -c, %[4]s/nginx.conf, -g, "daemon off;"]
    ready: {port: "127.0.0.1:%[5]d"}
    stop: {signal: QUIT, grace: 1s}
    severity: major
    restarts: {limit: 20}
    watchdog: {interval: 2s, retries: 1, by: command, command: [curl, -sf, -m, 1, "http://127.0.0.1:%[5]d/"]}
  redis:
    id: 52
    command: [%[2]s, --port, %[6]d, --bind, 127.0.0.1, --save, "", --appendonly, no, --daemonize, no, --supervised, systemd, --dir, %[4]s]
    ready: notify
    severity: critical
    restarts: {limit: 20}
    watchdog: {interval: 2s, retries: 1, by: command, command: [redis-cli, -p, %[6]d, ping]}
  snmpd:
    id: 53
    command: [%[3]s, -f, -Lo, -C, -c, %[4]s/snmpd.conf, -p, %[4]s/snmpd.pid, "udp:127.0.0.1:%[7]d"]
    environment: {SNMP_PERSISTENT_DIR: %[4]s/snmp, MIBS: ""}
    ready: {check: location}
    severity: minor
    restarts: {limit: 20}
    watchdog: {interval: 2s, retries: 1, by: command, command: [/bin/sh, -c, "%[8]s"]}
checks:
  pages:
    http: {url: "http://127.0.0.1:%[5]d/", body: well}
    every: 600ms
    timeout: 500ms
    failures: 2
    covers: [nginx]
  answers:
    tcp: {address: "127.0.0.1:%[6]d", send: "GET trouble\r\n", expect: '^\$-1'}
    every: 600ms
    timeout: 500ms
    failures: 2
    covers: [redis]
  location:
    command: [/bin/sh, -c, "%[8]s | grep -q well"]
    every: 600ms
    timeout: 500ms
    failures: 2
    covers: [snmpd]
`, need.Command(t, "nginx"), need.Command(t, "redis-server"), need.Command(t, "snmpd"), i.Dir, web, db, agent, get))
	i.Begin()
	return i, []daemon{
		{"nginx", web, func(t *testing.T, i *Instance, d daemon) {
			i.put("nginx.conf", fmt.Sprintf(nginxConf, i.Dir, d.port, 500))
			i.Signal(int(i.Running(d.name).GetPid()), unix.SIGHUP)
			await(t, "nginx answers 500", func() bool {
				r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", d.port))
				if err != nil {
					return false
				}
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
				return r.StatusCode == 500
			})
			i.put("nginx.conf", fmt.Sprintf(nginxConf, i.Dir, d.port, 200))
		}},
		{"redis", db, func(t *testing.T, i *Instance, d daemon) {
			if out, err := exec.Command("redis-cli", "-p", fmt.Sprint(d.port), "set", "trouble", "yes").CombinedOutput(); err != nil {
				t.Fatalf("redis-cli: %v: %s", err, out)
			}
		}},
		{"snmpd", agent, func(t *testing.T, i *Instance, d daemon) {
			i.put("snmpd.conf", fmt.Sprintf(snmpdConf, "elsewhere"))
			i.Signal(int(i.Running(d.name).GetPid()), unix.SIGHUP)
			await(t, "snmpd says elsewhere", func() bool {
				out, _ := exec.Command("/bin/sh", "-c", get).CombinedOutput()
				return strings.Contains(string(out), "elsewhere")
			})
			i.put("snmpd.conf", fmt.Sprintf(snmpdConf, "well"))
		}},
	}
}

func (i *Instance) put(name, text string) {
	i.tb.Helper()
	if err := os.WriteFile(i.Path(name), []byte(text), 0o644); err != nil {
		i.tb.Fatal(err)
	}
}

// await polls for what gives no event.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	if !poll(done) {
		t.Fatalf("waited %v in vain until %s", Bound, what)
	}
}

// hang stops a program and its children: nginx's workers answer without their
// master.
func (i *Instance) hang(pid int) {
	i.tb.Helper()
	i.Signal(pid, unix.SIGSTOP)
	for _, child := range i.Programs() {
		if _, parent := stat(child); parent == pid {
			i.Signal(child, unix.SIGSTOP)
		}
	}
}

// recovery is scenario 2 of the CMM with the fault of one detector.
func recovery(fault ha.Code, severity string) []string {
	return []string{
		fmt.Sprintf("%d %q assert %s", fault, fault, severity),
		fmt.Sprintf("378 %q info %s", "Attempting process restart recovery action", severity),
		`375 "Recovery successful" clear ok`,
	}
}

// TestRealDaemons breaks nginx, redis-server and snmpd by each detector: killed,
// stopped under a check, answering wrongly, stopped under a watchdog. The events
// are those of the CMM's scenario 2, each time, and nothing else is touched.
func TestRealDaemons(t *testing.T) {
	i, daemons := realDaemons(t)
	checkOf := map[string]string{"nginx": "pages", "redis": "answers", "snmpd": "location"}
	severity := map[string]string{"nginx": "major", "redis": "critical", "snmpd": "minor"}
	t.Run("all", func(t *testing.T) {
		for _, d := range daemons {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				i := i.For(t)
				i.Running(d.name)
				step := func(how string, fault ha.Code, breakIt func(pid int)) {
					t.Helper()
					p := i.Running(d.name)
					mark := i.Mark()
					began := time.Now()
					breakIt(int(p.GetPid()))
					seen := i.Await(mark, fault, d.name)
					i.Await(mark, ha.Recovered, d.name)
					t.Logf("%s: %s, recovered after %v (%s)", how, ha.Code(seen.GetCode()), time.Since(began).Round(time.Millisecond), seen.GetDetail())
					compare(t, how, i.Classic(mark, d.name), recovery(fault, severity[d.name]))
					if now := i.Running(d.name); now.GetPid() == p.GetPid() {
						t.Errorf("%s: pid %d was not replaced", how, p.GetPid())
					}
					if seen.GetUid() != p.GetUid() || p.GetUid() == 0 {
						t.Errorf("%s: the event is of uid %d, the process of %d", how, seen.GetUid(), p.GetUid())
					}
				}
				step("killed", ha.ExistenceRecovering, func(pid int) { i.Signal(pid, unix.SIGKILL) })
				step("stopped", ha.IntegrityRecovering, func(pid int) { i.hang(pid) })
				step("answers wrongly", ha.IntegrityRecovering, func(int) {
					// The check is locked meanwhile, so that the file is good again
					// before the restart reads it.
					i.Ask(gemelv1.Verb_VERB_LOCK, aCheck, checkOf[d.name])
					d.spoil(t, i, d)
					i.Ask(gemelv1.Verb_VERB_UNLOCK, aCheck, checkOf[d.name])
				})
				i.Ask(gemelv1.Verb_VERB_LOCK, aCheck, checkOf[d.name])
				step("hangs", ha.WatchdogRecovering, func(pid int) { i.hang(pid) })
			})
		}
	})
	for _, d := range daemons {
		if n := len(i.Events(0, d.name)); n == 0 {
			t.Errorf("%s: no event at all", d.name)
		}
	}
	if s := i.Status(); len(s.GetAlarms()) != 0 {
		t.Errorf("alarms stand at the end: %v", s.GetAlarms())
	}
}
