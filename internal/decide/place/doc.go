// Package place says where the groups of a cluster belong: given what is known
// of nodes and groups at one instant, it answers with a node for each group, the
// reason, and for each other node why not.
//
// It is a function without memory, so that the brain, `gemel plan` and `gemel
// why not` ask the same thing. It answers with the state to be reached; how to
// get there without anything being active twice is decide/cluster's business:
// place knows nothing of grants, fences and proofs of stop.
//
// What it promises, each with a test:
//
//   - a group is given only to a node that may take it and has room for it, beside
//     those that it is tied to and away from those that it stays apart from;
//   - nothing moves without a reason to leave, a node and a guard that allows it,
//     and the answer to its own answer moves nothing;
//   - the order in which nodes and groups are listed changes nothing; only the
//     order inside Rules.Nodes means something;
//   - no running group is stopped to make room for another one.
//
// Three kinds of move have three guards, which are not to be merged: a forced one
// needs a node that operates; a requested one (also drain, failback, and what a
// changed manifest asks for) one that is at least as healthy, in sync and not
// older; an automatic one for health one that is strictly healthier and in sync.
package place
