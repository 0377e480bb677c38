package config

import (
	"strings"

	"gemel/internal/manifest"
)

// authority: a ca that nothing asks is a mistake that would look like safety.
func (j *judge) authority(path string, c *manifest.Check) {
	if g := c.GRPC; g != nil && g.CA != "" && !g.TLS {
		j.refuse(path+".grpc.ca", "ca has no effect without tls: true", "add tls: true")
	}
	if h := c.HTTP; h != nil && h.CA != "" {
		switch {
		case !h.Verify:
			j.refuse(path+".http.ca", "ca has no effect with verify: false", "remove one of the two")
		case strings.HasPrefix(h.URL, "http:"):
			j.refuse(path+".http.ca", "ca has no effect on http", "write https in url, or remove ca")
		}
	}
}
