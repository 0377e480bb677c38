package store

import (
	"strings"
	"testing"
)

func TestDialRefuses(t *testing.T) {
	for want, c := range map[string]Config{
		"prefix":        {Socket: "/x"},
		"slash":         {Socket: "/x", Prefix: "/gemel"},
		"absolute":      {Socket: "x", Prefix: "/g/"},
		"not both":      {Socket: "/x", Endpoints: []string{"https://a"}, Prefix: "/g/"},
		"neither":       {Prefix: "/g/"},
		"only loopback": {Endpoints: []string{"http://10.0.0.1:2379"}, Prefix: "/g/"},
		"https://HOST":  {Endpoints: []string{"10.0.0.1:2379"}, Prefix: "/g/"},
		"reading":       {Endpoints: []string{"https://10.0.0.1:2379"}, TLS: TLS{CA: "/nowhere"}, Prefix: "/g/"},
		"certificate":   {Endpoints: []string{"http://[::1]:2379", "https://10.0.0.1"}, TLS: TLS{Cert: "/nowhere", Key: "/nowhere"}, Prefix: "/g/"},
	} {
		if _, err := Dial(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
