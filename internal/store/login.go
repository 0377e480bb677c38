package store

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"

	"gemel/internal/store/etcdpb"

	"connectrpc.com/connect"
)

// What an etcd with users says. A test compares it with etcd's own.
var (
	wrongLogin = refusal{connect.CodeInvalidArgument, "etcdserver: authentication failed, invalid user ID or password"}
	noUsers    = refusal{connect.CodeFailedPrecondition, "etcdserver: authentication is not enabled"}
	noUser     = refusal{connect.CodeInvalidArgument, "etcdserver: user name is empty"}
	denied     = refusal{connect.CodePermissionDenied, "etcdserver: permission denied"}
	oldToken   = refusal{connect.CodeUnauthenticated, "etcdserver: invalid auth token"}
	oldUsers   = refusal{connect.CodeInvalidArgument, "etcdserver: revision of auth store is old"}
)

// tokenKey is the header by which etcd knows who asks.
const tokenKey = "token"

// over says who we are over a new connection, and returns the token for what is asked
// over it.
func (c Config) over(ctx context.Context, l *line) (string, error) {
	b, err := os.ReadFile(c.Password)
	if err != nil {
		return "", fmt.Errorf("reading the password of the etcd's user %s: %w", c.User, err)
	}
	resp, err := ask[etcdpb.AuthenticateRequest, etcdpb.AuthenticateResponse](ctx, l, "Auth/Authenticate",
		&etcdpb.AuthenticateRequest{Name: c.User, Password: strings.TrimRight(string(b), "\r\n")})
	switch {
	case noUsers.is(err):
		return "", nil // whoever comes is let in: as without a name
	case wrongLogin.is(err):
		return "", fmt.Errorf("%w: it does not take the user %s with the password in %s", errLogin, c.User, c.Password)
	case err != nil:
		return "", fmt.Errorf("saying who we are (user %s): %w", c.User, plain(err))
	}
	return resp.GetToken(), nil
}

// errLogin says that an etcd does not let us do what we have to: it does not know us,
// or does not give us our keys. It has done nothing of it.
var errLogin = fmt.Errorf("%w: the etcd does not let us in", ErrRefused)

// sign adds who asks.
func (l *line) sign(h http.Header) {
	if l.token != "" {
		h.Set(tokenKey, l.token)
	}
}

// judge looks whether a failure was because of who asks. A token that is over, as each is
// after some minutes or a change of the etcd's users, is replaced by that of another
// connection.
func (l *line) judge(err error) {
	if l.login && (oldToken.is(err) || oldUsers.is(err) || noUser.is(err)) { // the last: it had no users before
		l.stale.Store(true)
	}
}
