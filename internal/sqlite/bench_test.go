package sqlite

import (
	"fmt"
	"testing"
)

func benchDB(b *testing.B) *Conn {
	c, f := open(b, bridged)
	f.data = make([]byte, 0, 256<<20) // room, so that growing is not measured
	exec(b, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, v TEXT)")
	return c
}

var payload = make([]byte, 256)

func BenchmarkInsert(b *testing.B) {
	c := benchDB(b)
	s := prep(b, c, "INSERT INTO t(a,v) VALUES(?,?)")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		insert(b, s, int64(i))
	}
}

func insert(tb testing.TB, s *Stmt, i int64) {
	if err := s.BindInt64(1, i); err != nil {
		tb.Fatal(err)
	}
	if err := s.BindTextBytes(2, payload); err != nil {
		tb.Fatal(err)
	}
	if _, err := s.Step(); err != nil {
		tb.Fatal(err)
	}
	s.Reset()
	s.ClearBindings()
}

func pointRead(tb testing.TB, s *Stmt, id int64) {
	if err := s.BindInt64(1, id); err != nil {
		tb.Fatal(err)
	}
	more, err := s.Step()
	if err != nil || !more {
		tb.Fatal(more, err)
	}
	if s.ColumnInt64(0) != id-1 || len(s.ColumnBytes(1)) != len(payload) {
		tb.Fatal("wrong row")
	}
	s.Reset()
	s.ClearBindings()
}

func BenchmarkPointRead(b *testing.B) {
	c := benchDB(b)
	s := prep(b, c, "INSERT INTO t(a,v) VALUES(?,?)")
	exec(b, c, "BEGIN")
	for i := range readRows {
		insert(b, s, int64(i))
	}
	exec(b, c, "COMMIT")
	q := prep(b, c, "SELECT a,v FROM t WHERE id=?")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pointRead(b, q, int64(i*7919%readRows)+1)
	}
}

const readRows = 10000

// BenchmarkManyPointReads spreads reads over 200 connections with small caches
// and all cores: it shows whether connections wait for each other.
func BenchmarkManyPointReads(b *testing.B) {
	const n = 200
	conns := make(chan *Stmt, n)
	for range n {
		c, _ := open(b, Options{VFS: "test", Exclusive: true, CacheSize: 50})
		exec(b, c, "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, v TEXT); BEGIN")
		s := prep(b, c, "INSERT INTO t(a,v) VALUES(?,?)")
		for i := range 1000 {
			insert(b, s, int64(i))
		}
		exec(b, c, "COMMIT")
		conns <- prep(b, c, "SELECT a,v FROM t WHERE id=?")
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i += 10 {
			s := <-conns
			for j := range 10 {
				pointRead(b, s, int64((i+j)*7919%1000)+1)
				if j < 9 && !pb.Next() {
					break
				}
			}
			conns <- s
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	for _, tables := range []int{1, 20} {
		b.Run(fmt.Sprint("tables=", tables), func(b *testing.B) {
			c, _ := open(b, bridged)
			name := fmt.Sprintf("%s-open", newName(b))
			d, err := Open(name, bridged)
			if err != nil {
				b.Fatal(err)
			}
			for i := range tables {
				exec(b, d, fmt.Sprintf("CREATE TABLE t%d(id INTEGER PRIMARY KEY, a INTEGER, v TEXT); INSERT INTO t%d(a) VALUES(1)", i, i))
			}
			if err := d.Close(); err != nil {
				b.Fatal(err)
			}
			_ = c
			b.ReportAllocs()
			for b.Loop() {
				d, err := Open(name, bridged)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := dump(d, "SELECT a FROM t0 WHERE id=1"); err != nil {
					b.Fatal(err)
				}
				if err := d.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
