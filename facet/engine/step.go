package engine

import (
	"errors"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/sqlite"
)

// step runs one step and appends its items. The error is nil or says why the step
// failed.
func (r *run) step(st *facet.Step) *facet.Error {
	db := r.db
	db.forgetReasons()
	if db.interrupted.Load() && db.isCanceled() {
		return canceledError()
	}
	if r.now.After(db.requestEnd) {
		return timeoutError(db.requestTime, "request")
	}
	db.statementEnd = r.now.Add(db.limits.StatementTime)
	var err *facet.Error
	switch st.Kind {
	case facet.StepExecute:
		err = r.execute(st)
	case facet.StepScript:
		err = r.script(st)
	case facet.StepDescribe:
		err = r.describe(st)
	default:
		err = facet.Errorf(facet.CodeBadRequest, "the step has the unknown kind %d", st.Kind)
	}
	if serr := db.settle(); serr != nil && err == nil {
		err = db.fail(serr, 0)
	}
	return err
}

// execute runs one statement with its arguments.
func (r *run) execute(st *facet.Step) *facet.Error {
	db := r.db
	p, err := db.prepare(st.SQL)
	if err != nil {
		return db.fail(err, 0)
	}
	before := db.changed
	var fe *facet.Error
	if r.guarded && !p.readOnly && db.conn.AutoCommit() && db.mayFail(p) {
		fe = r.executeAlone(p, st)
	} else {
		fe = r.runOne(p, st, true, 0)
	}
	if fe == nil {
		r.done(p.readOnly, before)
	}
	if p.s != nil {
		db.finish(p)
	}
	return fe
}

// executeAlone gives a statement a transaction of its own: INSERT OR FAIL and the
// like would keep the rows before the one that failed.
func (r *run) executeAlone(p *stmt, st *facet.Step) *facet.Error {
	db := r.db
	if err := r.control(sqlBegin); err != nil {
		return db.fail(err, 0)
	}
	r.own = true
	fe := r.runOne(p, st, true, 0)
	if fe == nil {
		p.s.Reset()
		if err := r.control(sqlCommit); err != nil {
			fe = db.fail(err, 0)
		}
	}
	if fe != nil && db.broken == nil && !db.conn.AutoCommit() {
		p.s.Reset()
		db.rollback()
	}
	return fe
}

// done appends the counts of a step.
func (r *run) done(readOnly bool, before int64) {
	db := r.db
	now := time.Now()
	d := facet.Done{
		LastRowID: db.conn.LastInsertRowID(), RowsOut: db.rows,
		Duration: now.Sub(r.now), Transaction: !r.own && !db.conn.AutoCommit(),
	}
	r.now = now
	if !readOnly && db.changed != before {
		d.Changes = db.conn.Changes()
	}
	r.resp.Result = facet.AppendDone(r.resp.Result, d)
}

// admitted asks whether a request may write now (rule R15).
func (db *DB) admitted() *facet.Error {
	if db.admit == nil {
		return nil
	}
	err := db.admit()
	if err == nil {
		return nil
	}
	if fe, ok := errors.AsType[*facet.Error](err); ok {
		return fe
	}
	return facet.Errorf(facet.CodeUnavailable, "the node takes no writes now: %v", err)
}

