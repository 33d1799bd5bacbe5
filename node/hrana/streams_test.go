package hrana

import (
	"errors"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

func TestBatons(t *testing.T) {
	s, other := newSigner(nil), newSigner(nil)
	b := baton{id: streamID{1, 2, 3}, seq: 7, empty: true}
	text := s.seal(b, notes)
	if got, ok := s.open([]byte(text), notes); !ok || got != b {
		t.Fatalf("%+v, %v", got, ok)
	}
	if _, ok := other.open([]byte(text), notes); ok {
		t.Error("another server's baton was taken")
	}
	if _, ok := s.open([]byte(text), facet.Name{Tenant: "acme", Facet: "other"}); ok {
		t.Error("another facet's baton was taken")
	}
	for i := range text {
		for _, c := range []byte("A_9") {
			changed := []byte(text)
			if changed[i] == c {
				continue
			}
			changed[i] = c
			if got, ok := s.open(changed, notes); ok && got != b {
				t.Fatalf("changed at %d it was taken for %+v", i, got)
			}
		}
		if _, ok := s.open([]byte(text[:i]), notes); ok {
			t.Fatalf("cut to %d it was taken", i)
		}
	}
	one, two := newSigner([]byte("secret")), newSigner([]byte("secret"))
	if _, ok := two.open([]byte(one.seal(b, notes)), notes); !ok {
		t.Error("the same secret does not make the same batons")
	}
}

// clock is a table's time.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestTable(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	tab := newTable(3, c.now)
	tab.maxSQL = 100
	give := func(s *stream) baton {
		t.Helper()
		b, ok := tab.give(s)
		if !ok {
			t.Fatal("no baton")
		}
		return b
	}
	take := func(b baton, want error) *stream {
		t.Helper()
		s, err := tab.take(b, notes)
		if !errors.Is(err, want) {
			t.Fatalf("take: %v, want %v", err, want)
		}
		return s
	}

	// A baton is good once, and not while its stream is in use.
	b1 := give(&stream{name: notes})
	s1 := take(b1, nil)
	take(b1, errUsed)
	b1b := give(s1)
	take(b1, errUsed)
	if b1b.seq != b1.seq+1 || b1b.id != b1.id || !b1b.empty {
		t.Fatalf("%+v after %+v", b1b, b1)
	}

	// A closed stream is known to be closed.
	s1 = take(b1b, nil)
	s1.closed = true
	if _, ok := tab.give(s1); ok {
		t.Fatal("a baton of a closed stream")
	}
	take(b1b, errUsed)

	// When the table is full the longest unused goes, and an empty one comes back.
	b2, b3, b4 := give(&stream{name: notes}), give(&stream{name: notes}), give(&stream{name: notes})
	if tab.len() != 3 {
		t.Fatalf("%d streams", tab.len())
	}
	for _, b := range []baton{b2, b3, b4} {
		b = give(take(b, nil))
		b = give(take(b, nil))
		if b.seq != 2 {
			t.Fatalf("%+v", b)
		}
	}

	// Stored texts are bounded and make way; a stream that had some does not come
	// back without them.
	withText := func(n int) *stream {
		if err := tab.reserve(n); err != nil {
			t.Fatal(err)
		}
		return &stream{name: notes, texts: map[int32][]byte{1: make([]byte, n)}, stored: n}
	}
	b5 := give(withText(60))
	if b5.empty {
		t.Fatal("a stream with a text is not empty")
	}
	b6 := give(withText(60))
	take(b5, errExpired)
	if tab.stored != 60 {
		t.Fatalf("%d bytes stored", tab.stored)
	}
	s6 := take(b6, nil)
	if err := tab.reserve(60); !errors.Is(err, facet.ErrOverloaded) {
		t.Fatalf("reserve beside a text in use: %v", err)
	}
	s6.closed = true
	tab.give(s6)
	if tab.stored != 0 {
		t.Fatalf("%d bytes stored", tab.stored)
	}

	// Streams in a transaction stay until they must be over.
	inTx := func() *stream { return &stream{name: notes, tx: facet.NewTxID()} }
	b7 := give(inTx())
	give(inTx())
	give(inTx())
	if _, ok := tab.give(&stream{name: notes}); ok {
		t.Fatal("a fourth stream beside three transactions")
	}
	s7 := take(b7, nil)
	b7 = give(s7)
	c.at = c.at.Add(abandonedTx + time.Second)
	give(&stream{name: notes})
	if s := take(b7, nil); s.tx.IsZero() {
		t.Fatal("the transaction used last was forgotten first")
	}
	if tab.len() != 3 || tab.stored != 0 {
		t.Fatalf("%d streams, %d bytes", tab.len(), tab.stored)
	}
}
