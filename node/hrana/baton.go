package hrana

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"

	"github.com/facetd/facetd/facet"
)

// streamID names a stream. It is random, and a baton proves that we issued it.
type streamID [16]byte

// A baton is the base64 (URL alphabet, no padding) of
//
//	offset size
//	 0      1   version, 1
//	 1      1   flags (1: the stream had nothing to remember)
//	 2     16   stream id
//	18      8   number of the request it is good for, big-endian
//	26     16   HMAC-SHA256 of the above and the facet's name, cut short
//
// so it cannot be guessed, made, changed, or carried to another facet.
type baton struct {
	id    streamID
	seq   uint64
	empty bool
}

const (
	batonVersion = 1
	batonEmpty   = 1
	batonBody    = 1 + 1 + 16 + 8
	batonLen     = batonBody + 16
)

// signer makes and checks batons.
type signer struct{ key [32]byte }

// newSigner derives the key from secret, or draws one that lives as long as the
// process when there is none.
func newSigner(secret []byte) *signer {
	s := &signer{}
	if len(secret) == 0 {
		rand.Read(s.key[:])
	} else {
		s.key = sha256.Sum256(append([]byte("facetd hrana baton\x00"), secret...))
	}
	return s
}

func (s *signer) mac(body []byte, name facet.Name) []byte {
	m := hmac.New(sha256.New, s.key[:])
	m.Write(body)
	m.Write([]byte(name.String()))
	return m.Sum(nil)[:batonLen-batonBody]
}

func (s *signer) seal(b baton, name facet.Name) string {
	raw := make([]byte, 2, batonLen)
	raw[0] = batonVersion
	if b.empty {
		raw[1] = batonEmpty
	}
	raw = append(raw, b.id[:]...)
	raw = binary.BigEndian.AppendUint64(raw, b.seq)
	raw = append(raw, s.mac(raw, name)...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func (s *signer) open(text []byte, name facet.Name) (b baton, ok bool) {
	var raw [batonLen + 3]byte
	if base64.RawURLEncoding.DecodedLen(len(text)) != batonLen {
		return b, false
	}
	n, err := base64.RawURLEncoding.Decode(raw[:], text)
	if err != nil || n != batonLen || raw[0] != batonVersion {
		return b, false
	}
	if subtle.ConstantTimeCompare(s.mac(raw[:batonBody], name), raw[batonBody:batonLen]) != 1 {
		return b, false
	}
	copy(b.id[:], raw[2:])
	b.seq = binary.BigEndian.Uint64(raw[18:])
	b.empty = raw[1]&batonEmpty != 0
	return b, true
}
