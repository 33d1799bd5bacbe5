package engine

import (
	"fmt"
	"testing"

	"github.com/facetd/facetd/facet"
)

// benchDBs opens facets with a table of rows and a sink that drops commits.
func benchDBs(b *testing.B, facets, rows int) []*DB {
	dbs := make([]*DB, facets)
	for i := range dbs {
		db, err := Open(Options{ID: facet.NewIncarnation(), Epoch: 1, Store: newStore(), Commits: func(*facet.Commit) error { return nil }})
		if err != nil {
			b.Fatal(err)
		}
		dbs[i] = db
		b.Cleanup(func() { db.Close() })
		var resp facet.Response
		fill := fmt.Sprintf("WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO t SELECT i,zeroblob(256) FROM n", rows)
		if err := db.Run(&facet.Request{Atomic: true, Steps: []facet.Step{script("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);" + fill)}}, &resp); err != nil {
			b.Fatal(err)
		}
	}
	return dbs
}

func benchRun(b *testing.B, dbs []*DB, req *facet.Request, set func(i int)) {
	var resp facet.Response
	for i := range dbs { // prepare the statement everywhere first
		set(i)
		resp.Result = resp.Result[:0]
		if err := dbs[i].Run(req, &resp); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		set(i)
		resp.Result = resp.Result[:0]
		if err := dbs[i%len(dbs)].Run(req, &resp); err != nil {
			b.Fatal(err)
		}
	}
}

func benchFacets(b *testing.B, f func(b *testing.B, facets int)) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint("facets=", n), func(b *testing.B) { f(b, n) })
	}
}

func BenchmarkInsert(b *testing.B) {
	benchFacets(b, func(b *testing.B, n int) {
		st := step("INSERT INTO t(v) VALUES(?)", make([]byte, 256))
		benchRun(b, benchDBs(b, n, 100), &facet.Request{Steps: []facet.Step{st}}, func(int) {})
	})
}

func BenchmarkPointRead(b *testing.B) {
	benchFacets(b, func(b *testing.B, n int) {
		st := step("SELECT v FROM t WHERE id=?", 1)
		req := &facet.Request{Steps: []facet.Step{st}}
		buf := make(facet.Values, 0, 16)
		benchRun(b, benchDBs(b, n, 100), req, func(i int) {
			buf = facet.AppendInt(buf[:0], int64(i*7%100+1))
			req.Steps[0].Args = buf
		})
	})
}

func BenchmarkAtomicPair(b *testing.B) {
	st := step("INSERT INTO t(v) VALUES(?)", make([]byte, 256))
	benchRun(b, benchDBs(b, 1, 100), &facet.Request{Atomic: true, Steps: []facet.Step{st, st}}, func(int) {})
}

func BenchmarkKeyedInsert(b *testing.B) {
	st := step("INSERT INTO t(v) VALUES(?)", make([]byte, 256))
	req := &facet.Request{Key: facet.Key{Client: facet.NewTxID(), N: 1}, Steps: []facet.Step{st}}
	benchRun(b, benchDBs(b, 1, 100), req, func(int) { req.Key.N++ })
}

func BenchmarkOpenAndRead(b *testing.B) {
	dbs := benchDBs(b, 1, 100)
	store := dbs[0].store
	if err := dbs[0].Close(); err != nil {
		b.Fatal(err)
	}
	req := &facet.Request{Steps: []facet.Step{step("SELECT v FROM t WHERE id=5")}}
	var resp facet.Response
	b.ReportAllocs()
	for b.Loop() {
		db, err := Open(Options{Epoch: 1, Store: store, Commits: refuseCommits})
		if err != nil {
			b.Fatal(err)
		}
		resp.Result = resp.Result[:0]
		if err := db.Run(req, &resp); err != nil {
			b.Fatal(err)
		}
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	st := step("SELECT id,v FROM t")
	benchRun(b, benchDBs(b, 1, 1000), &facet.Request{Steps: []facet.Step{st}}, func(int) {})
}
