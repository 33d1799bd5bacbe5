package gossip

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Key encrypts gossip with AES-GCM: 16, 24 or 32 bytes. Printing it shows its
// fingerprint only. Keys compare with ==.
type Key struct{ secret string }

// NewKey draws a key of 32 bytes.
func NewKey() Key {
	var b [32]byte
	rand.Read(b[:]) // never fails: the runtime stops the process instead
	return Key{string(b[:])}
}

// ParseKey reads the base64 that Text prints.
func ParseKey(s string) (Key, error) {
	if len(s) > base64.StdEncoding.EncodedLen(32) {
		return Key{}, fmt.Errorf("parse gossip key: %d characters are too many: %w", len(s), ErrKey)
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return Key{}, fmt.Errorf("parse gossip key: not base64: %w", ErrKey) // without a piece of the secret
	}
	k := Key{string(b)}
	return k, k.check()
}

// Text is the secret itself in base64, for the file it is kept in.
func (k Key) Text() string { return base64.StdEncoding.EncodeToString([]byte(k.secret)) }

// String is the fingerprint: enough to tell keys apart, no help to guess one.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	sum := sha256.Sum256([]byte("facetd gossip key\x00" + k.secret))
	return "key:" + hex.EncodeToString(sum[:6])
}

// GoString keeps the secret out of %#v.
func (k Key) GoString() string { return k.String() }

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.secret == "" }

func (k Key) check() error {
	switch len(k.secret) {
	case 16, 24, 32:
		return nil
	}
	return fmt.Errorf("key has %d bytes, want 16, 24 or 32: %w", len(k.secret), ErrKey)
}

// ring is the keys in use. It mirrors the library's ring, because that one must
// be changed with care: it hands out its slice to readers and removes a key by
// moving the later ones down in place.
//
// Invariant: keys equals the library's ring, first key first, and only the last
// key of the library's ring is ever removed, which moves nothing.
type ring struct {
	mu   sync.Mutex
	keys []Key
	lib  *memberlist.Keyring // nil without encryption
}

func newRing(keys []Key) (*ring, error) {
	if len(keys) == 0 {
		return &ring{}, nil
	}
	r := &ring{}
	var raw [][]byte
	for _, k := range keys {
		if err := k.check(); err != nil {
			return nil, err
		}
		if !slices.Contains(r.keys, k) {
			r.keys = append(r.keys, k)
			raw = append(raw, []byte(k.secret))
		}
	}
	var err error
	r.lib, err = memberlist.NewKeyring(raw, raw[0])
	return r, err
}

// list returns the keys, the one that encrypts first.
func (r *ring) list() []Key {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keys)
}

// set makes keys the ring: what is new comes first, so that what the others send can be
// read all the time, then the one that encrypts, and what is gone goes last. A ring
// without encryption stays without.
func (r *ring) set(keys []Key) error {
	if r.lib == nil {
		return fmt.Errorf("gossip was opened without keys: %w", ErrKey)
	}
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("%d keys, want 1 to %d: %w", len(keys), maxKeys, ErrKey)
	}
	for _, k := range keys {
		if err := k.check(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		if slices.Contains(r.keys, k) {
			continue
		}
		if err := r.lib.AddKey([]byte(k.secret)); err != nil {
			return err
		}
		r.keys = append(r.keys, k) // for a moment twice as many as keys may be
	}
	if err := r.lib.UseKey([]byte(keys[0].secret)); err != nil {
		return err
	}
	i := slices.Index(r.keys, keys[0])
	r.keys = slices.Insert(slices.Delete(r.keys, i, i+1), 0, keys[0])
	var errs []error
	for _, k := range slices.Clone(r.keys) {
		if !slices.Contains(keys, k) {
			errs = append(errs, r.remove(k))
		}
	}
	return errors.Join(errs...)
}

// remove takes the keys from the end of the ring until k is gone, and puts the
// others back. A datagram that arrives in between and needs one of those is
// lost, as datagrams are. r.mu is held, and k is in the ring and does not encrypt.
func (r *ring) remove(k Key) error {
	i := slices.Index(r.keys, k)
	var errs []error
	for j := len(r.keys) - 1; j >= i; j-- {
		errs = append(errs, r.lib.RemoveKey([]byte(r.keys[j].secret)))
	}
	r.keys = slices.Delete(r.keys, i, i+1)
	for _, back := range r.keys[i:] {
		errs = append(errs, r.lib.AddKey([]byte(back.secret)))
	}
	return errors.Join(errs...)
}
