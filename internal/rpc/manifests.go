package rpc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/internal/config"
	"gemel/internal/ha"
	"gemel/internal/manifest"
	"gemel/internal/status"
)

// Apply puts a manifest in force.
func (a *api) Apply(ctx context.Context, req *gemelv1.ApplyRequest) (*gemelv1.ApplyResponse, error) {
	if a.b.Core == nil {
		return nil, absent("manifests")
	}
	if err := fileName(req.GetName()); err != nil {
		return nil, err
	}
	_, now, version := a.b.Core.Current()
	res := &gemelv1.ApplyResponse{Version: version, Digest: digest(req.GetManifest())}
	// What a node of a cluster has in force may be old: whether this one is in force
	// already, its store says.
	if a.b.Versions == nil && version != 0 && bytes.Equal(now, req.GetManifest()) {
		return res, nil
	}
	changes, next, err := a.b.Core.Apply(ctx, req.GetName(), req.GetManifest(), req.GetDryRun())
	if res.Problems = problems(err); len(res.Problems) > 0 {
		return res, nil
	}
	if err != nil {
		return nil, err
	}
	res.Version = next
	res.Applied = !req.GetDryRun() && next != version
	if res.Applied && len(now) > 0 && a.b.Keep != nil {
		res.Undo = a.b.Keep(now)
	}
	res.Changes = changesOf(changes)
	if _, warnings, err := config.Read(req.GetName(), req.GetManifest(), a.node()); err == nil {
		res.Problems = warned(a.Server, warnings)
	}
	return res, nil
}

// Manifest answers with the one in force, or with another version of the cluster's.
func (a *api) Manifest(ctx context.Context, req *gemelv1.ManifestRequest) (*gemelv1.ManifestResponse, error) {
	if a.b.Core == nil {
		return nil, absent("manifests")
	}
	name, b, version := a.b.Core.Current()
	if req.GetVersion() != 0 || req.GetVersions() {
		if a.b.Versions == nil {
			return nil, fault(ha.ErrRefused, "no-cluster", "gemel apply keeps the one before and prints how to take it back", "versions of the manifest are kept by a cluster, and this machine belongs to none")
		}
		res := &gemelv1.ManifestResponse{}
		var err error
		if req.GetVersions() {
			all, err := a.b.Versions.Versions(ctx)
			if err != nil {
				return nil, err
			}
			for _, v := range all {
				res.Versions = append(res.Versions, &gemelv1.ManifestVersion{Version: v.Number, Name: clean(v.Name), By: clean(v.By), At: timestamppb.New(v.At)})
			}
		}
		if version = req.GetVersion(); version != 0 {
			if name, b, err = a.b.Versions.Version(ctx, version); err != nil {
				return nil, err
			}
		}
		res.Name, res.Manifest, res.Version, res.Digest = clean(name), b, version, digest(b)
		return res, nil
	}
	return &gemelv1.ManifestResponse{Name: clean(name), Manifest: b, Version: version, Digest: digest(b), Overlays: a.overlays(name, b)}, nil
}

// Diff compares one with the one in force.
func (a *api) Diff(_ context.Context, req *gemelv1.DiffRequest) (*gemelv1.DiffResponse, error) {
	if a.b.Core == nil {
		return nil, absent("manifests")
	}
	if err := fileName(req.GetName()); err != nil {
		return nil, err
	}
	name, b, _ := a.b.Core.Current()
	res := &gemelv1.DiffResponse{Overlays: a.overlays(name, b)}
	if len(req.GetManifest()) == 0 {
		return res, nil
	}
	res.Same = bytes.Equal(b, req.GetManifest())
	given, warnings, err := config.Read(req.GetName(), req.GetManifest(), a.node())
	res.Problems = warned(a.Server, warnings)
	if err != nil {
		res.Problems = problems(err)
		return res, nil
	}
	inForce, err := config.Parse(name, b)
	if err != nil {
		// It was written by another version of Gemel; everything in it counts as gone.
		inForce = nil
	}
	res.Changes = changesOf(config.Diff(inForce, given, a.node()))
	res.Text = unified(clean(string(b)), clean(string(req.GetManifest())))
	return res, nil
}

