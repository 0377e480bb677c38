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
