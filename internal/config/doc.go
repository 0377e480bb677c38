// Package config turns the bytes of gemel.yaml into a manifest, and those of
// node.yaml into the identity of a node, or either into every error that is in
// them (DESIGN 10).
//
// One table for each part (process.go, check.go, group.go, rest.go, node.go) says
// which keys there are, what each may hold and what it is without. The parser,
// the JSON Schema, the canonical form and the difference of two manifests are
// all made from these tables, so that they cannot disagree. What a table cannot
// say, because it takes two keys, is in the files named judge.
//
// The package is pure: it reads no file, asks no clock, and knows nothing of the
// machine that the manifest is for. Whether a user or a program exists is found
// out at the machine (internal/proc).
package config
