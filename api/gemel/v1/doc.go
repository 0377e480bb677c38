// Package gemelv1 is Gemel's published API: the messages of gemel.v1, generated
// from the .proto files beside it, which are the documentation. The client and
// server code for Connect, gRPC and JSON is in gemelv1connect. Both are made by
// api/generate.sh; neither imports anything of Gemel.
package gemelv1