// runOne runs a prepared statement to its end.
func (r *run) runOne(p *stmt, st *facet.Step, rows bool, base int) *facet.Error {
	db := r.db
	switch {
	case r.inside && p.verb == verbTransaction:
		return &facet.Error{Code: facet.CodeDenied, Message: "an atomic request is a transaction already: BEGIN, COMMIT and ROLLBACK are not allowed in it"}
	case db.readOnly && !p.readOnly:
		if db.elsewhere {
			return errWrites
		}
		return &facet.Error{Code: facet.CodeReadOnly, Message: "the statement writes, and the request may only read"}
	}
	if p.params > 0 || st.NArgs > 0 {
		if err := bind(p, st); err != nil {
			return err
		}
	}
	if !p.readOnly && !db.wrote {
		// COMMIT and ROLLBACK are read-only to SQLite, so what was begun can end.
		if err := db.admitted(); err != nil {
			return err
		}
		db.wrote = true
	}
	if p.verb == verbVacuum {
		db.vacuum = true
		db.conn.SetLimit(sqlite.LimitAttached, 1)
		defer func() {
			db.vacuum = false
			db.conn.SetLimit(sqlite.LimitAttached, 0)
		}()
	}
	db.makesRoom = p.verb == verbDelete || p.verb == verbDrop || p.verb == verbVacuum
	reserve := db.makesRoom && db.openReserve()
	err := r.unjournaled(p, rows && !st.NoRows)
	db.makesRoom = false
	db.touched += int64(db.rows)
	if reserve {
		p.s.Reset()
		db.closeReserve()
	}
	if !p.readOnly {
		db.changed = db.conn.TotalChanges()
	}
	if err != nil || !cacheable(p.verb) || p.verb == verbTransaction {
		db.schemaFails = unknownYet // it may be another schema now
	}
	if err == nil {
		return nil
	}
	fe := db.fail(err, base)
	if sqlite.CodeOf(err).Primary() == sqlite.SCHEMA {
		db.forget(p)
	}
	return fe
}

// unjournaled runs the statement, without SQLite's rollback journal if it can: a
// statement that is a transaction by itself is undone by dropping the stage, and
// SQLite, which knows that it has no journal, drops its page cache (and only if it
// had changed any).
func (r *run) unjournaled(p *stmt, keep bool) error {
	db := r.db
	if p.readOnly || p.journal || !db.conn.AutoCommit() {
		return r.rows(p, keep)
	}
	db.conn.SkipJournal(true)
	err := r.rows(p, keep)
	db.conn.SkipJournal(false)
	if err != nil && db.broken == nil {
		// Nothing may be read before this. What OR FAIL keeps was committed.
		db.store.Discard()
	}
	return err
}

// rows steps the statement to its end and appends columns and rows.
func (r *run) rows(p *stmt, keep bool) error {
	db := r.db
	s := p.s
	db.rows = 0
	more, err := s.Step()
	if err != nil {
		return err
	}
	cols := s.ColumnCount()
	if keep && cols > 0 {
		r.columns(p, cols)
	}
	for more {
		db.rows++
		if keep && !r.row(s, cols) {
			return r.tooLarge(p)
		}
		if more, err = s.Step(); err != nil {
			return err
		}
	}
	return nil
}

// tooLarge stops a statement whose result does not fit. One that writes has
// written already; only an interrupt makes SQLite undo it.
func (r *run) tooLarge(p *stmt) error {
	db := r.db
	e := resultError(db.limits.ResultBytes)
	if p.readOnly {
		return e
	}
	db.reason = e
	db.conn.Interrupt()
	if _, err := p.s.Step(); err != nil {
		return err
	}
	return e
}

// counterReprepare counts how often SQLite prepared a statement again because the
// schema changed.
const counterReprepare sqlite.Counter = 5

// columns appends ItemColumns, built once for a statement and shape of schema.
func (r *run) columns(p *stmt, n int) {
	if shape := p.s.Counter(counterReprepare, false); p.columns == nil || p.shape != shape {
		p.columns, p.shape = appendColumns(p.columns[:0], p.s, n), shape
	}
	dst, at := facet.BeginItem(r.resp.Result, facet.ItemColumns)
	r.resp.Result = facet.EndItem(append(dst, p.columns...), at)
}

