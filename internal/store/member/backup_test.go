package member

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gemel/internal/ha"
)

func TestBackup(t *testing.T) {
	t.Parallel()
	r := newRig(t, how{n: 1})
	r.up("a")
	c := r.client("a")
	at := mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Node: member("n", "i")}}})
	if _, err := c.PutDoc(ctxFor(t, 5*time.Second), "manifest", 0, []byte("text")); err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if err := c.Backup(ctxFor(t, 10*time.Second), &saved); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(r.dir, "backup")
	write(t, file, saved.String())
	for key, wants := range map[string]string{"/gemel/*/docs/manifest": "text", "/gemel/x/docs/none": ""} {
		if got, err := Peek(file, key); err != nil || string(got) != wants {
			t.Errorf("the backup says %q at %s: %v", got, key, err)
		}
	}
	later := mustWrite(t, c, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Guard: at, Node: member("n", "lost")}}})
	r.halt("a")

	m := r.members["a"]
	log := slog.New(slog.DiscardHandler)
	if err := Restore(file, m, log); err == nil {
		t.Fatal("a restore over data")
	}
	old, err := readMark(m.Dir)
	if err != nil || old == nil || old.Rev != int64(later) {
		t.Fatalf("the mark of the stopped member: %+v, %v; the last write was at %d", old, err, later)
	}
	// The data alone is gone, by hand: the mark knows which cluster it was.
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	if err := Restore(file, m, log); err == nil {
		t.Fatal("a restore under the old token")
	} else {
		t.Log(err)
	}
	for name, damaged := range map[string][]byte{
		"cut": saved.Bytes()[:saved.Len()-4096], "changed": append([]byte{1}, saved.Bytes()[1:]...), "empty": nil,
	} {
		bad := filepath.Join(r.dir, "bad")
		write(t, bad, string(damaged))
		other := m
		other.Token = "another"
		if err := Restore(bad, other, log); err == nil {
			t.Errorf("%s: it is restored", name)
		}
		if got, err := Peek(bad, "/gemel/*/docs/manifest"); err == nil {
			t.Errorf("%s: it says %q", name, got)
		}
		if _, err := os.Stat(m.Dir); !os.IsNotExist(err) {
			t.Errorf("%s: something was left: %v", name, err)
		}
	}
	m.Token = "after the restore"
	r.members["a"] = m
	if err := Restore(file, m, log); err != nil {
		t.Fatal(err)
	}
	r.up("a")
	// A client that has been there notices by itself.
	if got := c.Node(ctxFor(t, 10*time.Second), "n"); got.Error == "" {
		t.Errorf("a client of the former store reads on: %+v", got)
	} else {
		t.Log(got.Error)
	}
	clear(r.dialed)
	fresh := r.client("a")
	got := fresh.Node(ctxFor(t, 10*time.Second), "n")
	if got.Error != "" || got.Record.Incarnation != "i" || got.Key != at || got.At < later+bump/2 {
		t.Errorf("after the restore: %+v", got)
	}
	if d, err := fresh.Doc(ctxFor(t, 5*time.Second), "manifest"); err != nil || string(d.Value) != "text" {
		t.Errorf("%+v, %v", d, err)
	}
	mustWrite(t, fresh, ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey("n"), Guard: at, Node: member("n", "new")}}})
	// A new era begins without members; documents stay.
	if err := fresh.Forget(ctxFor(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	if all := fresh.Read(ctxFor(t, 5*time.Second)); all.Error != "" || len(all.Nodes)+len(all.Groups) != 0 || all.Epoch != 0 {
		t.Errorf("after all was forgotten: %+v", all)
	}
	if d, err := fresh.Doc(ctxFor(t, 5*time.Second), "manifest"); err != nil || string(d.Value) != "text" {
		t.Errorf("%+v, %v", d, err)
	}
	r.halt("a")
	r.up("a") // the mark fits
}

// TestBackupFull saves a store to where there is no room.
func TestBackupFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, how{n: 1})
	r.up("a")
	to := badWriter(5000)
	if err := r.client("a").Backup(ctxFor(t, 10*time.Second), &to); err == nil {
		t.Error("a backup onto a full disk is told as done")
	}
}

// badWriter takes so many bytes.
type badWriter int

func (w *badWriter) Write(b []byte) (int, error) {
	if *w -= badWriter(len(b)); *w < 0 {
		return 0, errors.New("no room")
	}
	return len(b), nil
}
