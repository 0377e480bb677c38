package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"gemel/internal/ha"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// A Config says which store a client speaks to, and how patient it is.
type Config struct {
	// Socket is that of a member on this machine. Endpoints are those of an external
	// etcd, as https://10.0.0.1:2379. One of the two.
	Socket    string
	Endpoints []string
	// TLS is for the endpoints. http without it is only for loopback.
	TLS TLS
	// Prefix stands before every key, as "/gemel/4f2a/": it carries the id of the
	// cluster, so that two of them share an external etcd without knowing it.
	Prefix string
	// Cluster is etcd's id of the cluster; zero is the first one that answers. An
	// answer of another one is an error.
	Cluster uint64

	// Attempt bounds the first attempts of a read, the later ones get more; zero is
	// 40 ms. A follower loses without
	// an error what it forwarded to a leader that died: it is asked again.
	Attempt time.Duration
	// Hedge is after what time the next endpoint is asked as well; zero is 30 ms.
	Hedge time.Duration
	// Bound is for a write whose ctx has no deadline; zero is one second.
	Bound time.Duration
}

// A Client speaks to a store. All of its methods may be called at once.
type Client struct{ pool }

// A pool is the ways to the store, and what is known of it.
type pool struct {
	c       Config
	ends    []*end
	first   atomic.Int32  // of ends: who answered last
	cluster atomic.Uint64 // zero: nobody has answered yet
	high    atomic.Int64  // the highest revision that was seen
}

// An end is one way to the store.
type end struct {
	name    string
	conn    *grpc.ClientConn
	dials   atomic.Int64 // connections made so far
	checked atomic.Int64 // the one of them whose version is known
}

// Dial prepares a client. It does not connect yet: a store that is away is an
// error of the calls that are made.
func Dial(c Config) (*Client, error) {
	if c.Attempt == 0 {
		c.Attempt = 40 * time.Millisecond
	}
	if c.Hedge == 0 {
		c.Hedge = 30 * time.Millisecond
	}
	if c.Bound == 0 {
		c.Bound = time.Second
	}
	if path.Clean("/"+c.Prefix) == "/" || !strings.HasSuffix(c.Prefix, "/") {
		return nil, fmt.Errorf("the prefix %q of all keys must name the cluster and end with a slash", c.Prefix)
	}
	cl := &Client{pool{c: c}}
	cl.cluster.Store(c.Cluster)
	switch {
	case c.Socket != "" && len(c.Endpoints) > 0:
		return nil, errors.New("the store is either at a socket or at endpoints, not both")
	case c.Socket != "":
		if !filepath.IsAbs(c.Socket) {
			return nil, fmt.Errorf("the store's socket %q must be an absolute path", c.Socket)
		}
		if err := cl.addSocket(c.Socket); err != nil {
			return nil, err
		}
	case len(c.Endpoints) == 0:
		return nil, errors.New("neither a socket nor an endpoint of the store is given")
	}
	for _, at := range c.Endpoints {
		if err := cl.addEndpoint(at, c.TLS); err != nil {
			return nil, errors.Join(err, cl.Close())
		}
	}
	return cl, nil
}

// Close ends all connections. Calls that run fail.
func (c *Client) Close() error {
	var errs []error
	for _, e := range c.ends {
		errs = append(errs, e.conn.Close())
	}
	return errors.Join(errs...)
}

func (c *pool) addSocket(at string) error {
	e := &end{name: at}
	// A member that is started anew is found at once: trying costs nothing here.
	return c.add(e, "passthrough:///store", 50*time.Millisecond, insecure.NewCredentials(), func(ctx context.Context, _ string) (net.Conn, error) {
		d := net.Dialer{}
		if until, ok := ctx.Deadline(); ok {
			d.Deadline = until
		}
		conn, err := dialSocket(&d, at)
		if err == nil {
			e.dials.Add(1)
		}
		return conn, err
	})
}

func (c *pool) addEndpoint(at string, t TLS) error {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("endpoint %q of the store: want https://HOST:PORT", at)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "2379")
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "https" {
		conf, err := t.client()
		if err != nil {
			return fmt.Errorf("endpoint %q of the store: %w", at, err)
		}
		conf.ServerName = u.Hostname()
		creds = credentials.NewTLS(conf)
	} else if !loopback(u.Hostname()) {
		return fmt.Errorf("endpoint %q of the store: without TLS only loopback is allowed; use https", at)
	}
	e := &end{name: at}
	return c.add(e, "passthrough:///"+host, 250*time.Millisecond, creds, func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			e.dials.Add(1)
		}
		return conn, err
	})
}

// add prepares the connection of an end. again is the longest pause between two
// attempts to connect.
func (c *pool) add(e *end, target string, again time.Duration, creds credentials.TransportCredentials, dial func(context.Context, string) (net.Conn, error)) error {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(dial),
		// Nothing is sent twice but what was certainly never processed.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: again},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(quota), grpc.MaxCallSendMsgSize(2*requestLimit)),
	)
	if err != nil {
		return fmt.Errorf("the store at %s: %w", e.name, err)
	}
	e.conn = conn
	c.ends = append(c.ends, e)
	return nil
}

// client returns the configuration of a caller. Certificate and key are read at
// each handshake, the authority now.
func (t TLS) client() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the authority of its certificate: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" {
		load := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
			if err != nil {
				return nil, fmt.Errorf("our certificate for the store: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(nil); err != nil {
			return nil, err
		}
		conf.GetClientCertificate = load
	}
	return conf, nil
}

func (c *pool) key(k string) []byte { return []byte(c.c.Prefix + k) }

// saw notes from which cluster and at which revision an answer is. floor is the
// highest revision that was known before the question was asked; zero: none, as
// for answers that are not linearizable.
func (c *pool) saw(cluster uint64, at, floor int64) error {
	if !c.cluster.CompareAndSwap(0, cluster) && c.cluster.Load() != cluster {
		return fmt.Errorf("%w: cluster %x answers and not %x", ErrForeign, cluster, c.cluster.Load())
	}
	if at < floor {
		return fmt.Errorf("%w: it is at revision %d and was at %d: it has been put back from a copy", ErrForeign, at, floor)
	}
	for {
		high := c.high.Load()
		if at <= high || c.high.CompareAndSwap(high, at) {
			return nil
		}
	}
}

func rev(r int64) ha.Rev { return ha.Rev(r) }
