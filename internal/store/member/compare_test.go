package member

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gemel/internal/ha"
	"gemel/internal/store"
)

// flipped has one letter of a value be another one on the disk of one member, which etcd
// does not notice. It finds out that the two others agree, and serves no more.
func flipped(t *testing.T, r *rig) {
	n := ha.Node("flipped")
	mustWrite(t, r.client("a"), ha.WriteStore{Puts: []ha.Put{{Key: ha.NodeKey(n), Node: member(n, "RIGHTRIGHT")}}})
	until(t, "the value at c", func() error {
		if got := r.client("c").Node(ctxFor(t, 5*time.Second), n); got.Record.Incarnation != "RIGHTRIGHT" {
			return fmt.Errorf("%+v", got)
		}
		return nil
	})
	r.halt("c")
	file := filepath.Join(r.members["c"].Dir, "member", "snap", "db")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "RIGHTRIGHT") {
		t.Fatal("the value is not in the file as it is")
	}
	write(t, file, strings.ReplaceAll(string(b), "RIGHTRIGHT", "WRONGWRONG"))
	r.start("c")
	p := r.gone("c")
	if !strings.Contains(p.text(), store.ErrForeign.Error()) || !strings.Contains(p.text(), "not what a and b hold") {
		t.Fatalf("it ended: %q\n%s", p.text(), p.logged())
	}
	t.Log(p.text())
	refused(t, r, "c", "not what a and b hold") // and never again
	for _, by := range []string{"a", "b"} {
		if got := r.client(by).Node(ctxFor(t, 5*time.Second), n); got.Error != "" || got.Record.Incarnation != "RIGHTRIGHT" {
			t.Errorf("%s: %+v", by, got)
		}
	}
	// With the right data, and no word of it, it is who it was.
	write(t, file, string(b))
	mark, err := readMark(r.members["c"].Dir)
	if err != nil || mark.Odd == "" {
		t.Fatalf("%+v, %v", mark, err)
	}
	mark.Odd = ""
	if err := mark.write(r.members["c"].Dir); err != nil {
		t.Fatal(err)
	}
	r.up("c")
}
