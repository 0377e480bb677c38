// Package join brings new parties into a cluster: a token that is printed on one
// machine and typed on another, and one exchange by which the newcomer gets its
// certificates. Nodes, witnesses and agents all join by it.
//
// Neither end has to be believed before it has shown who it is. The token holds
// the hash of the authority's key, so that the newcomer knows the cluster before it
// sends anything; and a secret, which both sides prove to have, bound to this one
// TLS connection, so that whoever is in between has gained nothing. The secret
// itself is never sent, and the cluster keeps only what it takes to check it.
// docs/decisions/0163-joining.md has the reasons.
package join
