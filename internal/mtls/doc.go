// Package mtls is who is who between the parts of a cluster: names in
// certificates, whom to trust, and TLS configurations that follow the files they
// are made from.
//
// A party keeps two files in a directory: leaf.pem (its private key, its
// certificate and the authority that signed it) and trust.json (the authorities,
// the certificates that count as known, what is revoked). Each is replaced by one
// rename, is looked at again in each handshake, and is used only if all of it is
// sound; else what was in force stays in force, and somebody is told.
//
// Host names and addresses say nothing here. A certificate has one name,
// gemel://CLUSTER/ROLE/NAME, which has to be the one that was expected, signed by
// the authority for its role. docs/decisions/0160 to 0162 have the reasons;
// package authority below this one signs, package join brings new parties in.
package mtls
