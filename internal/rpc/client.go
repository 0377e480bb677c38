package rpc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/api/gemel/v1/gemelv1connect"
	"gemel/internal/access"
	"gemel/internal/ha"
)

const (
	dialTime  = 5 * time.Second // for a connection and the first answer
	backTime  = time.Second     // how long a dead socket is given to come back
	backPause = 20 * time.Millisecond
	maxAnswer = 64 << 20 // bytes of one message from the daemon
)

// Client speaks with the daemon of one socket. Its methods are those of the
// contract, which take and return plain messages, as in
//
//	res, err := c.Status(ctx, &gemelv1.StatusRequest{})
//
// and Follow. Pass their errors through Explain before showing them.
type Client struct {
	gemelv1connect.GemelClient

	// Daemon is what answered when the client was made.
	Daemon *gemelv1.VersionResponse
	// Away is called with one sentence when a stream waits for the daemon to come
	// back; nil: nobody is told. It is set before the client is used.
	Away func(text string)

	socket string
	http   *http.Client
}

// Dial connects to the daemon whose socket is given. Before anything is sent the
// kernel must say that root, this user, or the owner of the socket's directory
// listens there; a socket that somebody else put in its place is refused. A
// monitor that is just starting again is waited for, one second at most; all of
// it takes five at most. Errors are *ha.Error.
func Dial(socket string) (*Client, error) {
	transport := &http.Transport{
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return connectTo(ctx, socket) },
		MaxIdleConns:          4,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
		ResponseHeaderTimeout: 0, // a replay may take long
	}
	h := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c := &Client{
		GemelClient: gemelv1connect.NewGemelClient(h, "http://gemel", connect.WithReadMaxBytes(maxAnswer), connect.WithAcceptCompression("gzip", nil, nil)),
		socket:      socket,
		http:        h,
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	v, err := c.Version(ctx, &gemelv1.VersionRequest{})
	if err != nil {
		c.Close()
		return nil, Explain(err)
	}
	c.Daemon = v
	return c, nil
}

// Close gives idle connections back. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Skew says in one sentence that the daemon and this tool, of the version given,
// are not the same; empty if they are.
func (c *Client) Skew(version string) string {
	switch d := c.Daemon; {
	case d.GetApiLevel() < APILevel:
		return fmt.Sprintf("the running gemel (%s) is older than this tool (%s) and does not know all of it; replace it with: gemel upgrade", d.GetVersion(), version)
	case d.GetApiLevel() > APILevel:
		return fmt.Sprintf("the running gemel (%s) is newer than this tool (%s)", d.GetVersion(), version)
	case d.GetVersion() != version:
		return fmt.Sprintf("the running gemel is %s and this tool is %s", d.GetVersion(), version)
	}
	return ""
}

// Follow calls each with events, as WatchEvents sends them, until ctx ends, each
// fails, or the daemon stays away (Patience). When the monitor is replaced, or
// this side fell behind, it goes on from the last event, so that none is missed
// and none comes twice. The mark (live) comes once.
func (c *Client) Follow(ctx context.Context, req *gemelv1.WatchEventsRequest, each func(*gemelv1.WatchEventsResponse) error) error {
	next := &gemelv1.WatchEventsRequest{Filter: req.GetFilter(), After: req.GetAfter(), Past: req.GetPast(), AllSince: req.GetAllSince()}
	marked := false
	patience := c.Patience()
	for {
		err := c.follow(ctx, next, func(m *gemelv1.WatchEventsResponse) error {
			patience.Back()
			if id := max(m.GetEvent().GetId(), m.GetLastId()); id != 0 || m.GetLive() {
				next.After, next.Past, next.AllSince = id, 0, id == 0
			}
			if m.GetLive() && marked {
				return nil
			}
			marked = marked || m.GetLive()
			if err := each(m); err != nil {
				return &ownError{err}
			}
			return nil
		})
		var own *ownError
		if errors.As(err, &own) {
			return own.error
		}
		if err := patience.Wait(ctx, err); err != nil {
			return err
		}
	}
}

// ownError is an error of the caller's function, not of the connection.
type ownError struct{ error }

// follow reads one stream to its end.
func (c *Client) follow(ctx context.Context, req *gemelv1.WatchEventsRequest, each func(*gemelv1.WatchEventsResponse) error) error {
	stream, err := c.WatchEvents(ctx, req)
	if err != nil {
		return err
	}
	for stream.Receive() {
		if err := each(stream.Msg()); err != nil {
			return errors.Join(err, stream.Close())
		}
	}
	err = stream.Err()
	if err == nil {
		err = fault(ha.ErrUnavailable, "connection", "", "the daemon ended the stream")
	}
	return errors.Join(err, stream.Close())
}

// connectTo makes a connection and looks at who listens before it is used.
func connectTo(ctx context.Context, socket string) (net.Conn, error) {
	until := time.Now().Add(backTime)
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", socket)
		switch {
		case err == nil:
			if err := trust(c, socket); err != nil {
				return nil, errors.Join(err, c.Close())
			}
			return c, nil
		case !errors.Is(err, unix.ECONNREFUSED) || time.Now().After(until):
			return nil, notThere(socket, err)
		}
		pause := time.NewTimer(backPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil, notThere(socket, err)
		case <-pause.C:
		}
	}
}

// trust fails unless the listener is somebody whom the caller may believe.
func trust(got net.Conn, socket string) error {
	u, ok := got.(*net.UnixConn)
	if !ok {
		return fault(ha.ErrFailed, "", "", "%s is no unix socket", socket)
	}
	peer, err := access.PeerOf(u)
	if err != nil {
		return fault(ha.ErrFailed, "", "", "connecting to %s: %w", socket, err)
	}
	if peer.UID == 0 || peer.UID == uint32(os.Geteuid()) {
		return nil
	}
	hint := "somebody may have put it there to be mistaken for gemel; name another socket with --socket or GEMEL_SOCKET"
	if err := trusted(filepath.Dir(socket), peer.UID); err != nil {
		return fault(ha.ErrDenied, "peer", hint, "user %d listens at %s and is not believed: %v", peer.UID, socket, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(socket), &st); err != nil || st.Uid != peer.UID {
		return fault(ha.ErrDenied, "peer", hint, "user %d listens at %s and is neither root, nor this user, nor the owner of the directory", peer.UID, socket)
	}
	return nil
}

// notThere says what it means that a socket cannot be connected to.
func notThere(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault(ha.ErrUnavailable, "not-running", "start it with: gemel run FILE, or name another socket with --socket or GEMEL_SOCKET",
			"gemel is not running here: no socket at %s", socket)
	case errors.Is(err, unix.ECONNREFUSED):
		return fault(ha.ErrUnavailable, "not-running", "start it with: gemel run FILE, or name another socket with --socket or GEMEL_SOCKET",
			"gemel is not running here: nobody answers at %s", socket)
	case errors.Is(err, fs.ErrPermission):
		return fault(ha.ErrDenied, "socket", "run it as root, or let an admin write your name into a list below node: access: in the manifest",
			"this user may not connect to %s", socket)
	case errors.Is(err, unix.EINVAL):
		return fault(ha.ErrInvalid, "socket", "name a shorter path with --socket or GEMEL_SOCKET", "%s cannot be the path of a socket", socket)
	}
	return fault(ha.ErrUnavailable, "connection", "", "connecting to %s: %w", socket, err)
}
