package rpc

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	gemelv1 "gemel/api/gemel/v1"
	"gemel/api/gemel/v1/gemelv1connect"
	"gemel/internal/access"
	"gemel/internal/ha"
)

// TestTable compares the table of roles with the contract: each method has
// exactly one row, what the contract says of its access is what the table says,
// and what changes something is never for viewers.
func TestTable(t *testing.T) {
	service := gemelv1.File_gemel_v1_gemel_proto.Services().ByName("Gemel")
	source, err := os.ReadFile(filepath.Join("..", "..", "api", "gemel", "v1", "gemel.proto"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		path := fmt.Sprintf("/%s/%s", gemelv1connect.GemelName, m.Name())
		seen[path] = true
		law, ok := table[path]
		if !ok {
			t.Errorf("%s has no row", m.Name())
			continue
		}
		if law.body <= 0 || law.body > largeBody {
			t.Errorf("%s: a body of %d bytes", m.Name(), law.body)
		}
		if law.change && law.least < access.Operator {
			t.Errorf("%s changes something and is for %v", m.Name(), law.least)
		}
		above, _, found := strings.Cut(string(source), "  rpc "+string(m.Name())+"(")
		if !found {
			t.Fatalf("%s is not in the contract's source", m.Name())
		}
		comment := strings.Join(strings.Fields(strings.ReplaceAll(above[strings.LastIndexAny(above, "{};"):], "//", "")), " ")
		want := "Access: " + law.least.String()
		if law.least == access.None {
			want = "Anybody who may connect"
		}
		if !strings.Contains(comment, want) {
			t.Errorf("%s: the table says %v, the contract says %q", m.Name(), law.least, comment)
		}
	}
	for path := range table {
		if !seen[path] {
			t.Errorf("the row %s is about no method", path)
		}
	}
}

// TestWords holds every word of ha to one of the contract, and back.
func TestWords(t *testing.T) {
	if n := gemelv1.File_gemel_v1_gemel_proto.Enums().ByName("Verb").Values().Len() - 1; n != len(verbs) {
		t.Errorf("%d verbs in the contract, %d in the table", n, len(verbs))
	}
	for wire, kind := range kinds {
		if got := subjectOf(ha.Subject{Kind: kind}).Kind; got != wire {
			t.Errorf("%v is %v and back %v", wire, kind, got)
		}
	}
	for k := ha.ErrInvalid; k <= ha.ErrFailed; k++ {
		if gemelv1.ErrorKind_name[int32(k)] == "" {
			t.Errorf("error kind %v is not in the contract", k)
		}
	}
	same := func(of string, n int, wire map[int32]string, word func(int) string, shift int) {
		t.Helper()
		for i := range n {
			name := strings.ReplaceAll(strings.ToLower(wire[int32(i+shift)]), "_", "-")
			w := word(i)
			if i+shift == 0 {
				w = "unspecified"
			}
			if name != of+"-"+w {
				t.Errorf("%s %d is %q in ha and %q on the wire", of, i, w, name)
			}
		}
	}
	same("severity", 4, gemelv1.Severity_name, func(i int) string { return ha.Severity(i).String() }, 1)
	same("change", 3, gemelv1.Change_name, func(i int) string { return ha.Change(i).String() }, 1)
	same("role", 3, gemelv1.Role_name, func(i int) string { return ha.Role(i).String() }, 0)
	same("fault", 4, gemelv1.Fault_name, func(i int) string { return ha.Fault(i).String() }, 0)
	same("recovery", 5, gemelv1.Recovery_name, func(i int) string { return ha.Recovery(i).String() }, 0)
	same("escalation", 4, gemelv1.Escalation_name, func(i int) string { return ha.Escalation(i).String() }, 0)
	same("access", 4, gemelv1.Access_name, func(i int) string { return access.Role(i).String() }, 0)
}

// TestNumbersAreForEver compares the contract with its published numbers. A line
// that is new is added with UPDATE=1; one that changed or went is a broken promise.
func TestNumbersAreForEver(t *testing.T) {
	var lines []string
	for _, f := range []protoreflect.FileDescriptor{gemelv1.File_gemel_v1_gemel_proto, gemelv1.File_gemel_v1_event_proto,
		gemelv1.File_gemel_v1_manifest_proto, gemelv1.File_gemel_v1_status_proto} {
		for i := range f.Messages().Len() {
			m := f.Messages().Get(i)
			for j := range m.Fields().Len() {
				d := m.Fields().Get(j)
				kind := d.Kind().String()
				if d.Message() != nil {
					kind = string(d.Message().FullName())
				} else if d.Enum() != nil {
					kind = string(d.Enum().FullName())
				}
				lines = append(lines, fmt.Sprintf("%s.%s %d %s %s", m.Name(), d.Name(), d.Number(), d.Cardinality(), kind))
			}
		}
		for i := range f.Enums().Len() {
			e := f.Enums().Get(i)
			for j := range e.Values().Len() {
				lines = append(lines, fmt.Sprintf("%s %d", e.Values().Get(j).Name(), e.Values().Get(j).Number()))
			}
		}
	}
	slices.Sort(lines)
	path := filepath.Join("testdata", "numbers.txt")
	b, err := os.ReadFile(path)
	if err != nil && os.Getenv("UPDATE") == "" {
		t.Fatal(err)
	}
	old := strings.Split(strings.TrimSpace(string(b)), "\n")
	if os.Getenv("UPDATE") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, l := range old {
		if !slices.Contains(lines, l) {
			t.Errorf("published and not there any more: %s", l)
		}
	}
	for _, l := range lines {
		if !slices.Contains(old, l) {
			t.Errorf("new and not in %s (UPDATE=1 go test adds it): %s", path, l)
		}
	}
}