func fileName(name string) error {
	if len(name) > maxText {
		return fault(ha.ErrInvalid, "name", "", "the name of the manifest has %d bytes; at most %d", len(name), maxText)
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// problems are the errors of a manifest; none if err is about something else.
func problems(err error) []*gemelv1.Problem {
	var all config.Errors
	var one config.Error
	switch {
	case errors.As(err, &all):
	case errors.As(err, &one):
		all = config.Errors{one}
	}
	var out []*gemelv1.Problem
	for _, e := range all {
		out = append(out, &gemelv1.Problem{File: clean(e.File), Line: uint32(max(e.Line, 0)), Column: uint32(max(e.Column, 0)),
			Path: clean(e.Path), Text: clean(e.Text), Hint: clean(e.Hint)})
	}
	return out
}

// warned are the remarks about a manifest, which stand in nobody's way. On a node of
// a cluster nothing of a group waits for one.
func warned(s *Server, all config.Errors) []*gemelv1.Problem {
	if last, _ := s.b.Board.Last(); last != nil && last.Cluster != nil {
		all = slices.DeleteFunc(slices.Clone(all), func(e config.Error) bool { return strings.HasPrefix(e.Path, "groups.") })
	}
	var out []*gemelv1.Problem
	if len(all) > 0 {
		out = problems(all)
	}
	for _, p := range out {
		p.Warning = true
	}
	return out
}

// effects are the effects of an apply. It is only read.
var effects = map[config.Effect]gemelv1.Effect{
	config.EffectStart:   gemelv1.Effect_EFFECT_ADD,
	config.EffectStop:    gemelv1.Effect_EFFECT_REMOVE,
	config.EffectRestart: gemelv1.Effect_EFFECT_RESTART,
	config.EffectInPlace: gemelv1.Effect_EFFECT_UPDATE,
}

func changesOf(all []config.Change) []*gemelv1.ManifestChange {
	var out []*gemelv1.ManifestChange
	for _, c := range all {
		m := &gemelv1.ManifestChange{Subject: subjectOf(ha.Subject{Kind: ha.Kind(c.Kind), Name: c.Name}), Effect: effects[c.Effect], Text: clean(c.String())}
		if c.Kind == "files" {
			m.Subject.Kind = gemelv1.Kind_KIND_FILES
		}
		for _, f := range c.Fields {
			m.Fields = append(m.Fields, clean(f.Path))
			m.Values = append(m.Values, &gemelv1.FieldChange{Path: clean(f.Path), Old: clean(f.Old), New: clean(f.New)})
		}
		out = append(out, m)
	}
	return out
}

// node is the name of this node; empty before the first picture.
func (s *Server) node() ha.Node {
	last, _ := s.b.Board.Last()
	if last == nil {
		return ""
	}
	return ha.Node(last.Node.Name)
}

// overlays are the values in force that are not the manifest's.
func (s *Server) overlays(name string, b []byte) []*gemelv1.Overlay {
	last, _ := s.b.Board.Last()
	if last == nil || !slices.ContainsFunc(last.Processes, func(p status.ProcessStatus) bool { return p.Overlay }) {
		return nil
	}
	m, err := config.Parse(name, b)
	if err != nil {
		m = &manifest.Manifest{} // by another version; the values in force can still be told
	}
	var out []*gemelv1.Overlay
	for i := range last.Processes {
		p := &last.Processes[i]
		if !p.Overlay {
			continue
		}
		was, _ := m.Process(p.Name)
		if p.Recovery != was.Recovery {
			out = append(out, &gemelv1.Overlay{Subject: subjectOf(ha.OfProcess(p.Name)), Item: "recovery", Value: p.Recovery.String(), ManifestValue: was.Recovery.String(),
				By: clean(p.RecoveryBy.By), At: lockOf(p.RecoveryBy).GetSince()})
		}
		if p.Escalation != was.Restarts.Then {
			out = append(out, &gemelv1.Overlay{Subject: subjectOf(ha.OfProcess(p.Name)), Item: "escalation", Value: p.Escalation.String(), ManifestValue: was.Restarts.Then.String(),
				By: clean(p.EscalationBy.By), At: lockOf(p.EscalationBy).GetSince()})
		}
	}
	return out
}
