//go:build unix

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestChaosFullDisk fills the disk of one node of three under load. Facets owned
// there refuse writes, or move; all others go on; nothing acknowledged is lost; and
// when there is room again everything takes writes.
func TestChaosFullDisk(t *testing.T) {
	disk := smallDisk(t, "700m")
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
	fill(t, filler)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	l.finish()
}
