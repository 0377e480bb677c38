package places

import "os"

// Node is the name of this node: the one that was given, else the host's.
func Node(given string) string {
	if given != "" {
		return given
	}
	if h, err := os.Hostname(); err == nil {
		return h
	}
	return "localhost"
}
