//go:build unix

package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/facetd/facetd/client"
)

// TestFollowerReads: members that are not the owner answer reads, never from a state
// older than the bookmark they are given, while the facet is written to, while its
// owner is dead, and when another has taken over.
func TestFollowerReads(t *testing.T) {
	c := newCluster(t, 3, false)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	writer := dial(t, c.endpoints()[0], client.Options{})
	f, err := writer.Facet("acme/read")
	if err != nil {
		t.Fatal(err)
	}
	var seen client.Bookmark
	f = f.Bookmarked(&seen).Idempotent()
	if _, err := f.Exec(ctx, "CREATE TABLE t (id INTEGER PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	owner := c.owner(writer, "acme/read")
	var followers []*member
	var readers []*client.Facet // each connected to one of them
	for _, m := range c.members {
		if m == owner {
			continue
		}
		r, err := dial(t, m.api(), client.Options{}).Facet("acme/read")
		if err != nil {
			t.Fatal(err)
		}
		followers, readers = append(followers, m), append(readers, r.FollowerReads())
	}
	newest := func(r *client.Facet, mark string) (int64, error) {
		var b client.Bookmark
		if err := b.Set(mark); err != nil {
			return 0, err
		}
		var n int64
		err := r.Bookmarked(&b).QueryRow(ctx, "SELECT coalesce(max(id), 0) FROM t").Scan(&n)
		if err == nil && b.String() < mark {
			err = fmt.Errorf("the answer is of %s, older than %s", b.String(), mark)
		}
		return n, err
	}
	answered := func() (n int64) {
		for _, m := range followers {
			n += m.metric("facetd_follower_reads_total")
		}
		return n
	}

	// Each write is seen by the next read, wherever.
	id := int64(0)
	write := func() {
		t.Helper()
		id++
		if _, err := f.Exec(ctx, "INSERT INTO t VALUES (?)", id); err != nil {
			t.Fatalf("write %d: %v", id, err)
		}
	}
	before := answered()
	for range 50 {
		write()
		for i, r := range readers {
			if n, err := newest(r, seen.String()); err != nil || n != id {
				t.Fatalf("read %d at %s: %v, want %d", n, followers[i].name, err, id)
			}
		}
	}
	if n := answered() - before; n == 0 {
		t.Error("none of 100 reads was answered by a follower")
	}

	// Reads go on all the time, the owner dies in the middle, and writes go on as well.
	stop, count := make(chan struct{}), new(atomic.Int64)
	var acked struct {
		sync.Mutex
		id   int64
		mark string
	}
	note := func() {
		acked.Lock()
		defer acked.Unlock()
		acked.id, acked.mark = id, seen.String()
	}
	note()
	var wg sync.WaitGroup
	for i, r := range readers {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				acked.Lock()
				least, mark := acked.id, acked.mark
				acked.Unlock()
				n, err := newest(r, mark)
				if err != nil || n < least {
					t.Errorf("read %d at %s, at least %d is acknowledged: %v", n, followers[i].name, least, err)
					return
				}
				count.Add(1)
			}
		})
	}
	defer wg.Wait()
	stopped := sync.OnceFunc(func() { close(stop) })
	defer stopped()
	for range 20 {
		write()
		note()
	}
	// What the members have heard to be committed they go on to answer from; the last
	// write of a dead owner, if it has told nobody, waits for the next owner.
	for i, r := range readers {
		if n, err := newest(r, seen.String()); err != nil || n != id {
			t.Fatalf("read %d at %s: %v, want %d", n, followers[i].name, err, id)
		}
	}
	owner.kill()
	before = answered()
	at := count.Load()
	c.until("reads go on without the owner", func() error {
		if n, by := count.Load()-at, answered()-before; n < 40 || by == 0 {
			return fmt.Errorf("%d reads, %d by followers", n, by)
		}
		return nil
	})
	for range 20 {
		write()
		note()
	}
	stopped()
	wg.Wait()
	for i, r := range readers {
		if n, err := newest(r, seen.String()); err != nil || n != id {
			t.Errorf("read %d at %s: %v, want %d", n, followers[i].name, err, id)
		}
	}
}