// row appends the current row, unless the result gets too long.
func (r *run) row(s *sqlite.Stmt, n int) bool {
	dst, at := facet.BeginItem(r.resp.Result, facet.ItemRow)
	v := facet.Values(dst)
	for i := range n {
		switch s.ColumnType(i) {
		case sqlite.Integer:
			v = facet.AppendInt(v, s.ColumnInt64(i))
		case sqlite.Float:
			v = facet.AppendFloat(v, s.ColumnFloat(i))
		case sqlite.Text:
			b := s.ColumnBytes(i)
			if len(v)+len(b) > r.limit {
				return false
			}
			v = facet.AppendText(v, b)
		case sqlite.Blob:
			b := s.ColumnBytes(i)
			if len(v)+len(b) > r.limit {
				return false
			}
			v = facet.AppendBlob(v, b)
		default:
			v = facet.AppendNull(v)
		}
	}
	if len(v) > r.limit {
		return false
	}
	r.resp.Result = facet.EndItem(facet.Result(v), at)
	return true
}

// script runs any number of statements without arguments. The first that fails
// ends it; those before it stay.
func (r *run) script(st *facet.Step) *facet.Error {
	db := r.db
	switch {
	case st.NArgs > 0:
		return facet.Errorf(facet.CodeBadRequest, "a script takes no arguments")
	case len(st.SQL) > facet.MaxSQLLen:
		return limitError(limitSQLBytes, facet.MaxSQLLen, "the script has %d bytes", len(st.SQL))
	}
	before, rows, wrote := db.changed, uint64(0), false
	for at := 0; ; {
		rest := skipBlank(st.SQL[at:], true)
		at = len(st.SQL) - len(rest)
		if len(rest) == 0 {
			break
		}
		now := time.Now()
		if now.After(db.requestEnd) {
			return timeoutError(db.requestTime, "request")
		}
		if db.interrupted.Load() && db.isCanceled() {
			return canceledError()
		}
		db.statementEnd = now.Add(db.limits.StatementTime)
		p, n, err := db.prepareWindow(rest)
		if err != nil {
			return db.fail(err, at)
		}
		if p != nil {
			fe := r.runOne(p, st, false, at)
			rows += db.rows
			wrote = wrote || !p.readOnly
			db.finish(p)
			if fe != nil {
				return fe
			}
			if err := db.settle(); err != nil {
				return db.fail(err, at)
			}
		}
		if db.broken != nil || n == 0 {
			break
		}
		at += n
	}
	db.rows = rows
	r.done(!wrote, before)
	return nil
}

// prepareWindow prepares the first statement of a long script. SQLite copies all
// it is shown, so it is shown a window, which grows until the end of the statement
// is inside: a script costs time in proportion to its length.
func (db *DB) prepareWindow(sql []byte) (*stmt, int, error) {
	v := verbOf(sql)
	for w := scriptWindow; ; w *= 2 {
		if w >= len(sql) {
			db.forgetReasons()
			return db.prepareNext(sql, v, false)
		}
		db.forgetReasons()
		p, n, err := db.prepareNext(sql[:w], v, false)
		if err == nil && n > 0 && sql[n-1] == ';' {
			return p, n, nil
		}
		if p != nil {
			db.finish(p)
		}
	}
}

// describe tells the shape of a statement without running it.
func (r *run) describe(st *facet.Step) *facet.Error {
	db := r.db
	p, err := db.prepare(st.SQL)
	if err != nil {
		return db.fail(err, 0)
	}
	dst, at := facet.BeginItem(r.resp.Result, facet.ItemDescribe)
	var flags byte
	if p.s.IsExplain() != 0 {
		flags |= 1
	}
	if p.readOnly {
		flags |= 2
	}
	dst = append(dst, flags)
	dst = appendUvarint(dst, uint64(p.params))
	for i := 1; i <= p.params; i++ {
		dst = facet.AppendStr(dst, p.s.ParamName(i))
	}
	dst = appendColumns(dst, p.s, p.s.ColumnCount())
	db.finish(p)
	if len(dst) > r.limit {
		return resultError(db.limits.ResultBytes)
	}
	r.resp.Result = facet.EndItem(dst, at)
	r.now = time.Now()
	return nil
}
