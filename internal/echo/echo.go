// Package echo is a program that answers datagrams with what they hold, and who asks it:
// what tests of the network need of a program. For tests only.
package echo

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net"
	"time"
)

// Serve listens at an address of UDP, tells which one it got, and answers until that
// fails. An answer that the machine does not let go is left out.
func Serve(at string, tell func(at string) error) error {
	c, err := net.ListenPacket("udp", at)
	if err != nil {
		return fmt.Errorf("listening at %s: %w", at, err)
	}
	defer c.Close()
	if err := tell(c.LocalAddr().String()); err != nil {
		return fmt.Errorf("telling the address %s: %w", c.LocalAddr(), err)
	}
	b := make([]byte, 64)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return fmt.Errorf("hearing at %s: %w", c.LocalAddr(), err)
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// Asks asks once, and reports whether there was an answer to that within patience. A
// question that the machine does not let go has none.
func Asks(c net.Conn, patience time.Duration) bool {
	if c.SetDeadline(time.Now().Add(patience)) != nil {
		return false
	}
	ask := []byte(rand.Text()) // an answer to one before is none
	if _, err := c.Write(ask); err != nil {
		return false
	}
	for b := make([]byte, 64); ; {
		n, err := c.Read(b)
		if err != nil {
			return false
		}
		if bytes.Equal(b[:n], ask) {
			return true
		}
	}
}
