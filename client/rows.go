package client

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/facetd/facetd/facet"
)

// Rows reads the rows of a query as they come. It is for one goroutine.
type Rows struct {
	ctx  context.Context
	name facet.Name
	k    *call // nil once closed
	cols []facet.Column
	rest facet.Result // of the frame being read
	row  facet.Values
	have bool
	res  Result
	err  error
}

// begin reads up to the first row. An error of the statement itself is returned
// here.
func (r *Rows) begin(ctx context.Context, k *call, f *Facet) error {
	*r = Rows{ctx: ctx, name: f.name, k: k, rest: k.first}
	it, err := r.item()
	if err == nil {
		switch it.Kind {
		case facet.ItemColumns:
			if r.cols, err = f.client.columns.decode(it.Body); err == nil {
				return nil
			}
			err = badAnswer(err)
		case facet.ItemDone:
			r.done(it.Body)
			return nil
		case facet.ItemError:
			err = r.k.itemError(it.Body)
		default:
			err = badAnswer(fmt.Errorf("it begins with item %d", it.Kind))
		}
	}
	r.Close()
	return f.wrap("query", err)
}

// item takes the next item, waiting for the frame that holds it.
func (r *Rows) item() (it facet.Item, err error) {
	for len(r.rest) == 0 {
		k, c := r.k, r.k.conn
		c.mu.Lock()
		if len(k.more) > 0 {
			r.rest, k.more = k.more[0], k.more[1:]
			c.mu.Unlock()
			continue
		}
		final, err := k.final, k.err
		c.mu.Unlock()
		switch {
		case err != nil && k.isLost:
			code := facet.CodeUnavailable
			if k.eff != effRead {
				code = facet.CodeUnknownOutcome
			}
			return it, fmt.Errorf("%w: %w", facet.Errorf(code, "connection lost while reading rows"), err)
		case err != nil:
			return it, err
		case final:
			return it, badAnswer(io.ErrUnexpectedEOF)
		}
		select {
		case <-k.wake:
		case <-r.ctx.Done():
			return it, context.Cause(r.ctx)
		}
	}
	if it, r.rest, err = r.rest.Next(); err != nil {
		return it, badAnswer(err)
	}
	return it, nil
}

// Next moves to the next row. It is false at the end and on an error: look at
// Err.
func (r *Rows) Next() bool {
	r.have = false
	if r.k == nil || r.err != nil {
		return false
	}
	it, err := r.item()
	if err == nil {
		switch it.Kind {
		case facet.ItemRow:
			r.row, r.have = it.Body, true
			return true
		case facet.ItemDone:
			r.done(it.Body)
			return false
		case facet.ItemError:
			err = r.k.itemError(it.Body)
		default:
			err = badAnswer(fmt.Errorf("item %d among rows", it.Kind))
		}
	}
	r.err = fmt.Errorf("query %v: %w", r.name, err)
	r.Close()
	return false
}

func (r *Rows) done(body []byte) {
	d, err := facet.DecodeDone(body)
	if err != nil {
		r.err = fmt.Errorf("query %v: %w", r.name, badAnswer(err))
	}
	r.res = Result{RowsAffected: d.Changes, LastInsertID: d.LastRowID}
	r.k.moved()
	r.Close()
}

// columnCache remembers the columns of answers, by their encoded form: a program
// reads the same few again and again.
type columnCache struct {
	mu    sync.RWMutex
	known map[string][]facet.Column
}

func (cc *columnCache) decode(body []byte) ([]facet.Column, error) {
	cc.mu.RLock()
	cols, ok := cc.known[string(body)]
	cc.mu.RUnlock()
	if ok {
		return cols, nil
	}
	cols, err := facet.DecodeColumns(body)
	if err != nil || len(body) > maxCachedColumns {
		return cols, err
	}
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.known == nil || len(cc.known) >= maxColumnCache {
		cc.known = make(map[string][]facet.Column)
	}
	cc.known[string(body)] = cols
	return cols, nil
}

// Columns are the names and declared types of the columns. The slice is shared:
// it must not be changed.
func (r *Rows) Columns() []facet.Column { return r.cols }

// Result tells what the statement did, once the rows are read.
func (r *Rows) Result() Result { return r.res }

// Err is the error that ended the rows, nil after a good end.
func (r *Rows) Err() error { return r.err }

// Close ends the rows; the node stops if it is still at work on them. It may be
// called more than once.
func (r *Rows) Close() error {
	k := r.k
	if k == nil {
		return nil
	}
	r.k, r.row, r.rest, r.have = nil, nil, nil, false
	k.conn.abandon(k)
	k.free()
	return nil
}

// Values is the current row in encoded form. It is valid until Next or Close.
func (r *Rows) Values() facet.Values { return r.row }

// Decode appends the values of the current row to dst. Their bytes are valid
// until Next or Close.
func (r *Rows) Decode(dst []facet.Value) ([]facet.Value, error) {
	if !r.have {
		return dst, errNoRow
	}
	return r.row.Decode(dst)
}

// Scan copies the columns of the current row into dest, see the package's table
// of conversions in ScanValue.
func (r *Rows) Scan(dest ...any) error {
	if !r.have {
		return errNoRow
	}
	if len(dest) != len(r.cols) {
		return facet.Errorf(facet.CodeBadRequest, "scan: %d destinations for %d columns", len(dest), len(r.cols))
	}
	row := r.row
	for i := range dest {
		v, rest, err := row.Next()
		if err != nil {
			return badAnswer(err)
		}
		if err := ScanValue(dest[i], v); err != nil {
			return facet.Errorf(facet.CodeBadRequest, "scan column %d (%s): %v", i+1, r.cols[i].Name, err)
		}
		row = rest
	}
	return nil
}

var errNoRow = errors.New("scan: no row; call Next first")

// Row is the one row of QueryRow.
type Row struct {
	rows Rows
	err  error
}

// Scan copies the columns of the row into dest. Without a row it is
// sql.ErrNoRows.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return sql.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil || r.rows.k.bookmark == nil {
		return err
	}
	// The bookmark comes with the end of the answer. Without it the next read could show
	// less than this row.
	for r.rows.Next() {
	}
	return r.rows.Err()
}

// Err is the error of the query, without reading a row.
func (r *Row) Err() error { return r.err }
