package member

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// revSize is the size of a key of etcd's own table, a revision. One that is longer by a
// byte says that the key was taken away then.
const revSize = 17

// Peek reads what a key was last in a backup; nil if there was no such key. The key may
// be a pattern of package path. A backup that is not whole is an error.
func Peek(file, key string) (value []byte, err error) {
	if err := sound(file); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("reading the backup %s: it is none of gemel backup, or not whole: %w", file, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	is := func(name string) bool { ok, err := path.Match(key, name); return ok && err == nil }
	err = db.View(func(tx *bbolt.Tx) error {
		table := tx.Bucket([]byte("key"))
		if table == nil {
			return fmt.Errorf("the backup %s holds no store", file)
		}
		return table.ForEach(func(at, b []byte) error { // in the order of revisions
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(b, &kv); err != nil {
				return fmt.Errorf("the backup %s is damaged: %w", file, err)
			}
			switch {
			case !is(string(kv.GetKey())):
			case len(at) > revSize:
				value = nil
			default:
				value = append([]byte(nil), kv.GetValue()...)
			}
			return nil
		})
	})
	return value, err
}

// sound compares a backup with the sum at its end.
func sound(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	body, h, want := st.Size()-sha256.Size, sha256.New(), make([]byte, sha256.Size)
	if body <= 0 {
		return fmt.Errorf("%s is none of gemel backup, or not whole: it has %d bytes", file, st.Size())
	}
	if _, err := io.CopyN(h, f, body); err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	if !bytes.Equal(h.Sum(nil), want) {
		return fmt.Errorf("%s is none of gemel backup, or not whole: the sum at its end is another one", file)
	}
	return nil
}
