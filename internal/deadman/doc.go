// Package deadman is what resets this machine when Gemel does not run any more: a
// hardware watchdog. When it is petted is not decided here.
package deadman
