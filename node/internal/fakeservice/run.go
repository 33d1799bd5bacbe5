package fakeservice

import (
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/sqlite"
	"github.com/facetd/facetd/node/service"
)

// outcome is how a step ended, for the conditions of later ones.
type outcome uint8

const (
	skipped outcome = iota
	ok
	failed
)

// run executes the call's request; db.mu is held.
func (db *database) run(call *service.Call) {
	req := &call.Request
	switch {
	case call.Canceled():
		call.Err = facet.Errorf(facet.CodeCanceled, "the caller went away")
		return
	case !req.Tx.IsZero() && req.Tx != db.tx:
		call.Err = facet.Errorf(facet.CodeTxClosed, "the transaction is over and was rolled back")
		return
	case !req.After.IsZero() && req.After.Facet != db.id:
		call.Err = facet.Errorf(facet.CodeBookmark, "the bookmark is of another facet")
		return
	case req.Tx.IsZero() && !db.tx.IsZero():
		call.Err = &facet.Error{Code: facet.CodeBusy, Message: "a transaction holds the facet", RetryAfter: time.Second}
		return
	}
	if stored, seen := db.keys[req.Key]; seen {
		call.Response = stored
		return
	}
	// Interrupt would be lost between two statements; asking is not.
	db.conn.SetProgressHandler(1000, call.Canceled)
	defer db.conn.SetProgressHandler(0, nil)

	before := db.conn.TotalChanges()
	result, err := db.steps(req, call.Response.Result[:0])
	if db.conn.TotalChanges() != before {
		db.seq++
	}
	switch {
	case db.conn.AutoCommit():
		db.tx = facet.TxID{}
	case req.KeepTx || !req.Tx.IsZero():
		if db.tx.IsZero() {
			db.tx = facet.NewTxID()
		}
	default:
		db.rollback()
		err = facet.Errorf(facet.CodeBadRequest, "the request left a transaction open, which was rolled back")
	}
	if err != nil {
		call.Err = err
		return
	}
	call.Response = facet.Response{Result: result, Tx: db.tx, Position: db.position()}
	if req.Bookmark || req.Read == facet.ReadFollower {
		call.Response.Bookmark = facet.Bookmark{Facet: db.id, Epoch: 1, Seq: db.seq}
	}
	if !req.Key.IsZero() {
		stored := call.Response
		stored.Result = append(facet.Result(nil), result...)
		db.keys[req.Key] = stored
	}
}

func (db *database) steps(req *facet.Request, out facet.Result) (facet.Result, error) {
	if req.Atomic {
		if err := db.conn.ExecScript([]byte("BEGIN IMMEDIATE")); err != nil {
			return nil, wrap(err)
		}
	}
	done := make([]outcome, len(req.Steps))
	for i := range req.Steps {
		st := &req.Steps[i]
		if st.Condition != nil && !db.holds(st.Condition, done) {
			var at int
			out, at = facet.BeginItem(out, facet.ItemSkipped)
			out = facet.EndItem(out, at)
			continue
		}
		var err error
		mark := len(out)
		if out, err = db.step(st, req.ReadOnly, out); err == nil {
			done[i] = ok
			continue
		}
		done[i] = failed
		fe := wrap(err)
		if req.Atomic {
			db.rollback()
			if n := len(req.Steps); n > 1 {
				fe.Message = fmt.Sprintf("step %d of %d: %s", i+1, n, fe.Message)
			}
			return nil, fe
		}
		if st.Kind == facet.StepDescribe {
			out = out[:mark]
		}
		out = facet.AppendErrorItem(out, fe)
	}
	if req.Atomic {
		if err := db.conn.ExecScript([]byte("COMMIT")); err != nil {
			db.rollback()
			return nil, wrap(err)
		}
	}
	return out, nil
}

func (db *database) rollback() {
	if !db.conn.AutoCommit() {
		// There is nothing else to try: a connection that cannot roll back is
		// caught by the next statement of the test.
		_ = db.conn.ExecScript([]byte("ROLLBACK"))
	}
	db.tx = facet.TxID{}
}

func (db *database) holds(c *facet.Condition, done []outcome) bool {
	switch c.Op {
	case facet.CondOK:
		return done[c.Step] == ok
	case facet.CondError:
		return done[c.Step] == failed
	case facet.CondNot:
		return !db.holds(&c.Conds[0], done)
	case facet.CondAnd:
		for i := range c.Conds {
			if !db.holds(&c.Conds[i], done) {
				return false
			}
		}
		return true
	case facet.CondOr:
		for i := range c.Conds {
			if db.holds(&c.Conds[i], done) {
				return true
			}
		}
		return false
	}
	return db.conn.AutoCommit()
}

func (db *database) step(st *facet.Step, readOnly bool, out facet.Result) (facet.Result, error) {
	start, before := time.Now(), db.conn.TotalChanges()
	var rows uint64
	sql, first := st.SQL, true
	for {
		stmt, tail, err := db.conn.Prepare(sql)
		if err != nil {
			return out, err
		}
		if stmt == nil {
			if st.Kind == facet.StepExecute && first {
				return out, facet.Errorf(facet.CodeSQL, "there is no SQL statement")
			}
			break
		}
		first = false
		sql = sql[tail:]
		if st.Kind != facet.StepScript {
			if err := single(db.conn, sql); err != nil {
				stmt.Finalize()
				return out, err
			}
		}
		switch {
		case st.Kind == facet.StepDescribe:
			out = describe(stmt, out)
		case readOnly && !stmt.ReadOnly():
			err = facet.Errorf(facet.CodeReadOnly, "this statement writes")
		default:
			var n uint64
			out, n, err = execute(stmt, st, out)
			rows += n
		}
		// An error of the execution was reported by Step.
		_ = stmt.Finalize()
		if err != nil || st.Kind == facet.StepDescribe {
			return out, err
		}
		if st.Kind == facet.StepExecute {
			break
		}
	}
	return facet.AppendDone(out, facet.Done{
		Changes: db.conn.TotalChanges() - before, LastRowID: db.conn.LastInsertRowID(), RowsOut: rows,
		Duration: time.Since(start), Transaction: !db.conn.AutoCommit(),
	}), nil
}

