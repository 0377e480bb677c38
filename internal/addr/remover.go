package addr

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// A Remover takes addresses off this machine, with one socket that is opened in
// advance. It can be used by several goroutines.
type Remover struct{ sock *socket }

// OpenRemover opens a Remover in the network namespace of its caller. It needs no
// privilege before it removes.
func OpenRemover() (*Remover, error) {
	s, err := openSocket()
	if err != nil {
		return nil, err
	}
	return &Remover{s}, nil
}

// Close ends it. Closing twice is no error.
func (r *Remover) Close() error { return r.sock.close() }

// Remove takes the addresses off their devices, whatever the length of their
// network and whoever added them; off every device if none is named, and those
// that bear Gemel's mark off any other one as well. It returns nil only after it has *seen*, in a
// list of all addresses made afterwards, that none is left; one that was not there
// is no error.
func (r *Remover) Remove(addrs ...Address) error {
	var store [16]int
	indexes := store[:0]
	for _, a := range addrs {
		index := 0
		if a.Device != "" {
			var err error
			if index, err = r.sock.index(a.Device); err != nil {
				index = 0 // the name is no help: look by the mark alone
			}
			if index == 0 {
				index = -1
			}
		}
		indexes = append(indexes, index)
	}
	err := r.sock.clear(func(e *entry) bool {
		for i := range addrs {
			if addrs[i].Addr == e.addr && (indexes[i] == 0 || indexes[i] == e.index || e.ours) {
				return true
			}
		}
		return false
	})
	if err != nil {
		words := make([]string, len(addrs))
		for i, a := range addrs {
			words[i] = a.String()
		}
		return fmt.Errorf("removing %s: %w", strings.Join(words, ", "), allowed(err))
	}
	return nil
}

// errLeft is what was still there after several tries.
var errLeft = errors.New("an address is still there: something adds it again and again")

// clear removes entries until a list shows none. An error of one removal does not
// keep the others from being tried.
func (s *socket) clear(which func(*entry) bool) error {
	const tries = 8
	var found [64]entry
	var failed error
	for range tries {
		n, more := 0, false
		err := s.each(func(e entry) {
			if !which(&e) {
				return
			}
			if n == len(found) {
				more = true
				return
			}
			found[n] = e
			n++
		})
		if err != nil && !errors.Is(err, errAgain) {
			return err
		}
		if n == 0 && err == nil {
			return nil
		}
		failed = err
		for i := range found[:n] {
			if err := s.drop(found[i]); err != nil && failed == nil {
				failed = err
			}
		}
		if errors.Is(failed, unix.EPERM) && !more {
			return failed
		}
	}
	if failed != nil {
		return failed
	}
	return errLeft
}
