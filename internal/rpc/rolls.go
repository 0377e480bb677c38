package rpc

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/ha"
)

// backupPiece is how much of a copy of the store is sent at a time.
const backupPiece = 64 << 10

// said makes a refusal of an error that is none of ours.
func said(err error) error {
	var known *ha.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return fault(ha.ErrRefused, "cluster", "", "%w", err)
}

// rollAPI is the part of the API about who is in the cluster.
type rollAPI struct{ *Server }

// Token makes a token for a newcomer.
func (a rollAPI) Token(ctx context.Context, req *gemelv1.TokenRequest) (*gemelv1.TokenResponse, error) {
	switch {
	case a.b.Rolls == nil:
		return nil, absent("cluster")
	case len(req.GetName()) > maxName:
		return nil, fault(ha.ErrInvalid, "name", "", "the name has %d bytes; at most %d", len(req.GetName()), maxName)
	}
	text, until, at, err := a.b.Rolls.Token(ctx, req.GetWitness(), req.GetName(), time.Duration(req.GetSeconds())*time.Second)
	if err != nil {
		return nil, said(err)
	}
	return &gemelv1.TokenResponse{Token: text, Until: timestamppb.New(until), Addresses: at}, nil
}

// Leave takes this machine out of its cluster.
func (a rollAPI) Leave(ctx context.Context, req *gemelv1.LeaveRequest) (*gemelv1.LeaveResponse, error) {
	if a.b.Rolls == nil {
		return nil, absent("cluster")
	}
	if err := a.b.Rolls.Leave(ctx, a.by(callerOf(ctx).peer), req.GetWithWitness()); err != nil {
		return nil, said(err)
	}
	return &gemelv1.LeaveResponse{}, nil
}

// Renew gets new certificates.
func (a rollAPI) Renew(ctx context.Context, _ *gemelv1.RenewRequest) (*gemelv1.RenewResponse, error) {
	if a.b.Rolls == nil {
		return nil, absent("cluster")
	}
	if err := a.b.Rolls.Renew(ctx); err != nil {
		return nil, said(err)
	}
	return &gemelv1.RenewResponse{}, nil
}

// Certificates tells what proves who is who.
func (a rollAPI) Certificates(ctx context.Context, _ *gemelv1.CertificatesRequest) (*gemelv1.CertificatesResponse, error) {
	if a.b.Keys == nil {
		return nil, absent("cluster")
	}
	k, err := a.b.Keys.Certificates(ctx)
	if err != nil {
		return nil, said(err)
	}
	out := &gemelv1.CertificatesResponse{UnderWay: k.UnderWay}
	for _, c := range k.Certificates {
		out.Certificates = append(out.Certificates, &gemelv1.Certificate{Name: c.Name, Purpose: c.Purpose, Until: timestamppb.New(c.Until), Authority: c.By, Signs: c.Signs, Trouble: c.Trouble})
	}
	for i, id := range k.Heartbeats {
		out.Keys = append(out.Keys, &gemelv1.HeartbeatKey{Id: id, Seals: i == 0})
	}
	return out, nil
}

// Rotate begins to replace it.
func (a rollAPI) Rotate(ctx context.Context, req *gemelv1.RotateRequest) (*gemelv1.RotateResponse, error) {
	switch {
	case a.b.Keys == nil:
		return nil, absent("cluster")
	case len(req.GetWhat()) == 0 || len(req.GetWhat()) > maxWhat:
		return nil, fault(ha.ErrInvalid, "what", "", "%d kinds of keys are to be replaced; 1 to %d are allowed", len(req.GetWhat()), maxWhat)
	}
	if err := a.b.Keys.Rotate(ctx, req.GetWhat()); err != nil {
		return nil, said(err)
	}
	return &gemelv1.RotateResponse{}, nil
}

// maxWhat bounds how many kinds of keys one call may name.
const maxWhat = 8

// Backup sends a copy of the store.
func (a rollAPI) Backup(ctx context.Context, _ *gemelv1.BackupRequest, stream *connect.ServerStream[gemelv1.BackupResponse]) error {
	if a.b.Rolls == nil {
		return absent("cluster")
	}
	return said(a.b.Rolls.Backup(ctx, pieces(func(b []byte) error { return stream.Send(&gemelv1.BackupResponse{Data: b}) })))
}

// pieces sends what is written in pieces of a bounded size.
type pieces func([]byte) error

// Write is that of io.Writer.
func (p pieces) Write(b []byte) (int, error) {
	for n := 0; n < len(b); n += backupPiece {
		if err := p(b[n:min(n+backupPiece, len(b))]); err != nil {
			return n, err
		}
	}
	return len(b), nil
}
