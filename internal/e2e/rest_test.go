//go:build unix

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// resources are what a process may leak.
type resources struct{ files, goroutines int64 }

// resources looks at all nodes that run, when nothing is asked of them.
func (c *cluster) resources() (most resources) {
	c.t.Helper()
	for _, m := range c.alive() {
		most.files = max(most.files, m.metric("process_open_fds"))
		most.goroutines = max(most.goroutines, m.metric("go_goroutines"))
	}
	return most
}

// What a node may hold beyond what it held when it was young: connections of clients
// and peers, files of the log, and what waits for each of them.
const restFiles, restGoroutines = 60, 150

// restNudge is longer than a facet takes to be closed when it is idle.
const restNudge = 15 * time.Second

// atRest waits until nobody has a facet open, and checks that all copies of every facet
// are equal to the byte, that nothing was taken for damaged by mistake, and that no
// node holds on to files, goroutines or temporary files.
func (s *site) atRest(first resources) {
	s.t.Helper()
	s.sound()
	patient := time.Now().Add(restNudge)
	for _, f := range s.load.facets {
		nudge := patient
		s.until("all copies of "+f.name+" are equal and closed", func() error {
			err := s.equal(f)
			if err != nil && time.Now().After(nudge) {
				// A copy that was away when the facet was closed has all of it in its log, and
				// is told with the next commit that it is committed (R10, R11).
				nudge = time.Now().Add(restNudge)
				ctx, cancel := context.WithTimeout(s.t.Context(), patience)
				defer cancel()
				_, werr := s.load.facet(s.load.probe, f).Exec(ctx, "UPDATE account SET balance = balance WHERE id = 0")
				err = errors.Join(err, werr)
			}
			return err
		})
	}
	for _, m := range s.alive() {
		if n := m.metric("facetd_facets_undecided_total"); n != 0 {
			s.t.Errorf("%s saw %d facets whose copies differ without a majority", m.name, n)
		}
	}
	s.until("nothing leaks", func() error {
		now := s.resources()
		if now.files > first.files+restFiles || now.goroutines > first.goroutines+restGoroutines {
			return fmt.Errorf("%+v, %+v in the beginning", now, first)
		}
		return nil
	})
	for _, m := range s.alive() {
		m.term()
		err := filepath.WalkDir(m.dir, func(path string, d fs.DirEntry, err error) error {
			if name := filepath.Base(path); err == nil && (strings.HasSuffix(name, ".tmp") || filepath.Dir(path) == filepath.Join(m.dir, "import")) {
				s.t.Errorf("%s left %s", m.name, path)
			}
			return err
		})
		if err != nil {
			s.t.Error(err)
		}
	}
}

// sound waits until no copy anywhere is damaged.
func (s *site) sound() {
	s.t.Helper()
	for _, m := range s.alive() {
		s.until("the copies at "+m.name+" are sound", func() error {
			if n := m.metric("facetd_copies_damaged"); n != 0 {
				return fmt.Errorf("%d damaged copies", n)
			}
			return nil
		})
	}
}

// equal compares the files of one facet at all its members.
func (s *site) equal(f *loadFacet) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	info, err := s.load.facet(s.load.probe, f).Stat(ctx)
	if err != nil {
		return err
	}
	if len(info.Replicas) != 3 {
		return fmt.Errorf("its members are %v", info.Replicas)
	}
	if info.Active {
		return fmt.Errorf("%s has it open", info.Owner)
	}
	var content []byte
	for i, id := range info.Replicas {
		b, err := os.ReadFile(filepath.Join(s.named(id).dir, "data", "facets", info.Incarnation[:2], info.Incarnation+".db"))
		if err != nil {
			return err
		}
		if i > 0 && !bytes.Equal(b, content) {
			return fmt.Errorf("the file of %s differs from that of %s", id, info.Replicas[0])
		}
		content = b
	}
	return nil
}
