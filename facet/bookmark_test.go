package facet

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestBookmarkGolden: clients keep bookmarks, and give them to later releases.
func TestBookmarkGolden(t *testing.T) {
	const text = "fb1041060000000000000000000vs002000000001o00000000000l4rhrql0"
	want := Bookmark{Incarnation{1, 2, 3, 15: 0xFF}, 1<<48 | 7, 42}
	if got := want.String(); got != text {
		t.Errorf("the text of a bookmark is %q, was %q", got, text)
	}
	if got, err := ParseBookmark(text); err != nil || got != want {
		t.Errorf("it reads as %v, %v", got, err)
	}
	if _, err := ParseBookmark("fb2" + text[3:]); !errors.Is(err, ErrBookmark) {
		t.Errorf("a bookmark of another version: %v", err)
	}
}

func TestBookmark(t *testing.T) {
	id := Incarnation{7, 15: 9}
	list := []Bookmark{
		{id, 1, 1}, {id, 1, 2}, {id, 1, 255}, {id, 1, 256}, {id, 1, 1 << 40},
		{id, 2, 1<<40 + 1}, {id, 1 << 48, 1<<40 + 2}, {id, math.MaxUint64, math.MaxUint64},
	}
	var texts []string
	for _, b := range list {
		s := b.String()
		got, err := ParseBookmark(s)
		if err != nil || got != b {
			t.Errorf("%v: %v, %v", s, got, err)
		}
		raw, rest, err := DecodeBookmark(append(b.AppendBinary(nil), 5))
		if err != nil || raw != b || len(rest) != 1 {
			t.Errorf("%v: %v, %v, %v", s, raw, rest, err)
		}
		texts = append(texts, s)
		// Any one letter that is another one shows.
		for i := range s {
			c := byte('0')
			if s[i] == c {
				c = 'v'
			}
			bad := s[:i] + string(c) + s[i+1:]
			if _, err := ParseBookmark(bad); !errors.Is(err, ErrBookmark) {
				t.Errorf("%s: letter %d changed: %v", s, i, err)
			}
		}
	}
	if !slices.IsSorted(texts) {
		t.Errorf("they do not sort: %q", texts)
	}
	good := texts[0]
	for _, bad := range []string{
		"", "fb1", good[:len(good)-1], good + "0", strings.ToUpper(good), strings.Repeat("x", len(good)),
		Bookmark{Facet: id, Epoch: 1}.String(), Bookmark{Facet: id, Seq: 1}.String(), Bookmark{Epoch: 1, Seq: 1}.String(),
	} {
		if b, err := ParseBookmark(bad); !errors.Is(err, ErrBookmark) || !b.IsZero() {
			t.Errorf("%q: %v, %v", bad, b, err)
		}
	}
	if s := (Bookmark{}).String(); s != "" {
		t.Errorf("no bookmark prints %q", s)
	}
	if _, _, err := DecodeBookmark(make([]byte, bookmarkLen-1)); err == nil {
		t.Error("a short one is read")
	}
	b := Bookmark{id, 3, 10}
	for _, tc := range []struct {
		at   Position
		want bool
	}{
		{Position{Epoch: 3, Seq: 10}, true}, {Position{Epoch: 4, Seq: 11}, true},
		{Position{Epoch: 3, Seq: 9}, false}, {Position{Epoch: 2, Seq: 10}, false}, {Position{}, false},
	} {
		if got := b.Covered(tc.at); got != tc.want {
			t.Errorf("at %v: %v", tc.at, got)
		}
	}
}

func FuzzParseBookmark(f *testing.F) {
	f.Add(Bookmark{Incarnation{1}, 1, 1}.String())
	f.Add("fb1")
	f.Fuzz(func(t *testing.T, s string) {
		b, err := ParseBookmark(s)
		if err == nil && b.String() != s {
			t.Errorf("%q prints as %q", s, b.String())
		}
	})
}
