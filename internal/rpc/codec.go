package rpc

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strict is JSON in which a field that does not exist is an error: with a change
// of state, a word that was misspelt must not mean "use the default". The binary
// form keeps unknown fields, so that a newer tool may talk to an older daemon.
type strict struct{ name string }

var errNoMessage = errors.New("not a message of the API")

// Name is the last part of the content type.
func (s strict) Name() string { return s.name }

// Marshal writes a message; as is usual in JSON for protobuf, fields that are
// zero are left out.
func (strict) Marshal(m any) ([]byte, error) {
	p, ok := m.(proto.Message)
	if !ok {
		return nil, errNoMessage
	}
	return protojson.Marshal(p)
}

// Unmarshal reads a message. No bytes at all are an empty message.
func (strict) Unmarshal(b []byte, m any) error {
	p, ok := m.(proto.Message)
	if !ok {
		return errNoMessage
	}
	if len(b) == 0 {
		return nil
	}
	if err := protojson.Unmarshal(b, p); err != nil {
		return fmt.Errorf("reading the request: %w; an empty request is {}", err)
	}
	return nil
}
