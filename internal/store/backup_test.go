package store

import (
	"errors"
	"testing"
)

// badWriter takes so many bytes.
type badWriter int

func (w *badWriter) Write(b []byte) (int, error) {
	if *w -= badWriter(len(b)); *w < 0 {
		return 0, errors.New("no room")
	}
	return len(b), nil
}

func TestBackupTail(t *testing.T) {
	var to badWriter = 10
	tl := &tail{to: &to}
	if _, err := tl.Write(make([]byte, 11)); err == nil {
		t.Error("a write that failed is told as done")
	}
}
