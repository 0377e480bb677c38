package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gemel/internal/need"
)

// A site is machines with a name, a disk and networks of their own, on which the commands of
// the manual are typed as they stand there: each is a network, a mount and a host name apart
// from those of this machine, with its own /etc/gemel and /var/lib/gemel.
type site struct {
	t    *testing.T
	hub  *exec.Cmd // has the switches
	nets []string  // eth0, eth1: what the address of a number is, as 10.0.0.%d/24
}

func newSite(t *testing.T, nets ...string) *site {
	t.Helper()
	need.Root(t)
	need.Command(t, "ip", "nft", "nsenter", "unshare")
	s := &site{t: t, nets: nets}
	s.hub = s.hold("ip link set lo up", "unshare", "--net")
	for i := range nets {
		// Snooping would learn which port wants which IPv6 neighbour, and forget it.
		s.inside(s.hub, fmt.Sprintf("ip link add sw%d type bridge mcast_snooping 0 forward_delay 0 && ip link set sw%d up", i, i))
	}
	return s
}

// hold starts a process whose namespaces are those of a machine, and ends it with the test.
func (s *site) hold(script string, argv ...string) *exec.Cmd {
	s.t.Helper()
	c := exec.Command(argv[0], append(argv[1:], "sh", "-ec", script+"\necho ready\nexec sleep 100000")...)
	var errs bytes.Buffer
	c.Stderr = &errs
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		_, _ = io.Copy(io.Discard, out)
		s.t.Fatalf("making a machine: %v: %s", err, errs.String())
	}
	return c
}

// enter is the command that runs another one on a machine.
func enter(holder *exec.Cmd) []string {
	pid := fmt.Sprint(holder.Process.Pid)
	return []string{"nsenter", "--target", pid, "--mount", "--net", "--uts", "--wd=/", "--"}
}

func (s *site) inside(holder *exec.Cmd, script string) {
	s.t.Helper()
	argv := append(enter(holder), "sh", "-ec", script)
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// A box is a machine of a site, and the Gemel on it.
type box struct {
	*Instance
	number int
	site   *site
	holder *exec.Cmd
}

// box adds a machine. Its number is that of its addresses. Nothing runs there before Begin.
func (s *site) box(name string, number int, manifest string) *box {
	s.t.Helper()
	i := New(s.t, manifest)
	exe, err := built()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, dir := range []string{"data", "run", "bin", "etc"} {
		if err := os.Mkdir(i.Path(dir), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	if manifest == "" { // it comes with the cluster
		if err := os.Remove(i.Path("gemel.yaml")); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Symlink(exe, i.Path("bin/gemel")); err != nil {
		s.t.Fatal(err)
	}
	b := &box{i, number, s, nil}
	b.holder = s.hold(strings.NewReplacer("DIR", i.Dir, "NAME", name).Replace(`
hostname NAME
mount -t tmpfs none DIR/etc
mkdir DIR/etc/new DIR/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=DIR/etc/new,workdir=DIR/etc/work /etc
mkdir -p /etc/gemel
mount -t tmpfs none /var/lib
mkdir /var/lib/gemel
mount --bind DIR /etc/gemel
mount --bind DIR/data /var/lib/gemel
ip link set lo up`), "unshare", "--mount", "--net", "--uts", "--propagation", "private")
	for n, net := range s.nets {
		s.inside(s.hub, fmt.Sprintf("ip link add %s%d type veth peer name eth%d netns %d && ip link set %s%d master sw%d up",
			name, n, n, b.holder.Process.Pid, name, n, n))
		s.inside(b.holder, fmt.Sprintf("ip link set eth%d up && ip addr add %s dev eth%d %s", n, fmt.Sprintf(net, number), n,
			map[bool]string{true: "nodad"}[strings.Contains(net, ":")]))
	}
	// The control groups are this machine's: they are told apart by the run directory.
	i.Wrap, i.Env = enter(b.holder), []string{"GEMEL_RUN_DIR=" + i.Path("run"), "PATH=" + i.Path("bin") + ":" + os.Getenv("PATH")}
	i.Usual = true
	s.t.Cleanup(i.aside)
	return b
}

// types runs a line as a person types it, in /etc/gemel, and returns what it printed and its
// exit status.
func (b *box) types(line string) (string, int) {
	b.tb.Helper()
	argv := append(append([]string{}, b.Wrap...), "sh", "-c", "cd /etc/gemel && "+line)
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), b.Env...)
	out, err := c.CombinedOutput()
	if c.ProcessState == nil {
		b.tb.Fatalf("%s: %v", line, err)
	}
	return string(out), c.ProcessState.ExitCode()
}

// does types a line that has to succeed and to print some words.
func (b *box) does(line string, words ...string) string {
	b.tb.Helper()
	out, code := b.types(line)
	b.says(line, out, words...)
	if code != 0 {
		b.tb.Fatalf("%s: exit %d: %s", line, code, out)
	}
	return out
}

// denies types a line that has to be refused with some words, and what to do.
func (b *box) denies(line string, words ...string) {
	b.tb.Helper()
	out, code := b.types(line)
	b.says(line, out, words...)
	if code != 3 {
		b.tb.Fatalf("%s: exit %d, wanted a refusal: %s", line, code, out)
	}
}

func (b *box) says(line, out string, words ...string) {
	b.tb.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			b.tb.Fatalf("%s: no word of %q: %s", line, w, out)
		}
	}
}

