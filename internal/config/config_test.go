package config

import (
	"testing"
	"time"

	"gemel/internal/ha"
)

// The example of the design: what is written, and the defaults of what is not.
func TestDesignExample(t *testing.T) {
	m, err := Parse("gemel.yaml", []byte(designExample))
	if err != nil {
		t.Fatal(err)
	}
	p, ok := m.Process("nginx")
	if !ok || p.Severity != ha.Major || p.Restarts.Then != ha.EscalationFailover || p.Restarts.Limit != 5 ||
		p.Stop.Signal != 15 || p.Stop.Grace != 10*time.Second || p.RampUp != 5*time.Second || !p.AutoStart || p.Spare {
		t.Errorf("nginx is %+v", p)
	}
	c, ok := m.Check("pages")
	if !ok || c.HTTP == nil || c.Timeout != time.Second || c.Every != 2*time.Second || c.Failures != 3 {
		t.Errorf("pages is %+v", c)
	}
	if m.Node.Budget.Limit != 3 || m.Node.Budget.Within != 6*time.Hour {
		t.Errorf("node is %+v", m.Node)
	}
	if len(m.Digest) != 64 {
		t.Errorf("digest is %q", m.Digest)
	}
}

const designExample = `# gemel.yaml: what should run. The same file serves one machine and a cluster.
processes:
  nginx:
    command: [/usr/sbin/nginx, -g, "daemon off;"]
    severity: major                       # minor | major | critical
    recovery: restart                     # none | restart | failover-restart | failover-reboot
    restarts: {limit: 5, within: 15m, then: failover}
    ramp-up: 5s
  orders:
    command: [/opt/orders/orders]
    watchdog: {interval: 1s, retries: 3}  # beats by sd_notify or by the SDK, for each thread
    needs: [nginx]
checks:
  pages:
    http: {url: "http://127.0.0.1/healthz", timeout: 1s}
    every: 2s
    failures: 3
    covers: [nginx]
files:
  www: {paths: [/srv/www], priority: 1}
groups:
  web:
    nodes: [alpha, beta]                  # order of preference
    run: [nginx, orders]
    addresses: [192.0.2.10/24]
    files: [www]
    failback: manual
`