// single checks that nothing but space and comments is left.
func single(conn *sqlite.Conn, rest []byte) error {
	stmt, _, err := conn.Prepare(rest)
	if err != nil {
		return err
	}
	if stmt != nil {
		stmt.Finalize()
		return facet.Errorf(facet.CodeSQL, "more than one statement; send a script or several statements")
	}
	return nil
}

func execute(stmt *sqlite.Stmt, st *facet.Step, out facet.Result) (facet.Result, uint64, error) {
	if err := bind(stmt, st); err != nil {
		return out, 0, err
	}
	cols := stmt.ColumnCount()
	show := st.Kind == facet.StepExecute && !st.NoRows
	if show && cols > 0 {
		out = appendColumns(stmt, out)
	}
	var rows uint64
	for {
		more, err := stmt.Step()
		if err != nil || !more {
			return out, rows, err
		}
		if !show {
			continue
		}
		rows++
		var at int
		out, at = facet.BeginItem(out, facet.ItemRow)
		for i := range cols {
			out = facet.Result(appendColumn(facet.Values(out), stmt, i))
		}
		out = facet.EndItem(out, at)
	}
}

func appendColumn(dst facet.Values, stmt *sqlite.Stmt, i int) facet.Values {
	switch stmt.ColumnType(i) {
	case sqlite.Integer:
		return facet.AppendInt(dst, stmt.ColumnInt64(i))
	case sqlite.Float:
		return facet.AppendFloat(dst, stmt.ColumnFloat(i))
	case sqlite.Text:
		return facet.AppendText(dst, stmt.ColumnBytes(i))
	case sqlite.Blob:
		return facet.AppendBlob(dst, stmt.ColumnBytes(i))
	}
	return facet.AppendNull(dst)
}

func appendColumns(stmt *sqlite.Stmt, out facet.Result) facet.Result {
	out, at := facet.BeginItem(out, facet.ItemColumns)
	return facet.EndItem(columns(stmt, out), at)
}

func columns(stmt *sqlite.Stmt, out []byte) []byte {
	n := stmt.ColumnCount()
	out = appendUvarint(out, n)
	for i := range n {
		out = facet.AppendStr(out, stmt.ColumnName(i))
		out = facet.AppendStr(out, stmt.ColumnDeclType(i))
	}
	return out
}

func describe(stmt *sqlite.Stmt, out facet.Result) facet.Result {
	out, at := facet.BeginItem(out, facet.ItemDescribe)
	var flags byte
	if stmt.IsExplain() != 0 {
		flags |= 1
	}
	if stmt.ReadOnly() {
		flags |= 2
	}
	out = append(out, flags)
	out = appendUvarint(out, stmt.ParamCount())
	for i := 1; i <= stmt.ParamCount(); i++ {
		out = facet.AppendStr(out, stmt.ParamName(i))
	}
	return facet.EndItem(columns(stmt, out), at)
}

func appendUvarint(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func bind(stmt *sqlite.Stmt, st *facet.Step) error {
	values, err := st.Args.Decode(nil)
	if err != nil {
		return err
	}
	if len(values) != st.NArgs {
		return facet.Errorf(facet.CodeBadRequest, "%d arguments announced, %d there", st.NArgs, len(values))
	}
	if st.Names == nil && len(values) != stmt.ParamCount() {
		return facet.Errorf(facet.CodeBadRequest, "the statement has %d parameters, %d arguments were given", stmt.ParamCount(), len(values))
	}
	for i, v := range values {
		n := i + 1
		if st.Names != nil {
			if n = paramIndex(stmt, st.Names[i]); n == 0 {
				return facet.Errorf(facet.CodeBadRequest, "the statement has no parameter %q", st.Names[i])
			}
		}
		switch v.Type {
		case facet.Integer:
			err = stmt.BindInt64(n, v.Int)
		case facet.Float:
			err = stmt.BindFloat(n, v.Float)
		case facet.Text:
			err = stmt.BindTextBytes(n, v.Bytes)
		case facet.Blob:
			err = stmt.BindBlob(n, v.Bytes)
		default:
			err = stmt.BindNull(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func paramIndex(stmt *sqlite.Stmt, name string) int {
	if n := stmt.ParamIndex(name); n > 0 {
		return n
	}
	for _, sigil := range []string{":", "@", "$"} {
		if n := stmt.ParamIndex(sigil + name); n > 0 {
			return n
		}
	}
	return 0
}

// wrap makes any error one of facet's.
func wrap(err error) *facet.Error {
	var fe *facet.Error
	if errors.As(err, &fe) {
		return fe
	}
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return facet.Errorf(facet.CodeInternal, "%v", err)
	}
	if se.Code.Primary() == sqlite.INTERRUPT {
		return facet.Errorf(facet.CodeCanceled, "the statement was interrupted")
	}
	return &facet.Error{Code: facet.CodeSQL, Message: se.Message, SQLite: int(se.Code), Offset: max(se.Offset, 0)}
}
