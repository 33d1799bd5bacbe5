package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

// sickFile fails reads while it is told to.
type sickFile struct {
	memFile
	err error
}

func (f *sickFile) ReadAt(p []byte, off int64) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.memFile.ReadAt(p, off)
}

// TestReadErrors: when the file cannot be read, statements fail, nothing is
// committed, and the facet works again as soon as the file does.
func TestReadErrors(t *testing.T) {
	f := open(t, Limits{CacheBytes: 64 << 10})
	f.quiet = true
	f.must(script("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v);" +
		"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<2000) INSERT INTO t SELECT i,hex(randomblob(100)) FROM r"))
	if err := f.db.Close(); err != nil {
		t.Fatal(err)
	}
	file := &sickFile{}
	for p := range f.store.Pages() {
		var page [pages.Size]byte
		if _, err := f.store.ReadAt(page[:], int64(p)*pages.Size); err != nil {
			t.Fatal(err)
		}
		file.data = append(file.data, page[:]...)
	}
	f.store = pages.New(pages.Base{Position: f.store.Position(), Pages: f.store.Pages()}, func() (pages.File, error) { return file, nil })
	f.open()
	want := f.rows("SELECT count(*), sum(length(v)) FROM t")
	for range 20 {
		pos := f.store.Position()
		file.err = errors.New("disk is ill")
		for _, sql := range []string{"SELECT sum(length(v)) FROM t", "UPDATE t SET v=hex(randomblob(100))", "DELETE FROM t WHERE v>'8'", "VACUUM", "PRAGMA integrity_check"} {
			out, err := f.run(&facet.Request{Atomic: true, Steps: []facet.Step{step(sql)}})
			if err == nil && !strings.Contains(out, "disk") || err != nil && !errors.Is(err, facet.ErrInternal) && f.db.Broken() == nil {
				t.Fatalf("%s: %.200s %v", sql, out, err)
			}
			if f.db.Broken() != nil {
				break
			}
		}
		if f.store.Position() != pos {
			t.Fatal("a failed transaction was committed")
		}
		file.err = nil
		if f.db.Broken() != nil {
			// The connection could not be opened again, or the commit not be made: the
			// owner drops the session.
			f.store.Discard()
			f.reopen()
		}
		f.want("SELECT count(*), sum(length(v)) FROM t", want)
	}
	f.want("PRAGMA integrity_check", `"ok"`)
	f.must(step("UPDATE t SET v='x'||id"))
	f.want("PRAGMA integrity_check", `"ok"`)
	f.samePages()
}

// TestOutOfMemoryAnywhere runs a transaction with every amount of memory from too
// little to enough. It happens whole or not at all.
func TestOutOfMemoryAnywhere(t *testing.T) {
	f := open(t, Limits{MemoryBytes: 4 << 20})
	f.quiet = true
	f.must(script("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX i ON t(v); CREATE VIRTUAL TABLE ft USING fts5(x);" +
		"WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<300) INSERT INTO t SELECT i,hex(randomblob(200)) FROM r"))
	failed, done := 0, 0
	for extra := int64(0); extra < 1<<20; extra += 7<<10 + 13 {
		before := f.rows("SELECT count(*), sum(length(v)) FROM t")
		f.db.conn.SetMemoryLimit(f.db.MemoryUsed() + extra)
		pos := f.store.Position()
		_, err := f.run(&facet.Request{Atomic: true, Steps: []facet.Step{
			step("INSERT INTO ft SELECT v FROM t LIMIT 50"),
			step("UPDATE t SET v=v||'y' WHERE id%3=0"),
			step("INSERT INTO t(v) SELECT hex(randomblob(200)) FROM t ORDER BY v DESC LIMIT 20"),
			step("DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY random() LIMIT 10)"),
		}})
		f.db.conn.SetMemoryLimit(4 << 20)
		if f.db.Broken() != nil {
			t.Fatal(f.db.Broken())
		}
		if err == nil {
			done++
			continue
		}
		failed++
		if !errors.Is(err, facet.ErrLimit) {
			t.Fatal(err)
		}
		if f.store.Position() != pos {
			t.Fatal("a failed transaction was committed")
		}
		f.want("SELECT count(*), sum(length(v)) FROM t", before)
		f.want("PRAGMA integrity_check", `"ok"`)
	}
	t.Logf("%d failed, %d done", failed, done)
	if failed < 5 || done < 5 {
		t.Errorf("%d failed, %d done: not both sides of the limit", failed, done)
	}
	f.samePages()
}

// TestHandOffFailsAtCommit: the owner's log refuses the commit of an explicit
// transaction.
func TestHandOffFailsAtCommit(t *testing.T) {
	for _, req := range []*facet.Request{
		{Atomic: true, Steps: []facet.Step{step("INSERT INTO t VALUES(1)"), step("INSERT INTO t VALUES(2)")}},
		{Steps: []facet.Step{step("BEGIN"), step("INSERT INTO t VALUES(1)"), step("COMMIT"), step("SELECT 1")}},
		{Steps: []facet.Step{script("INSERT INTO t VALUES(1); SELECT 1; INSERT INTO t VALUES(2)")}},
		{Key: facet.Key{N: 1}, Steps: []facet.Step{step("INSERT INTO t VALUES(1)")}},
		{Steps: []facet.Step{step("VACUUM")}},
	} {
		f := open(t, Limits{})
		f.must(step("CREATE TABLE t(id INTEGER PRIMARY KEY)"), step("DROP TABLE IF EXISTS u"), step("CREATE TABLE u(x)"), step("DROP TABLE u"))
		f.fail = errors.New("log is gone")
		if _, err := f.run(req); !errors.Is(err, facet.ErrUnknownOutcome) {
			t.Errorf("%s: %v", req.Steps[0].SQL, err)
		}
		if f.db.Broken() == nil || f.db.InTx() {
			t.Error("not broken, or in a transaction")
		}
		if err := f.db.Rollback(); !errors.Is(err, facet.ErrUnavailable) {
			t.Error(err)
		}
	}
}
