package hrana

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// session is one HTTP request's use of a stream.
type session struct {
	h        *Handler
	ctx      context.Context
	s        *stream
	readOnly bool // the caller may only read

	ran   bool         // a statement of this HTTP request may have been executed
	moved *facet.Error // not_owner, while none was: another node may answer it all
}

// lookUp finds the SQL of a text.
func (ss *session) lookUp(t text) ([]byte, error) {
	switch {
	case t.hasSQL && t.hasID:
		return nil, malformed("sql and sql_id together")
	case t.hasSQL:
		return t.sql, nil
	case !t.hasID:
		return nil, malformed("neither sql nor sql_id")
	}
	sql, ok := ss.s.texts[t.id]
	if !ok {
		return nil, malformed("there is no stored SQL text with sql_id %d", t.id)
	}
	return sql, nil
}

func (ss *session) store(t text) error {
	s := ss.s
	if _, there := s.texts[t.id]; there {
		return malformed("sql_id %d is in use; close it first", t.id)
	}
	if len(s.texts) == MaxStoredTexts || s.stored+len(t.sql) > MaxStoredLen {
		return &facet.Error{Code: facet.CodeLimit, Limit: "stored_sql",
			Message: fmt.Sprintf("a stream stores at most %d SQL texts of %d bytes in all; close some with close_sql", MaxStoredTexts, MaxStoredLen)}
	}
	if err := ss.h.table.reserve(len(t.sql)); err != nil {
		return err
	}
	if s.texts == nil {
		s.texts = map[int32][]byte{}
	}
	// The text outlives the body it came in.
	s.texts[t.id] = append(make([]byte, 0, len(t.sql)), t.sql...)
	s.stored += len(t.sql)
	return nil
}

func (ss *session) forget(id int32) {
	s := ss.s
	if sql, there := s.texts[id]; there {
		delete(s.texts, id)
		s.stored -= len(sql)
		ss.h.table.release(len(sql))
	}
}

// run executes the steps of one stream request in the stream's transaction.
func (ss *session) run(steps []facet.Step) (facet.Result, error) {
	s := ss.s
	readOnly, err := ss.prepare(steps)
	if err != nil {
		return nil, err
	}
	if s.aborted {
		if done, err := ss.endAborted(steps); done || err != nil {
			return facet.AppendDone(nil, facet.Done{}), err
		}
	}
	req := facet.Request{
		Name: s.name, Tx: s.tx, KeepTx: true, Steps: steps,
		ReadOnly: ss.readOnly || s.readOnly || readOnly,
	}
	resp, err := service.Do(ss.ctx, ss.h.svc, req)
	if err != nil {
		return nil, ss.failed(err)
	}
	ss.ran = true
	if s.tx = resp.Tx; s.tx.IsZero() {
		s.readOnly = false
	} else if readOnly {
		s.readOnly = true
	}
	return resp.Result, nil
}

// failed notes what an error of a whole request means for the stream, and makes
// it the one to answer with.
func (ss *session) failed(err error) error {
	s := ss.s
	var fe *facet.Error
	if !errors.As(err, &fe) {
		ss.ran = true
		return err
	}
	if fe.Code == facet.CodeNotOwner && s.tx.IsZero() {
		if !ss.ran && ss.h.carries() {
			ss.moved = fe
			return err
		}
		return facet.Errorf(facet.CodeNotOwner, "the facet moves to another node just now; nothing of this was done, send it again")
	}
	if class := fe.Code.Class(); class != facet.Retry && class != facet.Redirect {
		ss.ran = true
	}
	if s.tx.IsZero() || fe.Code != facet.CodeTxClosed && fe.Code != facet.CodeNotOwner {
		return err
	}
	// Statements the client sends before it has understood must not run outside
	// of the transaction they were meant for.
	s.tx, s.readOnly, s.aborted = facet.TxID{}, false, true
	if fe.Code == facet.CodeNotOwner {
		return errAborted
	}
	return err
}

// leave takes back what this request made of its stream and of the answer: another
// node does it all again.
func (ss *session) leave(w http.ResponseWriter) *facet.Error {
	ss.h.table.drop(ss.s)
	w.Header().Del("Content-Type")
	w.Header().Del("Cache-Control")
	return ss.moved
}

// endAborted handles a request on a stream whose transaction the service ended.
// done means that it needs no execution.
func (ss *session) endAborted(steps []facet.Step) (done bool, err error) {
	v := verbOther
	if len(steps) > 0 && steps[0].Condition == nil && steps[0].Kind != facet.StepDescribe {
		v, _ = transactionVerb(steps[0].SQL)
	}
	switch v {
	case verbBegin:
		ss.s.aborted = false
		return false, nil
	case verbRollback:
		ss.s.aborted = false
		// With more steps behind it the ROLLBACK goes its way and fails as it does
		// outside of a transaction; alone it has what it wants.
		return len(steps) == 1, nil
	case verbCommit:
		ss.s.aborted = false
	}
	return false, errAborted
}

// prepare rewrites libSQL's BEGIN TRANSACTION READONLY, which promises for the
// whole transaction what Request.ReadOnly enforces.
func (ss *session) prepare(steps []facet.Step) (readOnly bool, err error) {
	for i := range steps {
		st := &steps[i]
		if len(st.SQL) > facet.MaxSQLLen {
			return false, malformed("SQL text of %d bytes, limit %d", len(st.SQL), facet.MaxSQLLen)
		}
		v, rest := transactionVerb(st.SQL)
		if v != verbBeginReadOnly {
			continue
		}
		if i > 0 {
			return false, malformed("BEGIN TRANSACTION READONLY must be the first statement of a batch")
		}
		readOnly = true
		st.SQL = append(append(make([]byte, 0, len(begin)+len(rest)), begin...), rest...)
	}
	return readOnly, nil
}

// rollBack ends the stream's transaction, if there is one.
func (ss *session) rollBack() {
	s := ss.s
	if s.tx.IsZero() {
		return
	}
	// The client may be gone already; the facet must not wait for the limit.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ss.ctx), closeTimeout)
	defer cancel()
	_, err := service.Do(ctx, ss.h.svc, facet.Request{
		Name: s.name, Tx: s.tx, KeepTx: true, Steps: []facet.Step{{SQL: []byte("ROLLBACK")}},
	})
	if err != nil && !errors.Is(err, facet.ErrTxClosed) && !errors.Is(err, facet.ErrNotOwner) {
		ss.h.log.Warn("roll back the transaction of a closed stream", "facet", s.name.String(), "err", err)
	}
	s.tx, s.readOnly = facet.TxID{}, false
}
