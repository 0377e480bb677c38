// Package etcdpb is what a client says to an etcd and hears from it: the part of
// etcd's public messages that is used, generated from etcd.proto.
package etcdpb
