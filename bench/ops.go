package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"sync/atomic"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// The SQL of workloads with tables of their own.
const (
	scanSchemaSQL = "CREATE TABLE IF NOT EXISTS scan (id INTEGER PRIMARY KEY, v BLOB NOT NULL)"
	scanFillSQL   = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?1) INSERT OR REPLACE INTO scan(id, v) SELECT i, randomblob(?2) FROM n"
	scanSQL       = "SELECT id, v FROM scan ORDER BY id LIMIT ?"

	largeSchemaSQL = "CREATE TABLE IF NOT EXISTS large (id INTEGER PRIMARY KEY, v BLOB NOT NULL)"
	largeSQL       = "INSERT INTO large(id, v) VALUES (?1, ?2) ON CONFLICT(id) DO UPDATE SET v = excluded.v"

	counterSchemaSQL = "CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)"
	counterFillSQL   = "INSERT OR IGNORE INTO counter(id, n) VALUES (1, 0)"
	counterSQL       = "UPDATE counter SET n = n + 1 WHERE id = 1"
	counterReadSQL   = "SELECT n FROM counter WHERE id = 1"
)

// chooser chooses one of the first n facets, as the workload says.
func (r *run) chooser(w Workload) func(*mrand.Rand) int {
	if w.Zipf {
		return newZipf(w.Facets, r.cfg.Theta).next
	}
	return func(rng *mrand.Rand) int { return rng.IntN(w.Facets) }
}

// mixed is reads and inserts, Workload.Reads of a hundred the former.
func (r *run) mixed(w Workload) op {
	read, write := r.read(w), r.write(w)
	return func(ctx context.Context, caller, i int, rng *mrand.Rand) error {
		if rng.IntN(100) < w.Reads {
			return read(ctx, caller, i, rng)
		}
		return write(ctx, caller, i, rng)
	}
}

// batch inserts several rows in one transaction and one round trip.
func (r *run) batch(w Workload) op {
	values, pick := r.values(), r.chooser(w)
	return func(ctx context.Context, caller, i int, rng *mrand.Rand) error {
		v := values.of(caller, i)
		stmts := make([]client.Stmt, w.RowsPerOp)
		for k := range stmts {
			stmts[k] = client.Stmt{SQL: WriteSQL, Args: []any{v}}
		}
		f := pick(rng)
		res, err := r.set.all[f].Batch(ctx, stmts...)
		if err != nil {
			return err
		}
		for _, s := range res {
			if s.RowsAffected != 1 {
				return fmt.Errorf("an insert of a batch changed %d rows", s.RowsAffected)
			}
		}
		r.grew(f, res[len(res)-1].LastInsertID)
		return nil
	}
}

// tx reads a row and inserts one in an interactive transaction: four round trips,
// during which the facet is held.
func (r *run) tx(w Workload) op {
	values, pick := r.values(), r.chooser(w)
	return func(ctx context.Context, caller, i int, rng *mrand.Rand) error {
		f, v := pick(rng), values.of(caller, i)
		id := r.row(f, rng)
		var last int64
		err := r.set.all[f].Tx(ctx, func(tx *client.Tx) error {
			var got []byte
			if err := tx.QueryRow(ctx, ReadSQL, id).Scan(&got); err != nil {
				return err
			}
			if err := r.rightSize(f, id, got); err != nil {
				return err
			}
			res, err := tx.Exec(ctx, WriteSQL, v)
			last = res.LastInsertID
			return err
		})
		if err == nil {
			r.grew(f, last)
		}
		return err
	}
}

