package netpath

// A refusal says why a datagram did not count.
type refusal uint8

const (
	accepted         refusal = iota
	refusedSize              // too short or too long to be one of ours
	refusedForeign           // not this protocol, or another version of it
	refusedCluster           // of another cluster
	refusedNetwork           // made for another network than it came by
	refusedReflected         // our own
	refusedStranger          // its source is no peer's address on this network, or another peer's
	refusedKey               // sealed by a key that is not valid here
	refusedForged            // its seal does not hold
	refusedReplayed          // came before, or is too old to know
	refusedUnproven          // sealed well, but it may be a recording: see book.admit
	refusals                 // how many there are
)

func (r refusal) String() string {
	return [...]string{"accepted", "size", "foreign", "cluster", "network", "reflected", "stranger", "key", "forged", "replayed", "unproven"}[r]
}
