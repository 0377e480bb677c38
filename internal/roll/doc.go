// Package roll is who is in a cluster, and how machines come into it and leave it.
//
// The Roll is one document in the cluster's store: all nodes, where they are, who
// votes. Each machine has a copy of it on its disk, and a node.yaml that follows from
// it. Begin makes a cluster of one machine, Join makes another machine part of it, and
// a Clerk, which each node runs, keeps everything in step while the cluster lives: it
// admits newcomers, signs and renews certificates, adds and promotes members of the
// store, and lets machines without a member reach it through those that have one.
package roll
