//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk/disktest"
)

// TestChaosFullDisk fills the disk of one node of three under load, to the last byte.
// What that node owns may refuse writes, saying why; all else goes on, reads too, and
// nothing that was acknowledged is lost. When there is room again every facet takes writes by
// itself.
func TestChaosFullDisk(t *testing.T) {
	disk := disktest.Small(t, "700m")
	sd := seed(t)
	c := newCluster(t, 3, false)
	m := c.members[2]
	m.term()
	m.wipe()
	m.dir = filepath.Join(disk, m.name)
	m.launch()
	m.ready()
	l := startLoad(c, short, sd)
	l.progress()

	filler := filepath.Join(disk, "filler")
	l.full.Store(true)
	disktest.Fill(t, filler)
	// The segment of the log that is begun still has room: it is used up.
	for _, f := range l.facets {
		if c.owner(l.probe, f.name) != m {
			continue
		}
		n, err := 0, error(nil)
		for ; n < 400 && err == nil; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			_, err = l.facet(l.probe, f).Exec(ctx, "CREATE TABLE IF NOT EXISTS blob AS SELECT randomblob(300000) AS v")
			if err == nil {
				_, err = l.facet(l.probe, f).Exec(ctx, "UPDATE blob SET v = randomblob(300000)")
			}
			cancel()
		}
		t.Logf("%d large writes to %s, then %v", n, f.name, err)
		if err != nil && !errors.Is(err, facet.ErrDiskFull) {
			t.Errorf("a write on a full disk: %v", err)
		}
		break
	}
	others := 0
	for i, f := range l.facets {
		if c.owner(l.probe, f.name) == m {
			continue
		}
		others++
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := l.facet(l.probe, f).Exec(ctx, "UPDATE account SET balance = balance WHERE id = 0"); err != nil {
			t.Errorf("facet %d, which another node owns, refuses a write: %v", i, err)
		}
		cancel()
	}
	before := l.acked.Load()
	c.until("the load goes on", func() error {
		if n := l.acked.Load() - before; n < 200 {
			return fmt.Errorf("%d operations since the disk is full", n)
		}
		return nil
	})
	t.Logf("%d of %d facets were owned elsewhere; %d operations refused so far", others, len(l.facets), l.notDone.Load())

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	plain := c.dial(client.Options{Idempotent: true})
	for _, f := range l.facets {
		begin := time.Now()
		c.until(f.name+" takes a write again", func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, err := l.facet(plain, f).Exec(ctx, "UPDATE account SET balance = balance WHERE id = 0")
			return err
		})
		if d := time.Since(begin); d > time.Second {
			t.Logf("%s took a write again after %v", f.name, d.Round(time.Millisecond))
		}
	}
	l.full.Store(false)
	l.progress()
	l.finish()
}
