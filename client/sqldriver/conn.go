package sqldriver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// conn is one connection of a sql.DB: a facet, and its transaction if one is
// open. database/sql uses it from one goroutine at a time.
type conn struct {
	client *client.Client
	base   *client.Facet
	tx     *client.Tx
	own    *Connector // closed with the connection; only from Driver.Open
}

func (c *conn) Close() error {
	if c.tx != nil {
		c.tx.Rollback(context.Background()) // what is not committed is undone in any case
		c.tx = nil
	}
	if c.own != nil {
		return c.own.Close()
	}
	return nil
}

func (c *conn) Ping(ctx context.Context) error { return c.client.Ping(ctx) }

// ResetSession and IsValid drop a connection with a transaction database/sql
// does not know of; there is nothing else to reset.
func (c *conn) ResetSession(ctx context.Context) error {
	if c.tx != nil {
		return driver.ErrBadConn
	}
	return nil
}

func (c *conn) IsValid() bool { return c.tx == nil }

// CheckNamedValue lets every argument through: the SDK converts and complains.
func (c *conn) CheckNamedValue(*driver.NamedValue) error { return nil }

func (c *conn) Prepare(query string) (driver.Stmt, error) { return &stmt{conn: c, query: query}, nil }

func (c *conn) PrepareContext(_ context.Context, query string) (driver.Stmt, error) {
	return c.Prepare(query)
}

func (c *conn) Begin() (driver.Tx, error) { return c.BeginTx(context.Background(), driver.TxOptions{}) }

func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	switch sql.IsolationLevel(opts.Isolation) {
	case sql.LevelDefault, sql.LevelSerializable:
	default:
		return nil, facet.Errorf(facet.CodeBadRequest, "begin: isolation level %v is not offered; transactions are serializable", sql.IsolationLevel(opts.Isolation))
	}
	if c.tx != nil {
		return nil, facet.Errorf(facet.CodeBadRequest, "begin: the connection is in a transaction already")
	}
	f := c.base
	if opts.ReadOnly {
		f = f.ReadOnly()
	}
	tx, err := f.Begin(ctx)
	if err != nil {
		return nil, err
	}
	c.tx = tx
	return &txn{c}, nil
}

// txn ends the transaction of its connection.
type txn struct{ conn *conn }

func (t *txn) Commit() error {
	tx := t.conn.tx
	t.conn.tx = nil
	err := tx.Commit(context.Background())
	if err != nil {
		tx.Rollback(context.Background()) // nothing when the commit settled it
	}
	return err
}

func (t *txn) Rollback() error {
	tx := t.conn.tx
	t.conn.tx = nil
	return tx.Rollback(context.Background())
}

func toArgs(nvs []driver.NamedValue) []any {
	args := make([]any, len(nvs))
	for i, nv := range nvs {
		if args[i] = nv.Value; nv.Name != "" {
			args[i] = client.Named(nv.Name, nv.Value)
		}
	}
	return args
}

func (c *conn) ExecContext(ctx context.Context, query string, nvs []driver.NamedValue) (driver.Result, error) {
	if client.Several(query) {
		if len(nvs) > 0 {
			return nil, facet.Errorf(facet.CodeBadRequest, "exec: several statements take no arguments; run them one by one")
		}
		var err error
		if c.tx != nil {
			err = c.tx.Script(ctx, query)
		} else {
			err = c.base.Script(ctx, query)
		}
		return driver.ResultNoRows, err
	}
	var res client.Result
	var err error
	if c.tx != nil {
		res, err = c.tx.Exec(ctx, query, toArgs(nvs)...)
	} else {
		res, err = c.base.Exec(ctx, query, toArgs(nvs)...)
	}
	return result{res}, err
}

func (c *conn) QueryContext(ctx context.Context, query string, nvs []driver.NamedValue) (driver.Rows, error) {
	var r *client.Rows
	var err error
	if c.tx != nil {
		r, err = c.tx.Query(ctx, query, toArgs(nvs)...)
	} else {
		r, err = c.base.Query(ctx, query, toArgs(nvs)...)
	}
	if err != nil {
		return nil, err
	}
	return newRows(r), nil
}

type result struct{ of client.Result }

func (r result) LastInsertId() (int64, error) { return r.of.LastInsertID, nil }
func (r result) RowsAffected() (int64, error) { return r.of.RowsAffected, nil }

