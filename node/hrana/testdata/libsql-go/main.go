// Command libsql-go runs the stock libSQL client for Go, a database/sql driver,
// against the URL given as argument, and fails at the first thing that is not as
// with a libSQL server. It is a module of its own so that the client's
// dependencies are not facetd's.
package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	_ "github.com/tursodatabase/libsql-client-go/libsql"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string) error {
	db, err := sql.Open("libsql", url)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, check := range []struct {
		name string
		f    func(context.Context, *sql.DB) error
	}{
		{"ping", func(ctx context.Context, db *sql.DB) error { return db.PingContext(ctx) }},
		{"exec and query", execAndQuery},
		{"several statements", several},
		{"prepared statements", prepared},
		{"transactions", transactions},
		{"errors", failures},
		{"a connection that stays", staying},
	} {
		if err := check.f(ctx, db); err != nil {
			return fmt.Errorf("FAIL %s: %w", check.name, err)
		}
		fmt.Println("ok  ", check.name)
	}
	return nil
}

func execAndQuery(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, "CREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT, f REAL, b BLOB, at DATETIME, n INTEGER)"); err != nil {
		return err
	}
	blob := make([]byte, 1000)
	for i := range blob {
		blob[i] = byte(i)
	}
	at := time.Date(2025, 11, 22, 1, 2, 3, 0, time.UTC)
	const big = int64(1)<<62 + 1
	res, err := db.ExecContext(ctx, "INSERT INTO t (s, f, b, at, n) VALUES (?, ?, ?, ?, ?)", "žluť 🐎", 0.1, blob, at, big)
	if err != nil {
		return err
	}
	id, _ := res.LastInsertId()
	n, _ := res.RowsAffected()
	if id != 1 || n != 1 {
		return fmt.Errorf("id %d, %d rows", id, n)
	}
	var s string
	var f float64
	var b []byte
	var when time.Time
	var i int64
	var null sql.NullString
	err = db.QueryRowContext(ctx, "SELECT s, f, b, at, n, NULL FROM t WHERE id = :id", sql.Named("id", 1)).Scan(&s, &f, &b, &when, &i, &null)
	if err != nil {
		return err
	}
	if s != "žluť 🐎" || f != 0.1 || !bytes.Equal(b, blob) || !when.Equal(at) || i != big || null.Valid {
		return fmt.Errorf("got %q %v %d bytes %v %d %v", s, f, len(b), when, i, null)
	}
	return nil
}

func several(ctx context.Context, db *sql.DB) error {
	res, err := db.ExecContext(ctx, "CREATE TABLE u (a); INSERT INTO u VALUES (1); INSERT INTO u VALUES (2)")
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n != 2 {
		return fmt.Errorf("%d rows", n)
	}
	return count(ctx, db, 2)
}

func prepared(ctx context.Context, db *sql.DB) error {
	stmt, err := db.PrepareContext(ctx, "INSERT INTO u VALUES (?)")
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i := range 10 {
		if _, err := stmt.ExecContext(ctx, i); err != nil {
			return err
		}
	}
	return count(ctx, db, 12)
}

func transactions(ctx context.Context, db *sql.DB) error {
	for _, commit := range []bool{false, true} {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO u VALUES (100)"); err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM u").Scan(&n); err != nil || n != 13 {
			return fmt.Errorf("count in the transaction: %d, %w", n, err)
		}
		want := 12
		if commit {
			want = 13
			err = tx.Commit()
		} else {
			err = tx.Rollback()
		}
		if err != nil {
			return err
		}
		if err := count(ctx, db, want); err != nil {
			return err
		}
	}
	return nil
}

func failures(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "INSERT INTO t (id) VALUES (1)")
	if err == nil || !strings.Contains(err.Error(), "UNIQUE constraint failed: t.id") {
		return fmt.Errorf("duplicate key: %v", err)
	}
	_, err = db.ExecContext(ctx, "SELECT * FROM nowhere")
	if err == nil || !strings.Contains(err.Error(), "no such table: nowhere") {
		return fmt.Errorf("no table: %v", err)
	}
	return count(ctx, db, 13)
}

// staying uses one connection, and so one chain of batons, for long.
func staying(ctx context.Context, db *sql.DB) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range 200 {
		var n int
		if err := c.QueryRowContext(ctx, "SELECT ?", i).Scan(&n); err != nil || n != i {
			return fmt.Errorf("query %d gave %d: %w", i, n, err)
		}
	}
	return nil
}

func count(ctx context.Context, db *sql.DB, want int) error {
	var n int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM u").Scan(&n); err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%d rows, want %d", n, want)
	}
	return nil
}
