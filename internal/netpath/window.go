package netpath

// windowSize is how far behind the newest datagram another one may come and
// still be told from a replay: a second at the quickest heartbeat.
const windowSize = 64

// A window knows which sequence numbers of one session came by one path.
type window struct {
	top  uint32 // the highest; zero: none yet
	seen uint64 // bit n: top-n came
}

// accept notes a sequence number. It reports how far that moved the top: 0 for
// one that was overtaken. It is false for one that came before, or that is too
// old to know.
func (w *window) accept(seq uint32) (ahead uint32, ok bool) {
	switch {
	case seq == 0:
		return 0, false
	case w.top == 0:
		// What is older than the first one that counts is not waited for.
		w.top, w.seen = seq, ^uint64(0)
		return 1, true
	case seq > w.top:
		ahead = seq - w.top
		w.top, w.seen = seq, w.seen<<ahead|1
		return ahead, true
	case w.top-seq >= windowSize || w.seen&(1<<(w.top-seq)) != 0:
		return 0, false
	}
	w.seen |= 1 << (w.top - seq)
	return 0, true
}
