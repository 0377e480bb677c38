package echo

import (
	"errors"
	"net"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		told := make(chan string, 1)
		go func() { _ = Serve(at, func(got string) error { told <- got; return nil }) }() // ends with the test
		c, err := net.Dial("udp", <-told)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 2 {
			if !Asks(c, 10*time.Second) {
				t.Errorf("%s: no answer", at)
			}
		}
	}
	// One that answers with the question before has not answered this one.
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	c, err := net.Dial("udp", silent.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if Asks(c, time.Millisecond) {
		t.Error("nobody has answered")
	}
	b := make([]byte, 64)
	n, from, err := silent.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := silent.WriteTo(b[:n], from); err != nil {
		t.Fatal(err)
	}
	if Asks(c, 50*time.Millisecond) {
		t.Error("an answer to the question before counted")
	}
	if err := Serve("127.0.0.1:0", func(string) error { return errors.New("no") }); err == nil {
		t.Error("an address that could not be told was served")
	}
}
