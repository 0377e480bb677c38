package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store/disk"
)

const (
	// RequestLimit is what a member of ours takes in one request: a document and what
	// comes with it; see docLimit.
	RequestLimit = 2 << 20
	// Quota is the size of a store of ours.
	Quota = 64 << 20
)

// TLS names the files of one side. They are read at each handshake: a new
// certificate is put there by renaming. Empty is no TLS.
type TLS struct {
	Cert, Key string
	CA        string
	CRL       string
	// Role is the URI name that a voter's certificate must have, byte for byte, at
	// both ends of each connection. If it ends with a slash the voter's own name
	// follows: who is called must be the one that was meant, and who calls one that is
	// in the cluster. Certificates of other roles are refused even if the same
	// authority signed them. Clients of an external etcd leave it empty.
	Role string
}

// A Config says which store a client speaks to, and how patient it is.
type Config struct {
	// Socket is that of a member on this machine. Endpoints are those of an external
	// etcd, as https://10.0.0.1:2379. One of the two.
	Socket    string
	Endpoints []string
	// Way makes a connection to a member of ours, if that of this machine may not be the
	// one to ask; nil: it is dialed at Socket.
	Way func(context.Context) (net.Conn, error)
	// TLS is for the endpoints. http without it is only for loopback.
	TLS TLS
	// User is who we are to the endpoints; empty: the certificate says so, or nobody asks.
	// Password is the file that holds his password, read anew for each connection.
	User, Password string
	// Prefix stands before every key, as "/gemel/4f2a/": it carries the id of the
	// cluster, so that two of them share an external etcd without knowing it.
	Prefix string
	// Cluster is etcd's id of the cluster; zero is the first one that answers. An
	// answer of another one is an error.
	Cluster uint64
	// Proof is a document that must be there, looked for over each new connection; empty:
	// none. By its lack a store is known that lost what this cluster was.
	Proof string

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
		cl.addSocket()
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
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}

func (c *pool) addSocket() {
	// A member that is started anew is found at once: trying costs nothing here.
	c.add(&end{name: c.c.Socket, base: "http://store", again: 50 * time.Millisecond}, "store:80", transport(nil, c.near))
}

// near connects to the member of this machine, or to whom is asked instead.
func (c *pool) near(ctx context.Context, _, _ string) (net.Conn, error) {
	if c.c.Way != nil {
		return c.c.Way(ctx)
	}
	d := net.Dialer{}
	if until, ok := ctx.Deadline(); ok {
		d.Deadline = until
	}
	return disk.Dial(&d, c.c.Socket)
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
	var conf *tls.Config
	if u.Scheme == "https" {
		if conf, err = t.client(); err != nil {
			return fmt.Errorf("endpoint %q of the store: %w", at, err)
		}
		conf.ServerName = u.Hostname()
	} else if !Loopback(u.Hostname()) {
		return fmt.Errorf("endpoint %q of the store: without TLS only loopback is allowed; use https", at)
	}
	e := &end{name: at, base: u.Scheme + "://" + host, again: 250 * time.Millisecond}
	if c.c.User != "" {
		e.login = c.c.over
	}
	c.add(e, host, transport(conf, (&net.Dialer{}).DialContext))
	return nil
}

// add takes an end into the pool.
func (c *pool) add(e *end, host string, t *http.Transport) {
	scheme, _, _ := strings.Cut(e.base, ":")
	e.base += "/etcdserverpb."
	e.pause = firstPause
	e.open = func(ctx context.Context) (*http.ClientConn, error) { return t.NewClientConn(ctx, scheme, host) }
	c.ends = append(c.ends, e)
}

// transport is how a connection of an end is made. It speaks HTTP/2 only, asks no
// environment for a proxy, and keeps no connection by itself.
func transport(conf *tls.Config, dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	only := new(http.Protocols)
	only.SetHTTP2(conf != nil)
	only.SetUnencryptedHTTP2(conf == nil)
	return &http.Transport{
		DialContext: dial, TLSClientConfig: conf, TLSHandshakeTimeout: connectTime, DisableCompression: true, Protocols: only,
		HTTP2: &http.HTTP2Config{SendPingTimeout: aliveAfter, PingTimeout: aliveTime, MaxReceiveBufferPerConnection: receiveWindow, MaxReceiveBufferPerStream: receiveWindow},
	}
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

// Loopback reports whether a host is this machine, whatever its networks are.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
