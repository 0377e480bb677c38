package spawn

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"gemel/internal/ha"
)

// Identify reports whether a pid is that start: by the name of its control group,
// else by GEMEL_START in its environment. Two instances of Gemel number their
// starts independently: where the pid comes from a Table, ask Entry.Alive, which
// compares the time of the start as well.
func Identify(pid int, id ha.StartID) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	b, err := slurp(proc + "/cgroup")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		path := strings.TrimSuffix(strings.TrimSpace(line), " (deleted)")
		for part := range strings.SplitSeq(path, "/") {
			if part == dirOf(id) {
				return true
			}
		}
	}
	return environHas(proc, envStart+id.String())
}

// environHas reports whether the environment that a process was started with
// holds all of these. One that may not be read holds none.
func environHas(proc string, want ...string) bool {
	b, err := os.ReadFile(proc + "/environ")
	if err != nil || len(b) == 0 {
		return false
	}
	b = append(append([]byte{0}, b...), 0)
	for _, w := range want {
		if !bytes.Contains(b, []byte("\x00"+w+"\x00")) {
			return false
		}
	}
	return true
}

// stat is what this package needs of /proc/PID/stat.
type stat struct {
	state   byte
	parent  int
	session int
	ticks   uint64
	exit    int
}

func readStat(pid int) (stat, bool) {
	b, err := slurp("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	i := bytes.LastIndexByte(b, ')') // the name before it may hold anything
	if i < 0 {
		return stat{}, false
	}
	f := strings.Fields(string(b[i+1:]))
	if len(f) < 20 {
		return stat{}, false
	}
	s := stat{state: f[0][0]}
	s.parent, _ = strconv.Atoi(f[1])
	s.session, _ = strconv.Atoi(f[3])
	s.ticks, _ = strconv.ParseUint(f[19], 10, 64)
	if len(f) >= 50 {
		s.exit, _ = strconv.Atoi(f[49])
	}
	return s, true
}

// startTicks is when a pid started, in clock ticks since boot; 0 if it is gone.
func startTicks(pid int) uint64 {
	s, _ := readStat(pid)
	return s.ticks
}
