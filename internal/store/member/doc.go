// Package member is one voter of a cluster's store: an etcd in this process. Only
// the program that runs one links it: it brings etcd along, gRPC and all that these
// need, which costs every process that has them several MiB before it has done
// anything.
//
// Serve runs it. ../DESIGN.md says what holds of it, and why it is built as it is.
package member
