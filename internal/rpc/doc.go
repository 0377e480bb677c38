// Package rpc is Gemel's API, gemel.v1.Gemel, on a unix socket: the server that
// the monitor runs, and the client that the tool uses. The contract is in
// api/gemel/v1; nothing else goes over the socket.
//
// Who is at the other end is what the kernel recorded when the connection was
// made; what they may do is looked up in the policy again for each call, and for
// a stream whenever the policy changes and each minute. One table names every
// method with the least role that it needs: a method without a row is denied.
//
// Everything that a caller can make the server hold is bounded: connections for
// each user and in all, calls under way, headers, bodies, the time that either
// may take, and what is not yet read of a stream.
package rpc
