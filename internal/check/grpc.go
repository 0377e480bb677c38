package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"gemel/internal/manifest"
)

// servingNames are the states of grpc.health.v1.
func servingName(n uint64) string {
	names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if n < uint64(len(names)) {
		return names[n]
	}
	return strconv.FormatUint(n, 10)
}

const (
	serving        = 1
	grpcNotFound   = "5"
	grpcNotThere   = "12"
	maxHealthReply = 4096
)

// probeGRPC asks by the gRPC health protocol: one request over HTTP/2, with a
// message of one field each way. That is less than a gRPC library would be.
func probeGRPC(ctx context.Context, g *manifest.GRPC) (string, error) {
	scheme := "http"
	var protocols http.Protocols
	if g.TLS {
		scheme = "https"
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	vouched, err := authority(g.CA)
	if err != nil {
		return "", err
	}
	t := &http.Transport{Protocols: &protocols, MaxResponseHeaderBytes: maxHead, TLSClientConfig: vouched}
	defer t.CloseIdleConnections()
	host := g.Address
	if n, _ := network(g.Address); n == "unix" {
		host = "localhost"
	}
	t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, g.Address) }
	target := url.URL{Scheme: scheme, Host: host, Path: "/grpc.health.v1.Health/Check"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(healthRequest(g.Service)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("TE", "trailers")
	req.Header.Set("User-Agent", "gemel-check")
	resp, err := t.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("grpc health of %s: %w", g.Address, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %s: not a gRPC server", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthReply))
	if err != nil {
		return "", fmt.Errorf("reading the answer of %s: %w", g.Address, err)
	}
	if err := grpcStatus(resp, g); err != nil {
		return "", err
	}
	state, err := healthReply(body)
	if err != nil {
		return "", fmt.Errorf("answer of %s: %w", g.Address, err)
	}
	if state != serving {
		return "", fmt.Errorf("%s says %s", about(g), servingName(state))
	}
	return servingName(state), nil
}

func about(g *manifest.GRPC) string {
	if g.Service == "" {
		return "the server"
	}
	return "service " + strconv.Quote(g.Service)
}

// grpcStatus reads the status, which stands in the trailer, or in the header of an
// answer that is nothing else.
func grpcStatus(resp *http.Response, g *manifest.GRPC) error {
	from := resp.Trailer
	code := from.Get("Grpc-Status")
	if code == "" {
		from = resp.Header
		code = from.Get("Grpc-Status")
	}
	text := from.Get("Grpc-Message")
	if plain, err := url.PathUnescape(text); err == nil {
		text = plain
	}
	switch code {
	case "0":
		return nil
	case "":
		return errors.New("the answer has no grpc-status: not a gRPC server")
	case grpcNotFound:
		return fmt.Errorf("%s is not known there (NOT_FOUND) %s", about(g), text)
	case grpcNotThere:
		return fmt.Errorf("the server does not offer grpc.health.v1 (UNIMPLEMENTED) %s", text)
	}
	return fmt.Errorf("grpc-status %s %s", code, text)
}

// healthRequest is a HealthCheckRequest in its frame: field 1, a string.
func healthRequest(service string) []byte {
	var m []byte
	if service != "" {
		m = binary.AppendUvarint([]byte{1<<3 | 2}, uint64(len(service)))
		m = append(m, service...)
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	return append(frame, m...)
}

// healthReply reads a HealthCheckResponse in its frame: field 1, an enumeration,
// 0 if it is left out. Other fields are skipped.
func healthReply(b []byte) (state uint64, err error) {
	short := errors.New("not a message of grpc.health.v1")
	if len(b) < 5 || b[0] != 0 {
		return 0, short
	}
	n := binary.BigEndian.Uint32(b[1:])
	if uint64(n) > uint64(len(b)-5) {
		return 0, short
	}
	for m := b[5 : 5+n]; len(m) > 0; {
		tag, k := binary.Uvarint(m)
		if k <= 0 {
			return 0, short
		}
		m = m[k:]
		size, v := 0, uint64(0)
		switch tag & 7 {
		case 0:
			v, size = binary.Uvarint(m)
		case 1:
			size = 8
		case 2:
			l, k := binary.Uvarint(m)
			if k <= 0 || l > uint64(len(m)-k) {
				return 0, short
			}
			size = k + int(l)
		case 5:
			size = 4
		}
		if size <= 0 || size > len(m) {
			return 0, short
		}
		if tag>>3 == 1 && tag&7 == 0 {
			state = v
		}
		m = m[size:]
	}
	return state, nil
}
