package roll

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestBorrowed: a machine that reaches the store by way of another one leaves that way
// when its own member has its vote. Else the death of the other one takes the store from
// it, in the very moment in which it should take over.
func TestBorrowed(t *testing.T) {
	home := Home{Data: t.TempDir()}
	if err := os.MkdirAll(filepath.Dir(home.at(joiningFile)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.at(joiningFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Clerk{Home: home, own: own{me: "b"}, known: known{roll: Roll{Nodes: []Node{{Name: "a", Voter: true}, {Name: "b", Voter: true}}}}}
	asker, near := net.Pipe()
	far, store := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); borrow(context.Background(), c, near, far) }()
	for _, end := range []net.Conn{asker, store} {
		if err := end.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, 1)
	if _, err := asker.Write([]byte{7}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(store, b); err != nil || b[0] != 7 {
		t.Fatalf("before the vote: %v, %v", b, err)
	}
	if err := os.Remove(home.at(joiningFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := asker.Read(b); err != io.EOF {
		t.Errorf("after the vote the way is still there: %v", err)
	}
	<-done
}
