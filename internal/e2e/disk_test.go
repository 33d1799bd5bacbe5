package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk/disktest"
)

// TestFullDisk fills the disk under a running node: writes are refused with an
// error that says so, nothing acknowledged is lost, reads go on, a kill -9 on the
// full disk is survived, and writes resume by themselves when there is room.
func TestFullDisk(t *testing.T) {
	disk := disktest.Small(t, "700m")
	data, addr := filepath.Join(disk, "data"), freeAddr(t)
	p := start(t, data, addr)
	f, err := dial(t, addr, client.Options{RetryFor: -1}).Facet("acme/notes")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Script(t.Context(), "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)"); err != nil {
		t.Fatal(err)
	}
	acked := 0
	insert := func() error {
		_, err := f.Exec(t.Context(), "INSERT INTO t (v) VALUES (randomblob(300000))")
		if err == nil {
			acked++
		}
		return err
	}
	count := func(f *client.Facet) int {
		t.Helper()
		var n int
		if err := f.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil {
			t.Fatal("a read on a full disk:", err)
		}
		return n
	}
	if err := insert(); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	disktest.Fill(t, filler)
	for range 2000 {
		if err = insert(); err != nil {
			break
		}
	}
	if !errors.Is(err, facet.ErrDiskFull) {
		t.Fatalf("after %d writes: %v\n%s", acked, err, p.out.String())
	}
	if !strings.Contains(err.Error(), "room") {
		t.Errorf("the error does not say what to do: %v", err)
	}
	if n := count(f); n != acked {
		t.Fatalf("%d rows on the full disk, %d acknowledged", n, acked)
	}
	p.kill()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p = start(t, data, addr)
	if f, err = dial(t, addr, client.Options{RetryFor: -1}).Facet("acme/notes"); err != nil {
		t.Fatal(err)
	}
	if n := count(f); n != acked {
		t.Fatalf("%d rows after the kill, %d acknowledged", n, acked)
	}

	// Once more, without a kill: writes come back by themselves.
	disktest.Fill(t, filler)
	for err = nil; err == nil; {
		err = insert()
	}
	if !errors.Is(err, facet.ErrDiskFull) {
		t.Fatalf("the second time: %v\n%s", err, p.out.String())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for err = insert(); err != nil; err = insert() {
		if time.Now().After(deadline) {
			t.Fatalf("writes did not resume: %v\n%s", err, p.out.String())
		}
		time.Sleep(20 * time.Millisecond) // a poll of another process, bounded by the deadline
	}
	if n := count(f); n != acked {
		t.Fatalf("%d rows in the end, %d acknowledged", n, acked)
	}
}