// printed finds in what a command printed the line that begins with some words.
func printed(t *testing.T, out, begin string) string {
	t.Helper()
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, begin) {
			return line
		}
	}
	t.Fatalf("no line with %q in %s", begin, out)
	return ""
}

// cabled takes the cables of a machine out, or puts them in.
func (b *box) cabled(in bool) {
	b.tb.Helper()
	for n := range b.site.nets {
		b.site.inside(b.holder, fmt.Sprintf("ip link set eth%d %s", n, map[bool]string{true: "up", false: "down"}[in]))
	}
}

// crashes ends a whole machine but for its disk.
func (b *box) crashes() {
	b.tb.Helper()
	all := b.Programs()
	s := b.Status()
	b.cabled(false)
	b.Kill()
	for _, p := range s.GetProcesses() {
		all = append(all, int(p.GetPid()))
	}
	for _, pid := range all {
		if pid > 1 && Alive(pid) {
			_ = unix.Kill(pid, unix.SIGKILL) // the guard may have been faster
		}
	}
	// A boot has no control group of before, and no address of a group.
	await(b.site.t, "the control groups of "+b.Dir+" are empty", func() bool {
		for _, base := range b.bases() {
			var dirs []string
			_ = filepath.Walk(base, func(path string, info os.FileInfo, err error) error {
				if err == nil && info.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for _, dir := range slices.Backward(dirs) {
				_ = os.Remove(dir)
			}
		}
		return len(b.bases()) == 0
	})
	for n, net := range b.site.nets {
		at := fmt.Sprintf(net, b.number)
		b.site.inside(b.holder, fmt.Sprintf("ip addr flush dev eth%d scope global; ip addr add %s dev eth%d %s", n, at, n, map[bool]string{true: "nodad"}[strings.Contains(at, ":")]))
	}
}

// boots is the machine's coming back.
func (b *box) boots() {
	b.tb.Helper()
	b.cabled(true)
	for n, net := range b.site.nets {
		at := fmt.Sprintf(net, b.number)
		b.site.inside(b.holder, fmt.Sprintf("ip addr replace %s dev eth%d %s", at, n, map[bool]string{true: "nodad"}[strings.Contains(at, ":")]))
	}
	b.Begin()
}

// has reports whether a machine has an address.
func (b *box) has(address string) bool {
	out, _ := b.types("ip -brief address")
	return strings.Contains(out, address+"/")
}

// keeps are the files that make a machine what it is in its cluster, and what is in them.
func (b *box) keeps() map[string]string {
	b.tb.Helper()
	out := map[string]string{}
	for _, dir := range []string{b.Path("data/cluster"), b.Path("node.yaml")} {
		_ = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
			// Whom to trust changes with each machine that is let in.
			if err == nil && info.Mode().IsRegular() && info.Name() != "trust.json" && info.Name() != "revoked.crl" {
				raw, err := os.ReadFile(path)
				if err != nil {
					b.tb.Fatal(err)
				}
				out[path] = string(raw)
			}
			return nil
		})
	}
	return out
}
