package netpath

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"gemel/internal/ha"
)

// The layout, big endian. The head is in clear and authenticated, the body is
// sealed, the payload is what is left of it.
//
//	 0  magic and version   4        44  sender's instant        8
//	 4  key                 4        52  echo: session           8
//	 8  cluster tag         8        60  echo: sequence number   4
//	16  network tag         8        64  echo: receiver's stamp  8
//	24  sender tag          8        72  echo: held for          8
//	32  session             8        80  payload            0..1024
//	40  sequence number     4         +  AEAD tag               16
const (
	magic     = 0x474D4801 // "GMH", version 1
	headSize  = 44
	bodySize  = 36
	nonceAt   = 32 // session and sequence number are the nonce
	nonceSize = 12
	tagSize   = 16

	// MaxPayload is how many bytes a payload may have: a datagram then fits, with
	// the heads of IPv6 and UDP, into the 1280 bytes that every network carries
	// whole.
	MaxPayload = 1024

	minSize = headSize + bodySize + tagSize
	maxSize = minSize + MaxPayload
)

// A tag stands for a name in the clear head. It only sorts out early: the keys
// are derived from the whole names.
type tag [8]byte

func tagOf(kind, cluster, name string) tag {
	sum := sha256.Sum256(names("gemel heartbeat tag", kind, cluster, name))
	return tag(sum[:8])
}

// names joins words so that no two lists of words give the same bytes.
func names(words ...string) []byte {
	var b []byte
	for _, w := range words {
		b = binary.BigEndian.AppendUint16(b, uint16(len(w)))
		b = append(b, w...)
	}
	return b
}

// A seal closes or opens the datagrams of one direction: from one node to one
// other on one network, under one of the cluster's keys. As each direction has a
// key of its own, a datagram that is sent back, sent on to a third node or
// carried over to another network does not open.
type seal struct {
	key  uint32
	aead cipher.AEAD
}

type direction struct{ cluster, network, from, to string }

func newSeal(k Key, d direction) (seal, error) {
	info := string(names("gemel heartbeat 1", d.cluster, d.network, d.from, d.to))
	secret, err := hkdf.Key(sha256.New, k.Secret, nil, info, 32)
	if err != nil {
		return seal{}, fmt.Errorf("deriving the key of %s to %s on %s: %w", d.from, d.to, d.network, err)
	}
	defer clear(secret)
	block, err := aes.NewCipher(secret)
	if err != nil {
		return seal{}, err
	}
	aead, err := cipher.NewGCM(block)
	return seal{k.ID, aead}, err
}

// A head is what a datagram says in clear.
type head struct {
	key                      uint32
	cluster, network, sender tag
	session                  uint64
	seq                      uint32
}

// An echo says which datagram of its receiver a sender had heard last. The zero
// echo is: none.
type echo struct {
	session uint64
	seq     uint32
	stamp   ha.Instant    // when it was sent, by the clock of its sender
	hold    time.Duration // from its arrival until this echo was sent, by the other clock
}

// A body is what is sealed.
type body struct {
	stamp   ha.Instant
	echo    echo
	payload []byte
}

// pack appends the sealed datagram to b, which is best empty and large enough.
func pack(b []byte, h head, m body, s seal) []byte {
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, h.key)
	b = append(b, h.cluster[:]...)
	b = append(b, h.network[:]...)
	b = append(b, h.sender[:]...)
	b = binary.BigEndian.AppendUint64(b, h.session)
	b = binary.BigEndian.AppendUint32(b, h.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.stamp))
	b = binary.BigEndian.AppendUint64(b, m.echo.session)
	b = binary.BigEndian.AppendUint32(b, m.echo.seq)
	b = binary.BigEndian.AppendUint64(b, uint64(m.echo.stamp))
	b = binary.BigEndian.AppendUint64(b, uint64(m.echo.hold))
	b = append(b, m.payload...)
	return s.aead.Seal(b[:headSize], b[nonceAt:nonceAt+nonceSize], b[headSize:], b[:headSize])
}

// readHead looks at the fixed part of a datagram, nothing of which is proven yet.
func readHead(b []byte) (head, refusal) {
	if len(b) < minSize || len(b) > maxSize {
		return head{}, refusedSize
	}
	if binary.BigEndian.Uint32(b) != magic {
		return head{}, refusedForeign
	}
	return head{
		key:     binary.BigEndian.Uint32(b[4:]),
		cluster: tag(b[8:16]),
		network: tag(b[16:24]),
		sender:  tag(b[24:32]),
		session: binary.BigEndian.Uint64(b[nonceAt:]),
		seq:     binary.BigEndian.Uint32(b[nonceAt+8:]),
	}, accepted
}

// open opens a datagram whose head was read. The plain text replaces the sealed
// one in b, and the payload is a part of it.
func open(b []byte, s seal) (body, refusal) {
	plain, err := s.aead.Open(b[headSize:headSize], b[nonceAt:nonceAt+nonceSize], b[headSize:], b[:headSize])
	if err != nil {
		return body{}, refusedForged
	}
	return body{
		stamp: ha.Instant(binary.BigEndian.Uint64(plain)),
		echo: echo{
			session: binary.BigEndian.Uint64(plain[8:]),
			seq:     binary.BigEndian.Uint32(plain[16:]),
			stamp:   ha.Instant(binary.BigEndian.Uint64(plain[20:])),
			hold:    time.Duration(binary.BigEndian.Uint64(plain[28:])),
		},
		payload: plain[bodySize:],
	}, accepted
}
