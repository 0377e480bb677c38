package roll

import (
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/mtls"
	"gemel/internal/mtls/authority"
	"gemel/internal/store"
)

// Whatever machines have of two steps that follow each other, each opens what another one
// seals; a step follows only when all have the one before.
func TestHeartsOverlap(t *testing.T) {
	h := hearts{1, []string{"old", "new"}, "new"}
	var all []hearts
	for {
		all = append(all, h)
		next, more := h.step()
		if !more {
			break
		}
		if next.Step != h.Step+1 || !slices.Contains(next.Keys, h.Keys[0]) || !slices.Contains(h.Keys, next.Keys[0]) {
			t.Errorf("%v and %v beside each other: one does not open what the other one seals", h.Keys, next.Keys)
		}
		h = next
	}
	if len(all) != 3 || h.file() != "new\n" {
		t.Errorf("%+v", all)
	}
	r := rollOf("a", "b")
	docs := map[string]store.Doc{heartSeen + "a": {Value: []byte(h.at(r.Nodes[0]))}, heartSeen + "b": {Value: []byte(all[0].at(r.Nodes[1]))}}
	if late := h.behind(r, docs); !slices.Equal(late, []ha.Node{"b"}) {
		t.Errorf("behind are %v", late)
	}
	other := r.Nodes[1]
	other.Joined = other.Joined.AddDate(0, 0, 1)
	if h.at(other) == h.at(r.Nodes[1]) {
		t.Error("the word of a machine counts for the next one of its name")
	}
}

// A certificate that should have renewed itself is told, and is not any more when it has.
func TestCertificateShouldHaveRenewed(t *testing.T) {
	h := Home{Data: t.TempDir(), Node: filepath.Join(t.TempDir(), "node.yaml")}
	roles := []mtls.Role{mtls.Node, mtls.Peer, mtls.Manager}
	if err := h.make(roles...); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := rollOf("a")
	sow := seed{Roll: r, Trust: map[string]*mtls.Trust{}}
	signers := map[string]*authority.Authority{}
	for _, role := range planes() {
		plane := role.Authority(r.Cluster.ID).Name
		a, err := authority.Create(h.signer(plane), r.Cluster.ID, role, now.Add(-300*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		signers[plane], sow.Trust[plane] = a, a.Trust(now.Add(-300*24*time.Hour))
	}
	var told []mtls.Expiry
	c := &Clerk{Home: h, Log: slog.New(slog.DiscardHandler), Ends: func(l []mtls.Expiry) { told = l }, own: own{me: "a", role: mtls.Node}}
	for _, age := range []time.Duration{300 * 24 * time.Hour, 0} {
		if err := (Setup{Home: h}).certify(&sow, signers, roles, r.Nodes[0], now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		if err := h.adopt(sow.Trust, nil); err != nil {
			t.Fatal(err)
		}
		ending(c, now)
		var names []string
		for _, e := range told {
			names = append(names, string(e.Name.Role))
		}
		// That of the peer is good for as long as its authority.
		if want := map[bool]int{true: 2, false: 0}[age > 0]; len(told) != want {
			t.Errorf("%v after they were given: %v", age, names)
		}
	}
}

// The key of an authority is for nodes alone.
func TestSignerIsForNodes(t *testing.T) {
	d := &porch{clerk: &Clerk{Home: Home{Data: t.TempDir()}, books: ledger{cluster: "abc"}}}
	for who, ask := range map[mtls.Role]string{
		mtls.Witness: `{"plane":"nodes","new":"0"}`, mtls.Person: `{"plane":"nodes","new":"0"}`, mtls.Peer: `{"plane":"nodes","new":"0"}`,
		mtls.Node: `{"plane":"../../etc/x","new":"0"}`,
	} {
		r, err := d.signer(t.Context(), mtls.Identity{Name: mtls.Name{Cluster: "abc", Role: who, Name: "x"}}, []byte(ask))
		var no *Refused
		if !errors.As(err, &no) || r.Signer != nil {
			t.Errorf("%s, asking %s: %v", who, ask, err)
		}
	}
}
