package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

// TestScrub flips a bit in the database file of one replica while its facet is idle: a
// replica's first, then the owner's. It is found, the copy is replaced by what the
// others hold, and serves everything that was acknowledged.
func TestScrub(t *testing.T) {
	c := newCluster(t, 3, false, "--idle-after", "1s", "--scrub-every", "8s", "--scrub-rate", "64MiB")
	cl := c.dial(client.Options{})
	const name, rows = "acme/rotten", 300
	f, err := cl.Facet(name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := f.Exec(ctx, "CREATE TABLE t (n INTEGER PRIMARY KEY, v TEXT)"); err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		if _, err := f.Exec(ctx, "INSERT INTO t VALUES (?, ?)", i, strings.Repeat(strconv.Itoa(i%10), 200)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := f.Stat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	file := func(m *member) string {
		return filepath.Join(m.dir, "data", "facets", info.Incarnation[:2], info.Incarnation+".db")
	}
	// rest waits until every replica has all of it in its file and nobody has it open.
	rest := func() (content []byte) {
		t.Helper()
		c.until("the facet is at rest in three equal files", func() error {
			content = nil
			for _, m := range c.members {
				b, err := os.ReadFile(file(m))
				switch {
				case err != nil:
					return err
				case content == nil:
					content = b
				case !bytes.Equal(content, b):
					return fmt.Errorf("the file of %s is another one", m.name)
				case m.metric("facetd_facets_active") != 0:
					return fmt.Errorf("%s has it open", m.name)
				}
			}
			if want := bytes.Count(content, []byte(strings.Repeat("7", 200))); want < rows/10 {
				return fmt.Errorf("%d rows of %d are in it", want, rows/10)
			}
			return nil
		})
		return content
	}
	rot := func(m *member) {
		t.Helper()
		content := rest()
		before := m.metric("facetd_scrub_damaged_total")
		h, err := os.OpenFile(file(m), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := int64(len(content) / 2)
		_, err = h.WriteAt([]byte{content[at] ^ 4}, at)
		if err := errors.Join(err, h.Close()); err != nil {
			t.Fatal(err)
		}
		c.until("the rot at "+m.name+" is found", func() error {
			if m.metric("facetd_scrub_damaged_total") == before {
				return errors.New("no damage so far")
			}
			return nil
		})
		c.until("the copy at "+m.name+" is sound again", func() error {
			if n := m.metric("facetd_copies_damaged"); n != 0 {
				return fmt.Errorf("%d damaged copies", n)
			}
			return nil
		})
		rest()
		// What it has now serves.
		if _, err := f.Move(ctx, m.name); err != nil {
			t.Fatal(err)
		}
		var n, length int
		if err := f.QueryRow(ctx, "SELECT count(*), sum(length(v)) FROM t").Scan(&n, &length); err != nil || n != rows || length != 200*rows {
			t.Errorf("%d rows, %d bytes of them at %s: %v", n, length, m.name, err)
		}
	}
	owner := c.owner(cl, name)
	for _, m := range c.members {
		if m != owner {
			rot(m) // and then it owns the facet
			rot(m)
			break
		}
	}
}

// metric reads one number of a node, without its fraction.
func (m *member) metric(name string) int64 {
	m.c.t.Helper()
	var n float64
	m.c.until(m.name+" tells "+name, func() error {
		hc := http.Client{Timeout: 10 * time.Second}
		resp, err := hc.Get("http://" + m.api() + "/metrics")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(body)) {
			if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
				n, err = strconv.ParseFloat(v, 64)
				return err
			}
		}
		return errors.New("there is no such number")
	})
	return int64(n)
}
