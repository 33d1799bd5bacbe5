package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"

	_ "modernc.org/sqlite"
)

// sqlitePeer is plain SQLite, the same engine that facetd has, as it is used without a
// server: a library in the process of the load, on one disk. each makes every key a
// database of its own, which is what a facet is; otherwise a key is a row of one
// database, which has one writer at a time.
type sqlitePeer struct{ each bool }

func (p sqlitePeer) about() about {
	a := about{Name: "sqlite", Against: "facetd-1", Durable: "fsynced on the one disk (journal_mode=WAL, synchronous=FULL)",
		Client: "modernc.org/sqlite through database/sql in the process of the load, prepared statements; one connection that writes, one for each CPU that read",
		Key:    "a row of one database"}
	if p.each {
		a.Name, a.Databases = "sqlite-each", true
		a.Client = "modernc.org/sqlite through database/sql in the process of the load, prepared statements; one connection to each database, all kept open"
		a.Key = "a database of its own, with one row"
	}
	return a
}

func (sqlitePeer) version(ctx context.Context, _ string) (string, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return "", err
	}
	defer db.Close()
	var engine string
	if err := db.QueryRowContext(ctx, "SELECT sqlite_version()").Scan(&engine); err != nil {
		return "", err
	}
	module := "modernc.org/sqlite"
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, d := range b.Deps {
			if d.Path == module {
				module += " " + d.Version
			}
		}
	}
	return fmt.Sprintf("SQLite %s, %s", engine, module), nil
}

func (sqlitePeer) launches(place) ([]launch, error) { return nil, nil }

func (p sqlitePeer) open(ctx context.Context, at place, s settings) (session, error) {
	dir := at.dirs[0]
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if p.each {
		return &eachSession{dir: dir, dbs: make([]*database, max(s.Keys, s.Create))}, nil
	}
	w, err := openDatabase(ctx, filepath.Join(dir, "all.db"), 1, nil)
	if err != nil {
		return nil, err
	}
	r, err := openDatabase(ctx, filepath.Join(dir, "all.db"), runtime.GOMAXPROCS(0), nil)
	if err != nil {
		w.close()
		return nil, err
	}
	return &oneSession{w, r}, nil
}

// database is an open database with its statements. Its calls cannot be canceled:
// that would double the work of a small query, and nothing here can hang.
type database struct {
	db            *sql.DB
	upsert, query *sql.Stmt
}

// openDatabase opens a database, and makes it if there is none: its table, and first
// as its first row if that is not nil, in one transaction.
func openDatabase(ctx context.Context, path string, conns int, first []byte) (d *database, err error) {
	q := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)"}}
	d = new(database)
	if d.db, err = sql.Open("sqlite", "file:"+path+"?"+q.Encode()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	d.db.SetMaxOpenConns(conns)
	d.db.SetMaxIdleConns(conns)
	if err := d.make(ctx, first); err != nil {
		return nil, err
	}
	if d.upsert, err = d.db.PrepareContext(ctx, upsertSQL); err != nil {
		return nil, err
	}
	d.query, err = d.db.PrepareContext(ctx, selectSQL)
	return d, err
}

func (d *database) make(ctx context.Context, first []byte) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, createSQL); err != nil {
		return err
	}
	if first != nil {
		if _, err := tx.ExecContext(ctx, upsertSQL, 1, first); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (d *database) write(ctx context.Context, id int, value []byte) error {
	res, err := d.upsert.ExecContext(context.WithoutCancel(ctx), id, value)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		return fmt.Errorf("a write changed %d rows: %v", n, err)
	}
	return nil
}

func (d *database) read(ctx context.Context, id int) (int, error) {
	var v []byte
	err := d.query.QueryRowContext(context.WithoutCancel(ctx), id).Scan(&v)
	return len(v), err
}

func (d *database) close() error { return d.db.Close() }

// oneSession has all keys in one database.
type oneSession struct{ writer, reader *database }

func (*oneSession) prepare(context.Context) error { return nil }

func (s *oneSession) create(ctx context.Context, key int, value []byte) error {
	return s.write(ctx, key, value)
}

func (s *oneSession) write(ctx context.Context, key int, value []byte) error {
	return s.writer.write(ctx, key, value)
}

func (s *oneSession) read(ctx context.Context, key int) (int, error) { return s.reader.read(ctx, key) }

func (s *oneSession) close() error {
	s.reader.close()
	return s.writer.close()
}

// eachSession has a database for each key, open from its first write to the end.
type eachSession struct {
	dir string
	mu  sync.Mutex // of dbs while keys are created
	dbs []*database
}

func (*eachSession) prepare(context.Context) error { return nil }

func (s *eachSession) create(ctx context.Context, key int, value []byte) error {
	d, err := openDatabase(ctx, filepath.Join(s.dir, keyName(key)+".db"), 1, value)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.dbs[key] = d
	s.mu.Unlock()
	return nil
}

func (s *eachSession) write(ctx context.Context, key int, value []byte) error {
	return s.dbs[key].write(ctx, 1, value)
}

func (s *eachSession) read(ctx context.Context, key int) (int, error) { return s.dbs[key].read(ctx, 1) }

func (s *eachSession) close() error {
	for _, d := range s.dbs {
		if d != nil {
			d.close()
		}
	}
	return nil
}
