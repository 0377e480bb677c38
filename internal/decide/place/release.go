package place

import (
	"cmp"
	"strconv"
	"strings"
)

// release compares releases as 1.10.2, v1.10.2-rc.1 or 1.10.2+build: by their
// dotted parts, what comes before a release (after "-") being older than it. An
// unknown one is older than each: who cannot be judged is not taken over to.
func release(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(min(len(a), 1), min(len(b), 1))
	}
	aMain, aPre := cutRelease(a)
	bMain, bPre := cutRelease(b)
	if c := dotted(aMain, bMain); c != 0 {
		return c
	}
	if aPre == "" || bPre == "" {
		return cmp.Compare(min(len(bPre), 1), min(len(aPre), 1))
	}
	return dotted(aPre, bPre)
}

func cutRelease(s string) (main, pre string) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "+")
	main, pre, _ = strings.Cut(s, "-")
	return main, pre
}

// dotted compares part by part: numbers as numbers, before all that is none; a
// part that is not there is 0.
func dotted(a, b string) int {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range max(len(as), len(bs)) {
		x, xs := part(as, i)
		y, ys := part(bs, i)
		if c := cmp.Or(cmp.Compare(x, y), strings.Compare(xs, ys)); c != 0 {
			return c
		}
	}
	return 0
}

func part(parts []string, i int) (number uint64, text string) {
	if i >= len(parts) {
		return 0, ""
	}
	n, err := strconv.ParseUint(parts[i], 10, 63)
	if err != nil {
		return 1 << 63, parts[i]
	}
	return n, ""
}
