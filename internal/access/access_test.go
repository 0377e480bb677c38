package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gemel/internal/manifest"
)

func fixed(t *testing.T, lists manifest.Access) *Policy {
	t.Helper()
	ids := map[string]uint32{"ann": 1001, "bob": 1002, "ops": 2001, "watch": 2002, "ghost": overflow}
	ask := func(n string) (uint32, error) {
		if id, ok := ids[n]; ok {
			return id, nil
		}
		return 0, errors.New("unknown")
	}
	p := &Policy{own: 990, lookup: lookup{ask, ask}}
	p.Set(t.Context(), lists)
	return p
}

func TestRoles(t *testing.T) {
	p := fixed(t, manifest.Access{
		Viewers:   []string{"ann", "%watch", "ghost", "%ghost", "nobody-has-this"},
		Operators: []string{"%ops"},
		Admins:    []string{"bob", "1003"},
	})
	for _, c := range []struct {
		peer Peer
		want Role
		why  string
	}{
		{Peer{UID: 0}, Admin, "root"},
		{Peer{UID: 990}, Admin, "runs as"},
		{Peer{UID: 1001, GID: 1001}, Viewer, `"ann" is in node.access.viewers`},
		{Peer{UID: 1001, GID: 2001}, Operator, `"%ops" is in node.access.operators`},
		{Peer{UID: 1001, Groups: []uint32{5, 2001}}, Operator, "%ops"},
		{Peer{UID: 1002, Groups: []uint32{2002}}, Admin, "bob"},
		{Peer{UID: 1003}, Admin, "1003"},
		{Peer{UID: 1009, GID: 0, Groups: []uint32{0}}, None, "nobody-has-this"},
		{Peer{UID: 1009, GID: 2002}, Viewer, "%watch"},
		{Peer{UID: overflow, GID: 2001}, None, "namespace"},
		{Peer{UID: 1009, GID: overflow, Groups: []uint32{overflow}}, None, "neither user"},
		{Peer{UID: ^uint32(0), GID: 2001}, None, "namespace"},
	} {
		got, why := p.Role(c.peer)
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%+v: %v, %q; want %v, %q", c.peer, got, why, c.want, c.why)
		}
	}
	if !p.Shared() {
		t.Error("a policy with lists is not shared")
	}
}

func TestDefaultIsClosed(t *testing.T) {
	p := New(manifest.Access{}, 990)
	if r, _ := p.Role(Peer{UID: 1001}); r != None || p.Shared() {
		t.Errorf("an unknown user is %v, shared %v; want none", r, p.Shared())
	}
}

func TestSetTellsOfChange(t *testing.T) {
	p := fixed(t, manifest.Access{Viewers: []string{"ann"}})
	c := p.Changed()
	p.Refresh(t.Context())
	select {
	case <-c:
		t.Fatal("changed although nothing did")
	default:
	}
	if u := p.Set(t.Context(), manifest.Access{Viewers: []string{"zoe"}}); len(u) != 1 || u[0] != "zoe" {
		t.Errorf("unknown %q", u)
	}
	select {
	case <-c:
	default:
		t.Fatal("not told of the change")
	}
	if r, _ := p.Role(Peer{UID: 1001}); r != None {
		t.Errorf("ann is still %v", r)
	}
}

func TestHungNameService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ask := func(n string) (uint32, error) {
			if n == "slow" {
				<-release
			}
			return 1001, nil
		}
		p := &Policy{lookup: lookup{ask, ask}}
		begin := time.Now()
		u := p.Set(context.Background(), manifest.Access{Viewers: []string{"ann", "slow", "after", "1007"}})
		if took := time.Since(begin); took > lookupBound {
			t.Errorf("took %v", took)
		}
		if strings.Join(u, " ") != "after slow" {
			t.Errorf("unknown %q", u)
		}
		if r, _ := p.Role(Peer{UID: 1007}); r != Viewer {
			t.Errorf("a number waits for the name service")
		}
		if r, _ := p.Role(Peer{UID: 1001}); r != Viewer {
			t.Errorf("ann is %v", r)
		}
		close(release)
	})
}

