// Package need says what a test needs of the machine. What is missing makes the
// test a skip that is told at the end of make test as left out, and a failure
// where nothing may be left out: with GEMEL_REQUIRE=all or CI=true.
//
// It is for tests only: no other code may import it.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Root asks for uid 0.
func Root(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		missing(tb, "root")
	}
}

// Command asks for programs on PATH, /usr/sbin or /sbin, and returns the path of
// the first. A program that make test can install stands in scripts/packages.txt.
func Command(tb testing.TB, names ...string) string {
	tb.Helper()
	first := ""
	for _, name := range names {
		path := look(name)
		if path == "" {
			missing(tb, "the program "+name)
		}
		if first == "" {
			first = path
		}
	}
	return first
}

func look(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	return ""
}

// Cgroup asks for a controller (memory, cpu, pids, freezer) that can be used by
// this user, through v1 or v2, and returns where its hierarchy is mounted.
func Cgroup(tb testing.TB, controller string) string {
	tb.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		tb.Fatalf("reading the mounts: %v", err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || unix.Access(f[1], unix.W_OK) != nil {
			continue
		}
		switch f[2] {
		case "cgroup":
			if strings.Contains(","+f[3]+",", ","+controller+",") {
				return f[1]
			}
		case "cgroup2":
			have, err := os.ReadFile(f[1] + "/cgroup.controllers")
			if err == nil && strings.Contains(" "+strings.TrimSpace(string(have))+" ", " "+controller+" ") {
				return f[1]
			}
		}
	}
	missing(tb, "a writable cgroup hierarchy with the controller "+controller)
	return ""
}

// Device asks for a device file, as /dev/fuse.
func Device(tb testing.TB, path string) {
	tb.Helper()
	if st, err := os.Stat(path); err != nil || st.Mode()&os.ModeDevice == 0 {
		missing(tb, "the device "+path)
	}
}

// Kernel asks for a Linux version. No machine can install another one for a
// test, so an older kernel is a skip everywhere.
func Kernel(tb testing.TB, major, minor int) {
	tb.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		tb.Fatalf("uname: %v", err)
	}
	var have, have2 int
	release := unix.ByteSliceToString(uts.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &have, &have2); err != nil {
		tb.Fatalf("kernel release %q: %v", release, err)
	}
	if have < major || have == major && have2 < minor {
		leave(tb, fmt.Sprintf("Linux %d.%d (this is %s)", major, minor, release))
	}
}

// Done asks that a preparation was let happen: doing names it, as "mounting a
// tmpfs", and err is what came of it.
func Done(tb testing.TB, err error, doing string) {
	tb.Helper()
	if err != nil {
		missing(tb, fmt.Sprintf("leave for %s (%v)", doing, err))
	}
}

// CgroupV2 asks for a cgroup v2 in which this user can make groups, with its
// controllers or without, and returns where it is mounted.
func CgroupV2(tb testing.TB) string {
	tb.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		tb.Fatalf("reading the mounts: %v", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) >= 4 && f[2] == "cgroup2" && unix.Access(f[1], unix.W_OK) == nil {
			return f[1]
		}
	}
	missing(tb, "a writable cgroup v2")
	return ""
}

// That asks for anything else: what names it, as "a kernel with PSI". It is a
// skip everywhere, as for Kernel: nobody can install it.
func That(tb testing.TB, ok bool, what string) {
	tb.Helper()
	if !ok {
		leave(tb, what)
	}
}

func missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("GEMEL_REQUIRE") == "all" || os.Getenv("CI") == "true" {
		tb.Fatalf("%s is missing, and nothing may be left out here (GEMEL_REQUIRE=all or CI=true)", what)
	}
	leave(tb, what)
}

// leave notes the test for the list that scripts/test.sh prints at its end.
func leave(tb testing.TB, what string) {
	tb.Helper()
	if path := os.Getenv("GEMEL_LEFT_OUT"); path != "" {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			_, err = fmt.Fprintf(f, "%s needs %s\n", tb.Name(), what)
			err = errorOr(err, f.Close())
		}
		if err != nil {
			tb.Logf("noting what was left out: %v", err)
		}
	}
	tb.Skipf("left out: needs %s", what)
}

func errorOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
