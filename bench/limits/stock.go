package limits

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"

	_ "modernc.org/sqlite" // the stock driver

	"github.com/facetd/facetd/bench"
)

// stock measures durable inserts into one database with the stock driver, used as
// its users are advised to: WAL, synchronous=FULL, one connection for writers, a
// prepared statement.
func (cfg *Config) stock(ctx context.Context) (_ float64, err error) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(cfg.Dir, "stock.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	var mode string
	var sync int
	if err := db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil {
		return 0, err
	}
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&sync); err != nil {
		return 0, err
	}
	if mode != "wal" || sync != 2 {
		return 0, fmt.Errorf("journal_mode is %s and synchronous is %d, want wal and 2", mode, sync)
	}
	if _, err := db.ExecContext(ctx, bench.SchemaSQL); err != nil {
		return 0, err
	}
	st, err := db.PrepareContext(ctx, bench.WriteSQL)
	if err != nil {
		return 0, err
	}
	defer st.Close()
	value := make([]byte, cfg.ValueSize)
	rand.Read(value)
	return cfg.rate(ctx, cfg.Callers, func(int) error {
		// A context that can end doubles the cost of the call in this driver, and
		// the loop looks at it between calls.
		_, err := st.Exec(value)
		return err
	})
}
