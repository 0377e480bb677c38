// Package netpath sends heartbeats between the nodes of a cluster over each of
// its networks, and keeps what was observed: when a peer was last heard on which
// network, what got lost, the round trip, the rate of its clock against ours. It
// judges nothing: who is suspected and which path is up is decided elsewhere,
// from these observations.
//
// Each node sends one sealed datagram in every interval to every peer on every
// network. There is no request and no answer, so that nobody can make a node send
// more than it would anyway. A datagram carries an echo of the newest one that
// came from its receiver; by that a node knows that what it hears was made after
// it asked, which no recording can fake, without a counter that has to survive a
// lost disk and without trust in anybody's clock. docs/decisions/0140-heartbeats.md
// has the format and the reasons.
//
// The pure parts (datagram, book, window, rate) take the instant and know no
// socket; station.go and wire.go are the edges.
package netpath
