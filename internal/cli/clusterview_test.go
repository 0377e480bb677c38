package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	gemelv1 "gemel/api/gemel/v1"
)

// What is in maintenance is shown beside it, with its end.
func TestMaintenanceIsShown(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	end := timestamppb.New(now.Add(2 * time.Hour))
	shown := end.AsTime().Local().Format("2006-01-02 15:04:05-07:00")
	var b bytes.Buffer
	out := newScreen(&b)
	s := &gemelv1.Snapshot{At: timestamppb.New(now), Cluster: &gemelv1.ClusterStatus{Store: true, Maintenance: end, Nodes: []*gemelv1.MemberStatus{
		{Name: "a", State: "member", Self: true}, {Name: "b", State: "member", Hears: []string{"n"}, Maintenance: end}}},
		Groups: []*gemelv1.GroupStatus{{Name: "web", State: "active", Node: "a", Locked: true, Maintenance: end}, {Name: "db", State: "active", Node: "a"}}}
	clusterTable(&b, out, s.GetCluster(), now)
	groupTable(&b, out, s)
	for _, want := range []string{"the whole cluster is in maintenance until " + shown, "member, maintenance", "active, locked, maintenance"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
	for line := range strings.Lines(b.String()) {
		name, _, _ := strings.Cut(line, " ")
		if is := strings.Contains(line, "in maintenance until "+shown+" (2h"); is != (name == "b" || name == "web" || strings.Contains(line, "whole")) {
			t.Errorf("%s", line)
		}
	}
}
