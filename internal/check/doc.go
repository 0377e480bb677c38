// Package check asks programs whether they do their work: by a command, over HTTP,
// over TCP, or by the gRPC health protocol. It runs the checks of the manifest at
// their intervals and tells what they said (ha.Verdict); how many failures in a
// row are a fault is the core's business. It also looks for the readiness of a
// start by port, file or check.
//
// It forks nothing: commands go through a Runner that is given to it.
package check
