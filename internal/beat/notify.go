package beat

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"gemel/internal/ha"
)

const (
	maxDatagram = 4096
	maxStatus   = 512
	// maxExtend bounds one EXTEND_TIMEOUT_USEC. A program may ask again: each
	// asking is a sign of life.
	maxExtend = time.Hour
	// leastExtend is what is given to one that asks for less: well above pleaRest,
	// so that time which is asked for often enough has no gaps.
	leastExtend = time.Second
	// pleaRest is the least time between two ha.Busy of one start.
	pleaRest = 250 * time.Millisecond
)

// message is what one datagram says. Unknown keys, and values that cannot be, are
// left out: a newer program must not be a broken one.
type message struct {
	ready    bool
	stopping bool
	beat     bool // WATCHDOG=1
	trigger  bool // WATCHDOG=trigger: the program itself says that it is ill
	told     bool // STATUS= was there
	status   string
	main     int // MAINPID=
	extend   time.Duration
	start    ha.StartID // X_GEMEL_START=, sent by the SDK
}

// parse reads a datagram of the protocol of sd_notify.
func parse(b []byte) message {
	var m message
	if string(b) == "WATCHDOG=1" || string(b) == "WATCHDOG=1\n" {
		m.beat = true // nearly all of them
		return m
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		switch key {
		case "READY":
			m.ready = m.ready || value == "1"
		case "STOPPING":
			m.stopping = m.stopping || value == "1"
		case "WATCHDOG":
			m.beat = m.beat || value == "1"
			m.trigger = m.trigger || value == "trigger"
		case "STATUS":
			m.told, m.status = true, printable(value, maxStatus)
		case "MAINPID":
			if n, err := strconv.ParseInt(value, 10, 32); err == nil && n > 0 {
				m.main = int(n)
			}
		case "EXTEND_TIMEOUT_USEC":
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				m.extend = min(time.Duration(min(n, uint64(maxExtend/time.Microsecond)))*time.Microsecond, maxExtend)
			}
		case "X_GEMEL_START":
			if n, err := strconv.ParseUint(value, 10, 64); err == nil {
				m.start = ha.StartID(n)
			}
		}
	}
	return m
}

// printable returns at most n bytes of s with all that a terminal could obey, and
// all that is not text, replaced.
func printable(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '?'
		}
		if b.Len()+utf8.RuneLen(r) > n {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
