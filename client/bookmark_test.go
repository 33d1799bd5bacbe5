package client_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
)

// TestBookmarked: every request carries what was seen before it, every answer moves it
// on, and requests of others carry nothing.
func TestBookmarked(t *testing.T) {
	var mu sync.Mutex
	var last facet.Request
	svc := &nativetest.Service{Before: func(r *facet.Request) error {
		mu.Lock()
		defer mu.Unlock()
		last = *r
		return nil
	}}
	n := startNode(t, svc, native.Options{})
	ctx := t.Context()
	plain := openFacet(t, open(t, client.Options{}, n))
	var b client.Bookmark
	f := plain.Bookmarked(&b)
	// sent checks what the last request carried, and that b has moved to seq.
	sent := func(what string, after, seq facet.Seq) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !last.Bookmark || last.After.Seq != after || after != 0 && last.After.Facet != nativetest.Incarnation {
			t.Errorf("%s: sent %v, %v", what, last.Bookmark, last.After)
		}
		if at, err := facet.ParseBookmark(b.String()); err != nil || at.Seq != seq {
			t.Errorf("%s: now at %v, want %v (%v)", what, at, seq, err)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if b.String() != "" {
		t.Errorf("it begins with %q", b.String())
	}
	_, err := f.Exec(ctx, "INSERT 1")
	must(err)
	sent("exec", 0, 2)
	_, err = plain.Exec(ctx, "INSERT 2")
	must(err)
	if last.Bookmark || !last.After.IsZero() {
		t.Errorf("unasked: %+v", last)
	}
	rows, err := f.Query(ctx, "SELECT ROWS 3 100")
	must(err)
	sent("query", 2, 2)
	for rows.Next() {
	}
	must(rows.Err())
	sent("rows", 2, 3)
	_, err = f.Batch(ctx, client.Stmt{SQL: "INSERT 3"}, client.Stmt{SQL: "INSERT 4"})
	must(err)
	sent("batch", 3, 5)
	must(f.Tx(ctx, func(tx *client.Tx) error {
		_, err := tx.Exec(ctx, "INSERT 5")
		return err
	}))
	sent("transaction", 5, 6)

	// Another program goes on from the text; what is older moves nothing.
	var c client.Bookmark
	must(c.Set(b.String()))
	var count int
	must(plain.Bookmarked(&c).QueryRow(ctx, "SELECT COUNT").Scan(&count))
	if last.After.Seq != 6 || count != 5 {
		t.Errorf("after %v, %d", last.After, count)
	}
	ahead := facet.Bookmark{Facet: nativetest.Incarnation, Epoch: 1, Seq: 100}
	must(c.Set(ahead.String()))
	must(plain.Bookmarked(&c).QueryRow(ctx, "SELECT COUNT").Scan(&count))
	if c.String() != ahead.String() {
		t.Errorf("it went back to %v", c.String())
	}

	if err := c.Set("fb1nonsense"); !errors.Is(err, facet.ErrBookmark) || c.String() != ahead.String() {
		t.Errorf("nonsense: %v, now %v", err, c.String())
	}
	must(c.Set(facet.Bookmark{Facet: facet.Incarnation{1}, Epoch: 1, Seq: 1}.String()))
	if _, err := plain.Bookmarked(&c).Exec(ctx, "INSERT 6"); !errors.Is(err, facet.ErrBookmark) || svc.Writes(notes) != 5 {
		t.Errorf("of another facet: %v, %d writes", err, svc.Writes(notes))
	}
	must(c.Set(""))
	_, err = plain.Bookmarked(&c).Exec(ctx, "INSERT 6")
	must(err)

	// A single row moves it on, though nobody asks for the next one.
	must(f.QueryRow(ctx, "SELECT COUNT").Scan(&count))
	sent("row", 6, 7)
	must(f.QueryRow(ctx, "SELECT ROWS 300 100").Scan(new(string)))
	sent("first row of many", 7, 7)
	_, err = plain.Exec(ctx, "INSERT 7")
	must(err)
	must(f.QueryRow(ctx, "SELECT ROWS 300 100").Scan(new(string)))
	sent("first row of many", 7, 8)
}
