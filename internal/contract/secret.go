package contract

import (
	"slices"
	"strings"
)

// hidden replaces a secret.
const hidden = "***"

// secretive reports whether an option's name says that its value is a secret.
// Rather one too many: what is hidden is only missing from a message.
func secretive(name string) bool {
	name = strings.ToLower(name)
	for _, part := range []string{"pass", "secret", "token", "key", "community", "credential"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// secrets returns the values of the options that are secret by name or by being
// listed, the longest first.
func secrets(options map[string]string, listed []string) []string {
	var out []string
	for name, value := range options {
		if value != "" && (secretive(name) || slices.Contains(listed, name)) {
			out = append(out, value)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return len(b) - len(a) })
	return out
}

// scrub takes the secrets out of a text. One that is so short that it stands in
// any text would tell itself by its gaps: then nothing is left of the text.
func scrub(text string, secret []string) string {
	const short = 4
	for _, s := range secret {
		if !strings.Contains(text, s) {
			continue
		}
		if len(s) < short {
			return "(not shown: it has a secret of fewer than four characters in it)"
		}
		text = strings.ReplaceAll(text, s, hidden)
	}
	return text
}
