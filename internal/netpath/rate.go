package netpath

import (
	"math"
	"time"

	"gemel/internal/ha"
)

const (
	rateBuckets = 8
	rateBucket  = 4 * time.Second
	rateMinimum = time.Second // less says nothing
)

// A Rate compares the clock of a peer with ours.
type Rate struct {
	// Error is how much faster the peer's clock runs: 0.01 is one percent. It is
	// meaningful only with Bound.
	Error float64
	// Bound is how far Error may be off, whatever the network did. Infinite: too
	// little is known.
	Bound float64
	// Span is over how long this was measured.
	Span time.Duration
}

// Exceeds reports whether the rate is certainly off by more than x.
func (r Rate) Exceeds(x float64) bool { return math.Abs(r.Error)-r.Bound > x }

// A rater keeps, for each stretch of time, the exchange with the shortest round
// trip: there the peer's stamp is known best, to half of that trip.
type rater struct {
	kept [rateBuckets]exchange // oldest first
	n    int
}

// An exchange is one comparison of two clocks.
type exchange struct {
	at     ha.Instant    // ours, at the arrival
	behind time.Duration // our clock less the peer's, taken at the middle of the trip
	rtt    time.Duration
}

func (r *rater) add(at, stamp ha.Instant, rtt time.Duration) {
	x := exchange{at, at.Sub(stamp) - rtt/2, rtt}
	if r.n > 0 && at/ha.Instant(rateBucket) == r.kept[r.n-1].at/ha.Instant(rateBucket) {
		if rtt < r.kept[r.n-1].rtt {
			r.kept[r.n-1] = x
		}
		return
	}
	if r.n == rateBuckets {
		copy(r.kept[:], r.kept[1:])
		r.n--
	}
	r.kept[r.n] = x
	r.n++
}

func (r *rater) rate() Rate {
	if r.n >= 2 {
		a, b := r.kept[0], r.kept[r.n-1]
		if span := b.at.Sub(a.at); span >= rateMinimum {
			return Rate{
				Error: -float64(b.behind-a.behind) / float64(span),
				Bound: float64(a.rtt+b.rtt) / 2 / float64(span),
				Span:  span,
			}
		}
	}
	return Rate{Bound: math.Inf(1)}
}