// scan reads many rows in one query.
func (r *run) scan(ctx context.Context, w Workload) (op, error) {
	size := min(r.cfg.ValueSize, scanValue)
	if err := r.table(ctx, w, client.Stmt{SQL: scanSchemaSQL}, client.Stmt{SQL: scanFillSQL, Args: []any{w.RowsPerOp, size}}); err != nil {
		return nil, err
	}
	pick := r.chooser(w)
	return func(ctx context.Context, _, _ int, rng *mrand.Rand) error {
		f := pick(rng)
		rows, err := r.set.all[f].Query(ctx, scanSQL, w.RowsPerOp)
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for ; rows.Next(); n++ {
			var id int64
			var v []byte
			if err := rows.Scan(&id, &v); err != nil {
				return err
			}
			if len(v) != size {
				return fmt.Errorf("row %d has a value of %d bytes, want %d", id, len(v), size)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if n != w.RowsPerOp {
			return fmt.Errorf("a scan gave %d rows, want %d", n, w.RowsPerOp)
		}
		return nil
	}, nil
}

// large writes large values over a few rows of each facet. They are cut out of one
// pool of random bytes at random places, so that none is like the one before.
func (r *run) large(ctx context.Context, w Workload) (op, error) {
	if err := r.table(ctx, w, client.Stmt{SQL: largeSchemaSQL}); err != nil {
		return nil, err
	}
	pool := make([]byte, 16*w.Value)
	rand.Read(pool)
	pick := r.chooser(w)
	return func(ctx context.Context, _, _ int, rng *mrand.Rand) error {
		from := rng.IntN(len(pool) - w.Value)
		res, err := r.set.all[pick(rng)].Exec(ctx, largeSQL, 1+rng.IntN(largeRows), pool[from:from+w.Value])
		if err == nil && res.RowsAffected != 1 {
			err = fmt.Errorf("a write changed %d rows", res.RowsAffected)
		}
		return err
	}, nil
}

// table makes what a workload needs in its facets.
func (r *run) table(ctx context.Context, w Workload, stmts ...client.Stmt) error {
	s, err := drive(ctx, r.cfg.Callers, &times{total: int64(w.Facets)}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		_, err := r.set.all[i].Batch(ctx, stmts...)
		return err
	})
	if err == nil {
		err = s.firstErr
	}
	if err != nil {
		return fmt.Errorf("make its tables: %w", err)
	}
	return nil
}

// counters is what the increments of workload counter must add up to.
type counters struct {
	facets []*client.Facet
	acked  []atomic.Int64 // by facet: increments that were acknowledged
	doubt  []atomic.Int64 // that nobody knows about
	before []int64        // where they began
}

// counter increments a counter in each facet, with an idempotency key.
func (r *run) counter(ctx context.Context, w Workload) (*counters, error) {
	if err := r.table(ctx, w, client.Stmt{SQL: counterSchemaSQL}, client.Stmt{SQL: counterFillSQL}); err != nil {
		return nil, err
	}
	c := &counters{acked: make([]atomic.Int64, w.Facets), doubt: make([]atomic.Int64, w.Facets)}
	for _, f := range r.set.all[:w.Facets] {
		c.facets = append(c.facets, f.Idempotent())
	}
	var err error
	c.before, err = c.read(ctx, r.cfg.Callers)
	return c, err
}

func (c *counters) op(pick func(*mrand.Rand) int) op {
	return func(ctx context.Context, _, _ int, rng *mrand.Rand) error {
		f := pick(rng)
		res, err := c.facets[f].Exec(ctx, counterSQL)
		switch {
		case err == nil && res.RowsAffected != 1:
			return fmt.Errorf("an increment changed %d rows", res.RowsAffected)
		case err == nil:
			c.acked[f].Add(1)
		case errors.Is(err, facet.ErrUnknownOutcome) || ctx.Err() != nil:
			c.doubt[f].Add(1)
		}
		return err
	}
}

func (c *counters) read(ctx context.Context, callers int) ([]int64, error) {
	out := make([]int64, len(c.facets))
	s, err := drive(ctx, callers, &times{total: int64(len(out))}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		return c.facets[i].QueryRow(ctx, counterReadSQL).Scan(&out[i])
	})
	if err == nil {
		err = s.firstErr
	}
	if err != nil {
		return nil, fmt.Errorf("read the counters: %w", err)
	}
	return out, nil
}

// verify compares every counter with what was acknowledged. An error that is not
// "outcome unknown" promises that nothing happened, and is held to it.
func (c *counters) verify(ctx context.Context, callers int) (*Verified, error) {
	now, err := c.read(ctx, callers)
	if err != nil {
		return nil, err
	}
	v := new(Verified)
	var wrong error
	for i, n := range now {
		n -= c.before[i]
		acked, doubt := c.acked[i].Load(), c.doubt[i].Load()
		v.Acknowledged += acked
		v.Unknown += doubt
		v.Found += n
		if wrong == nil && (n < acked || n > acked+doubt) {
			wrong = fmt.Errorf("the counter of %v rose by %d; %d increments were acknowledged and the outcome of %d is unknown",
				c.facets[i].Name(), n, acked, doubt)
		}
	}
	return v, wrong
}