// TestNameServiceGoesAway keeps what it said for an hour, but not a name that it
// says is gone.
func TestNameServiceGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failure error
		ask := func(string) (uint32, error) { return 1001, failure }
		p := &Policy{lookup: lookup{ask, ask}}
		role := func() Role {
			p.Refresh(t.Context())
			r, _ := p.Role(Peer{UID: 1001})
			return r
		}
		p.Set(t.Context(), manifest.Access{Operators: []string{"ann"}})
		failure = errors.New("connection refused")
		time.Sleep(keepBound - time.Second)
		if r := role(); r != Operator {
			t.Errorf("within the bound: %v", r)
		}
		time.Sleep(2 * time.Second)
		if r := role(); r != None {
			t.Errorf("after it: %v", r)
		}
		failure = nil
		role()
		failure = fmt.Errorf("looking up: %w", user.UnknownUserError("ann"))
		if r := role(); r != None {
			t.Errorf("a user who is gone: %v", r)
		}
	})
}

// TestSlowLookupLoses has an older Set end after a newer one.
func TestSlowLookupLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ask := func(n string) (uint32, error) {
			if n == "slow" {
				<-release
			}
			return 1001, nil
		}
		p := &Policy{lookup: lookup{ask, ask}}
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.Set(context.Background(), manifest.Access{Admins: []string{"slow"}})
		}()
		synctest.Wait()
		p.Set(context.Background(), manifest.Access{Viewers: []string{"ann"}})
		close(release)
		<-done
		if r, _ := p.Role(Peer{UID: 1001}); r != Viewer {
			t.Errorf("the older lists are in force: %v", r)
		}
	})
}

func TestName(t *testing.T) {
	p := New(manifest.Access{}, 0)
	if n := p.Name(0); n != "root" {
		t.Errorf("user 0 is %q", n)
	}
	if n := p.Name(4123456789); n != "4123456789" {
		t.Errorf("an unknown user is %q", n)
	}
}

func add(t *testing.T, a *Audit, target string) {
	t.Helper()
	if err := a.Add(Entry{Wall: time.Unix(1e9, 0).UTC(), User: "ann", Method: "Request", Target: target, Result: "ok"}); err != nil {
		t.Fatal(err)
	}
}

func TestAuditChain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := OpenAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, a, "one")
	add(t, a, "two\n\x1b[2J\u202e\U0001f600\x7f\u009b"+strings.Repeat("é", 2000))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a, err = OpenAudit(path); err != nil {
		t.Fatal(err)
	}
	add(t, a, "three")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b {
		if c != '\n' && (c < 0x20 || c > 0x7e) {
			t.Fatalf("byte %#x in %s", c, b)
		}
	}
	var e Entry
	if err := json.Unmarshal([]byte(strings.Split(string(b), "\n")[1]), &e); err != nil || !strings.HasPrefix(e.Target, "two\n\x1b[2J\u202e\U0001f600\x7f\u009b") {
		t.Errorf("read back %q, %v", e.Target, err)
	}
	if n, err := Verify(path); n != 3 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for name, forged := range map[string]string{
		"changed": strings.Replace(string(b), `"one"`, `"ten"`, 1),
		"removed": strings.Replace(string(b), strings.SplitAfter(string(b), "\n")[1], "", 1),
	} {
		if err := os.WriteFile(path, []byte(forged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(path); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

func TestAuditTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := OpenAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	add(t, a, "one")
	add(t, a, "two")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()-20); err != nil {
		t.Fatal(err)
	}
	if a, err = OpenAudit(path); err != nil {
		t.Fatal(err)
	}
	add(t, a, "three")
	if n, err := Verify(path); n != 3 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestAuditRotates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	a, err := OpenAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	a.limit = 4096
	for range 200 {
		add(t, a, "x")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != auditFiles {
		t.Errorf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if st, err := f.Info(); err != nil || st.Size() > 4096 {
			t.Errorf("%s has %d bytes, %v", f.Name(), st.Size(), err)
		}
	}
	if n, err := Verify(path); n < 50 || err != nil {
		t.Errorf("%d lines, %v", n, err)
	}
}

func TestAuditRefusesOddFiles(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/dev/null", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, "/dev/null", dir} {
		if _, err := OpenAudit(path); err == nil {
			t.Errorf("%s was accepted", path)
		}
	}
}
