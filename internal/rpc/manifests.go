package rpc

import (
	"context"

	gemelv1 "gemel/api/gemel/v1"
)

// Apply puts a manifest in force.
func (a *api) Apply(ctx context.Context, req *gemelv1.ApplyRequest) (*gemelv1.ApplyResponse, error) {
	return nil, absent("manifests")
}

// Manifest answers with the one in force.
func (a *api) Manifest(ctx context.Context, req *gemelv1.ManifestRequest) (*gemelv1.ManifestResponse, error) {
	return nil, absent("manifests")
}

// Diff compares one with the one in force.
func (a *api) Diff(ctx context.Context, req *gemelv1.DiffRequest) (*gemelv1.DiffResponse, error) {
	return nil, absent("manifests")
}
