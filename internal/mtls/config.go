package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Server makes the configuration of a listener: TLS 1.3, a certificate asked for,
// judged if one is given, and refused without one if need. roles are those that
// may come in. protos are for ALPN; a server that would set them in the
// configuration sets them here instead.
//
// The listener still has to bound how long a handshake may take.
func (f *Files) Server(protos []string, need bool, roles ...Role) (*tls.Config, error) {
	if _, err := f.current(); err != nil {
		return nil, err
	}
	one := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s, err := f.current()
		if err != nil {
			return nil, err
		}
		c := &tls.Config{
			MinVersion:   tls.VersionTLS13,
			NextProtos:   protos,
			Certificates: []tls.Certificate{*s.leaf},
			ClientAuth:   tls.RequestClientCert,
			// Only a hint, by which a browser offers no certificate of somebody else.
			ClientCAs: s.pool,
			// A resumed session would not be asked for its certificate again.
			SessionTicketsDisabled: true,
			VerifyConnection: func(cs tls.ConnectionState) error {
				if len(cs.PeerCertificates) == 0 && !need {
					return nil
				}
				_, err := f.verify(cs, x509.ExtKeyUsageClientAuth, roles)
				return err
			},
		}
		if need {
			c.ClientAuth = tls.RequireAnyClientCert
		}
		return c, nil
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: protos, SessionTicketsDisabled: true, GetConfigForClient: one}, nil
}

// Client makes the configuration of a caller: TLS 1.3, and the one at the other end
// must be exactly server, whatever its address. If server.Name is empty then any
// party of that role will do: for a tool that knows only an address.
func (f *Files) Client(protos []string, server Name) (*tls.Config, error) {
	whole := server
	if whole.Name == "" {
		whole.Name = "any"
	}
	if err := whole.Check(); err != nil {
		return nil, err
	}
	if _, err := f.current(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// Not what it says: VerifyConnection judges the chain, by our names instead of
		// host names and by our rules for the time.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			s, err := f.current()
			if err != nil {
				return nil, err
			}
			return s.leaf, nil
		},
		VerifyConnection: func(cs tls.ConnectionState) error {
			id, err := f.verify(cs, x509.ExtKeyUsageServerAuth, []Role{server.Role})
			if err == nil && (id.Name.Cluster != server.Cluster || server.Name != "" && id.Name != server) {
				err = fmt.Errorf("%v answered where %v was expected", id.Name, server)
			}
			return err
		},
	}, nil
}

// verify judges who is at the other end of a connection.
func (f *Files) verify(cs tls.ConnectionState, use x509.ExtKeyUsage, roles []Role) (Identity, error) {
	s, err := f.current()
	if err != nil {
		return Identity{}, err
	}
	id, doubt, err := f.judge(s).verdict(cs.PeerCertificates, use)
	if err == nil && cs.Version < tls.VersionTLS13 {
		err = errors.New("only TLS 1.3 is spoken here")
	}
	if err == nil && !slices.Contains(roles, id.Name.Role) {
		err = fmt.Errorf("%v: the role %s has no business here", id.Name, id.Name.Role)
	}
	if err != nil {
		return Identity{}, err
	}
	if doubt != "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.tellAs("doubt "+id.Pin, doubt)
	}
	return id, nil
}

// Peer judges anew who is at the other end of a connection, and must have one of
// the roles. It is for a stream that has been open for long: what was revoked, or
// expired, since its handshake is an error. So is a connection without a certificate.
func (f *Files) Peer(cs tls.ConnectionState, roles ...Role) (Identity, error) {
	return f.verify(cs, x509.ExtKeyUsageAny, roles)
}

// Pinned makes the configuration of a caller who has no certificate yet and knows
// of the cluster only n, the server (any of its role and cluster if the name is
// empty), and pin, at least half of the pin of the authority's key, hexadecimal.
// The server is known to be the right one before anything is sent to it.
func (n Name) Pinned(pin string, now func() time.Time) (*tls.Config, error) {
	whole := n
	if whole.Name == "" {
		whole.Name = "any"
	}
	if err := whole.Check(); err != nil {
		return nil, err
	}
	if len(pin) < 32 || len(pin) > 64 {
		return nil, fmt.Errorf("the pin %.80q: 32 to 64 hexadecimal digits are needed", pin)
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // see Files.Client
		VerifyConnection: func(cs tls.ConnectionState) error {
			t := &Trust{Cluster: n.Cluster, Plane: n.Role.plane()}
			for _, c := range cs.PeerCertificates[min(1, len(cs.PeerCertificates)):min(maxChain, len(cs.PeerCertificates))] {
				if id, err := Identify(c); err == nil && len(c.Raw) <= maxCert && strings.HasPrefix(id.Pin, pin) {
					t.Authorities = append(t.Authorities, c.Raw)
				}
			}
			if len(t.Authorities) == 0 {
				return fmt.Errorf("it is not of the cluster that was meant: no authority with the key %.16s vouches for it", pin)
			}
			j, err := newJudge(t, now(), time.Time{})
			if err != nil {
				return err
			}
			id, _, err := j.verdict(cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
			if err == nil && (id.Name.Role != n.Role || n.Name != "" && id.Name != n) {
				err = fmt.Errorf("%v answered where %v was expected", id.Name, n)
			}
			return err
		},
	}, nil
}
