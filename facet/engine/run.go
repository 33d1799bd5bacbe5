package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/facetd/facetd/facet"
)

// RunOptions refine one request. The zero value adds nothing to the limits.
type RunOptions struct {
	// Deadline ends the request early; zero means none.
	Deadline time.Time
	// Canceled is asked, on the goroutine of Run, whether this request was given
	// up, after Interrupt was called. Without it every Interrupt stops whatever
	// runs.
	Canceled func() bool
	// Admit is asked before the first statement of the request that writes is run;
	// its error is the statement's. Nil admits everything.
	Admit func() error
	// Grow is asked, within the transaction, before the database grows by that many bytes
	// beyond its size and what was asked for before; its error rolls the transaction back.
	// Statements that make room may grow by a little in spite of it. Nil lets it grow.
	Grow func(bytes int64) error
}

// outcome is how a step ended, for the conditions of later ones.
type outcome uint8

const (
	notRun outcome = iota
	succeeded
	failed
)

// Run executes the request and appends its result to resp.Result. It sets
// resp.Position, also with an error, to the newest commit the answer, or the
// error, may have seen; resp.Tx is the caller's, who finds out by InTx.
//
// An error means the request as a whole did not happen: it was refused, or it was
// atomic (or had a key) and was rolled back. In a request that is neither, a step
// that fails leaves an ItemError in the result and the next step goes on. Errors
// are *facet.Error, or ErrClosed.
func (db *DB) Run(req *facet.Request, resp *facet.Response) error {
	return db.RunWith(req, resp, RunOptions{})
}

// RunWith is Run with options.
func (db *DB) RunWith(req *facet.Request, resp *facet.Response, opts RunOptions) error {
	if err := db.usable(); err != nil {
		return err
	}
	if err := checkRequest(req, !db.inTx); err != nil {
		resp.Position = db.store.Position()
		return err
	}
	r := run{db: db, req: req, resp: resp, base: len(resp.Result)}
	err := r.begin(opts)
	if err == nil {
		switch {
		case !req.Key.IsZero():
			err = r.keyed()
		case req.Atomic:
			err = r.atomic()
		default:
			err = r.steps(false)
		}
	}
	return r.end(err)
}

// run is one request under way.
type run struct {
	db      *DB
	req     *facet.Request
	resp    *facet.Response
	base    int       // where its result begins
	limit   int       // where its result must end
	commits uint64    // of the DB when it began
	changed int64     // rows changed until then
	now     time.Time // when the last step ended
	// guarded is set while an atomic request of one statement runs without a
	// transaction of its own.
	guarded bool
	inside  bool // an atomic request: it may not end its own transaction
	own     bool // the open transaction is the request's own, not the client's
}

func (r *run) begin(opts RunOptions) error {
	db := r.db
	r.now = time.Now()
	r.limit = r.base + db.limits.ResultBytes
	r.commits = db.commits
	r.changed, db.touched = db.changed, 0
	db.requestTime = db.limits.RequestTime
	if t := r.req.Timeout; t > 0 && t < db.requestTime {
		db.requestTime = t
	}
	db.requestEnd = r.now.Add(db.requestTime)
	if !opts.Deadline.IsZero() && opts.Deadline.Before(db.requestEnd) {
		db.requestEnd, db.requestTime = opts.Deadline, opts.Deadline.Sub(r.now)
	}
	db.readOnly, db.wrote, db.canceled, db.admit = r.req.ReadOnly, false, opts.Canceled, opts.Admit
	db.grow = opts.Grow
	if !db.inTx {
		db.grown = db.store.Pages()
	}
	db.interrupted.Store(false)
	if opts.Canceled != nil && opts.Canceled() {
		return &facet.Error{Code: facet.CodeCanceled, Message: "canceled before it ran"}
	}
	return nil
}

// end brings the connection to rest and finds the error of the request, if any.
func (r *run) end(err error) error {
	db := r.db
	if db.broken == nil && !db.conn.AutoCommit() && !r.req.KeepTx && r.req.Tx.IsZero() {
		db.rollback()
		if err == nil {
			more := ""
			if db.commits != r.commits {
				more = "; what was committed before it stays"
			}
			err = facet.Errorf(facet.CodeBadRequest, "the request began a transaction and did not end it, so it was rolled back%s; add COMMIT, or keep the transaction open", more)
		}
	}
	if serr := db.settle(); err == nil {
		err = serr
	}
	if db.broken == nil && db.marks != 0 && db.conn.AutoCommit() {
		if terr := db.takeBack(); err == nil {
			err = terr
		}
	}
	db.inTx = db.broken == nil && !db.conn.AutoCommit()
	db.touched += max(0, db.changed-r.changed) // a new connection begins at zero
	db.conn.Park()                             // facets that take turns share the C stack, and the processor's cache
	db.canceled, db.admit, db.grow, db.readOnly = nil, nil, nil, false
	if err != nil {
		r.resp.Result = r.resp.Result[:r.base]
	}
	r.resp.Position = db.store.Position()
	return err
}