// stmt is a text remembered: the node caches what it prepares.
type stmt struct {
	conn  *conn
	query string
}

func (s *stmt) Close() error  { return nil }
func (s *stmt) NumInput() int { return -1 } // the node counts
func (s *stmt) ExecContext(ctx context.Context, nvs []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, nvs)
}
func (s *stmt) QueryContext(ctx context.Context, nvs []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, nvs)
}
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), numbered(args))
}
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), numbered(args))
}

func numbered(args []driver.Value) []driver.NamedValue {
	nvs := make([]driver.NamedValue, len(args))
	for i, a := range args {
		nvs[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return nvs
}

// column says how the values of a column are given.
type column uint8

const (
	colPlain column = iota
	colTime
	colBool
)

// rows makes driver values of the SDK's rows.
type rows struct {
	r     *client.Rows
	kinds []column
	vals  []facet.Value
}

func newRows(r *client.Rows) *rows {
	cols := r.Columns()
	rs := &rows{r: r, kinds: make([]column, len(cols))}
	for i, c := range cols {
		rs.kinds[i] = kindOf(c.DeclType)
	}
	return rs
}

// typeName is the declared type without its length.
func typeName(decl string) string {
	name, _, _ := strings.Cut(decl, "(")
	return strings.ToUpper(strings.TrimSpace(name))
}

func kindOf(decl string) column {
	switch typeName(decl) {
	case "DATE", "DATETIME", "TIMESTAMP":
		return colTime
	case "BOOLEAN", "BOOL":
		return colBool
	}
	return colPlain
}

func (rs *rows) Columns() []string {
	cols := rs.r.Columns()
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = c.Name
	}
	return names
}

func (rs *rows) Close() error { return rs.r.Close() }

func (rs *rows) Next(dest []driver.Value) error {
	if !rs.r.Next() {
		if err := rs.r.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	var err error
	if rs.vals, err = rs.r.Decode(rs.vals[:0]); err != nil {
		return err
	}
	if len(rs.vals) != len(dest) {
		return fmt.Errorf("read row: %d values for %d columns", len(rs.vals), len(dest))
	}
	for i, v := range rs.vals {
		dest[i] = rs.value(i, v)
	}
	return nil
}

func (rs *rows) value(i int, v facet.Value) driver.Value {
	switch kind := rs.kinds[i]; {
	case kind == colTime && (v.Type == facet.Text || v.Type == facet.Integer):
		var t time.Time
		if client.ScanValue(&t, v) == nil {
			return t
		}
	case kind == colBool && v.Type == facet.Integer:
		return v.Int != 0
	}
	return client.GoValue(v)
}

// ColumnTypeDatabaseTypeName is the declared type, in capitals and without
// length; empty for an expression.
func (rs *rows) ColumnTypeDatabaseTypeName(i int) string {
	return typeName(rs.r.Columns()[i].DeclType)
}

var (
	typeAny   = reflect.TypeFor[any]()
	typeBytes = reflect.TypeFor[[]byte]()
)

// ColumnTypeScanType is a type that holds what a column of this declared type
// usually has, by SQLite's affinity rules; any value may still be of any type.
func (rs *rows) ColumnTypeScanType(i int) reflect.Type {
	name := typeName(rs.r.Columns()[i].DeclType)
	switch {
	case rs.kinds[i] == colTime:
		return reflect.TypeFor[sql.NullTime]()
	case rs.kinds[i] == colBool:
		return reflect.TypeFor[sql.NullBool]()
	case strings.Contains(name, "INT"):
		return reflect.TypeFor[sql.NullInt64]()
	case strings.Contains(name, "CHAR"), strings.Contains(name, "CLOB"), strings.Contains(name, "TEXT"):
		return reflect.TypeFor[sql.NullString]()
	case strings.Contains(name, "BLOB"):
		return typeBytes
	case strings.Contains(name, "REAL"), strings.Contains(name, "FLOA"), strings.Contains(name, "DOUB"):
		return reflect.TypeFor[sql.NullFloat64]()
	}
	return typeAny
}

// ColumnTypeNullable: SQLite does not tell.
func (rs *rows) ColumnTypeNullable(int) (nullable, ok bool) { return true, false }
