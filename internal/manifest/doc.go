// Package manifest holds what should run, as pure values: the processes, checks,
// groups and file sets of gemel.yaml (DESIGN 10), with every default filled in.
// It reads no file and judges nothing: internal/config makes these values from
// bytes, and everything else only reads them.
package manifest