// checkRequest refuses what cannot be run, before anything is.
func checkRequest(req *facet.Request, autocommit bool) error {
	if len(req.Steps) == 0 {
		return facet.Errorf(facet.CodeBadRequest, "the request has no steps")
	}
	if len(req.Steps) > facet.MaxSteps {
		return limitError(limitSteps, facet.MaxSteps, "the request has %d steps", len(req.Steps))
	}
	if !req.Key.IsZero() {
		switch {
		case !req.Atomic && len(req.Steps) > 1:
			return facet.Errorf(facet.CodeBadRequest, "a request of several steps with an idempotency key must be atomic")
		case !req.Tx.IsZero() || req.KeepTx || !autocommit:
			return facet.Errorf(facet.CodeBadRequest, "a request with an idempotency key cannot be part of an interactive transaction")
		case req.Key.N > 1<<63-1:
			return facet.Errorf(facet.CodeBadRequest, "idempotency key number %d is above 2^63-1", req.Key.N)
		}
	}
	for i := range req.Steps {
		st := &req.Steps[i]
		if st.NArgs > facet.MaxArgs {
			return limitError(limitArgs, facet.MaxArgs, "step %d has %d arguments", i+1, st.NArgs)
		}
		if st.Condition != nil {
			if err := checkCondition(st.Condition, i, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkCondition(c *facet.Condition, step, depth int) error {
	if depth > facet.MaxConditionDepth {
		return limitError(limitConditionDepth, facet.MaxConditionDepth, "the condition of step %d is nested too deep", step+1)
	}
	switch c.Op {
	case facet.CondOK, facet.CondError:
		if c.Step < 0 || c.Step >= step {
			return facet.Errorf(facet.CodeBadRequest, "the condition of step %d is about step %d, which does not come before it", step+1, c.Step+1)
		}
	case facet.CondNot:
		if len(c.Conds) != 1 {
			return facet.Errorf(facet.CodeBadRequest, "the condition of step %d negates %d conditions, not one", step+1, len(c.Conds))
		}
	case facet.CondAnd, facet.CondOr, facet.CondAutocommit:
	default:
		return facet.Errorf(facet.CodeBadRequest, "the condition of step %d has the unknown operator %d", step+1, c.Op)
	}
	for i := range c.Conds {
		if err := checkCondition(&c.Conds[i], step, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) holds(c *facet.Condition) bool {
	switch c.Op {
	case facet.CondOK:
		return db.outcomes[c.Step] == succeeded
	case facet.CondError:
		return db.outcomes[c.Step] == failed
	case facet.CondNot:
		return !db.holds(&c.Conds[0])
	case facet.CondAnd:
		for i := range c.Conds {
			if !db.holds(&c.Conds[i]) {
				return false
			}
		}
		return true
	case facet.CondOr:
		for i := range c.Conds {
			if db.holds(&c.Conds[i]) {
				return true
			}
		}
		return false
	}
	return db.conn.AutoCommit()
}

// steps runs all steps. If the request is atomic the first error ends it.
func (r *run) steps(atomic bool) error {
	db := r.db
	n := len(r.req.Steps)
	db.outcomes = slices.Grow(db.outcomes[:0], n)[:n]
	clear(db.outcomes)
	for i := range r.req.Steps {
		st := &r.req.Steps[i]
		if st.Condition != nil && !db.holds(st.Condition) {
			dst, at := facet.BeginItem(r.resp.Result, facet.ItemSkipped)
			r.resp.Result = facet.EndItem(dst, at)
			continue
		}
		mark := len(r.resp.Result)
		err := r.step(st)
		if db.broken != nil {
			return db.brokenError()
		}
		if err == nil {
			db.outcomes[i] = succeeded
			continue
		}
		db.outcomes[i] = failed
		switch {
		case err == errWrites:
			return err
		case atomic:
			if n > 1 {
				err.Message = fmt.Sprintf("step %d of %d: %s", i+1, n, err.Message)
			}
			return err
		case err.Code == facet.CodeCanceled && db.commits == r.commits:
			return err // nothing was done, so the caller need not read how far it came
		}
		r.resp.Result = facet.AppendErrorItem(r.resp.Result[:mark], err)
	}
	return nil
}

// atomic runs the steps in one transaction. A single statement is one by itself.
// A transaction begins deferred: nobody else can take the write lock, and on an
// empty facet an immediate one would create the database even if nothing is
// written.
func (r *run) atomic() error {
	db := r.db
	r.inside = true
	if len(r.req.Steps) == 1 && r.req.Steps[0].Kind != facet.StepScript {
		r.guarded = true
		return r.steps(true)
	}
	begin, commit, undo := sqlBegin, sqlCommit, ""
	r.own = db.conn.AutoCommit()
	if !db.conn.AutoCommit() {
		begin, commit, undo = "SAVEPOINT "+reserved+"_atomic", "RELEASE "+reserved+"_atomic", "ROLLBACK TO "+reserved+"_atomic"
	}
	if err := r.control(begin); err != nil {
		return err
	}
	err := r.steps(true)
	if err == nil {
		if err = r.control(commit); err == nil {
			return nil
		}
	}
	if db.broken != nil || db.conn.AutoCommit() {
		return err
	}
	if undo == "" {
		db.rollback()
		return err
	}
	if uerr := db.exec([]byte(undo)); uerr == nil {
		uerr = db.exec([]byte(commit))
		if uerr == nil {
			return err
		}
	}
	db.rollback() // the whole transaction, for its savepoint is lost
	return err
}

const (
	sqlBegin  = "BEGIN"
	sqlCommit = "COMMIT"
)

// control runs BEGIN, COMMIT and the like.
func (r *run) control(sql string) error {
	db := r.db
	db.forgetReasons()
	was := db.internal
	db.internal = true
	defer func() { db.internal = was }()
	var err error
	switch sql {
	case sqlBegin:
		err = db.stepCached(&db.keys.begin, sql)
	case sqlCommit:
		err = db.stepCached(&db.keys.commit, sql)
	default:
		err = db.conn.ExecScript([]byte(sql))
	}
	if db.broken != nil {
		return db.brokenError()
	}
	if err != nil {
		return db.fail(err, 0)
	}
	return nil
}

func (db *DB) forgetReasons() {
	db.denied, db.reason = nil, nil
	db.file.high = db.store.StagedPages()
}
