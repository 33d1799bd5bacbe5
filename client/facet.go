package client

import (
	"context"
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
)

// Facet is one facet of the cluster. Making one costs nothing and asks nobody.
type Facet struct {
	client     *Client
	name       facet.Name
	idempotent bool
	readOnly   bool
	read       facet.ReadMode
	bookmark   *Bookmark
}

func (c *Client) facet(name facet.Name) *Facet {
	f := &Facet{client: c, name: name, idempotent: c.opt.Idempotent}
	if c.opt.QuorumReads {
		f.read = facet.ReadQuorum
	}
	return f
}

// Name is the name of the facet.
func (f *Facet) Name() facet.Name { return f.name }

// Idempotent is the same facet with an idempotency key, made by the SDK, on every
// write outside transactions.
func (f *Facet) Idempotent() *Facet {
	g := *f
	g.idempotent = true
	return &g
}

// ReadOnly is the same facet for reads only: the node refuses what writes, and
// every request may be retried.
func (f *Facet) ReadOnly() *Facet {
	g := *f
	g.readOnly = true
	return &g
}

// QuorumReads is the same facet with every read confirmed by a majority of its
// replicas after it has run, so that it is fresh whatever the clocks of the nodes do:
// for nodes that are paused, snapshotted or migrated as virtual machines. It costs a
// round trip between nodes. Writes are confirmed like that always.
func (f *Facet) QuorumReads() *Facet {
	g := *f
	g.read = facet.ReadQuorum
	return &g
}

// FollowerReads is the same facet with reads answered by whatever node of its replica
// set is asked, from what it knows to be committed: they go on while the owner is away
// and cost it nothing, and may be old. With Bookmarked they never show less than what
// was seen before, and wait for it where the node is behind. The node asked is the one
// this client is connected to; one that keeps no copy, or is too far behind, leads to
// the owner, and so do writes and transactions.
func (f *Facet) FollowerReads() *Facet {
	g := *f
	g.read = facet.ReadFollower
	return &g
}

type keyInContext struct{}

// WithKey gives the next write made with the context an idempotency key of your
// own: for a write that is to happen once even when this program is restarted.
// Use a context for one request only.
func WithKey(ctx context.Context, key facet.Key) context.Context {
	return context.WithValue(ctx, keyInContext{}, key)
}

// Result tells what a statement did.
type Result struct {
	RowsAffected int64
	LastInsertID int64
}

// Exec runs one statement and drops its rows.
func (f *Facet) Exec(ctx context.Context, sql string, args ...any) (Result, error) {
	k, err := f.one(ctx, sql, args, facet.StepExecute, true)
	if err == nil {
		err = f.client.do(ctx, k, true)
	}
	if err != nil {
		return Result{}, f.wrap("exec", err)
	}
	res, err := k.result()
	k.free()
	return res, f.wrap("exec", err)
}

// Script runs any number of statements, as a migration or a dump has them. It is
// one request but no transaction, unless the script makes it one.
func (f *Facet) Script(ctx context.Context, sql string) error {
	k, err := f.one(ctx, sql, nil, facet.StepScript, true)
	if err == nil {
		err = f.client.do(ctx, k, true)
	}
	if err != nil {
		return f.wrap("script", err)
	}
	_, err = k.result()
	k.free()
	return f.wrap("script", err)
}

// Query runs one statement and reads its rows. The rows must be closed; reading
// them to the end closes them too.
func (f *Facet) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	r := new(Rows)
	if err := f.query(ctx, r, sql, args); err != nil {
		return nil, err
	}
	return r, nil
}

func (f *Facet) query(ctx context.Context, r *Rows, sql string, args []any) error {
	k, err := f.one(ctx, sql, args, facet.StepExecute, false)
	if err == nil {
		err = f.client.do(ctx, k, false)
	}
	if err != nil {
		return f.wrap("query", err)
	}
	return r.begin(ctx, k, f)
}

// QueryRow runs a query of which at most one row is wanted. Errors wait for Scan,
// which returns sql.ErrNoRows when there is none.
func (f *Facet) QueryRow(ctx context.Context, sql string, args ...any) *Row {
	r := new(Row)
	r.err = f.query(ctx, &r.rows, sql, args)
	return r
}

// Stmt is a statement of a batch.
type Stmt struct {
	SQL  string
	Args []any
}

// StepResult is the outcome of one statement of a batch.
type StepResult struct {
	Result
	Columns []facet.Column
	Rows    [][]facet.Value
	Err     error
	Skipped bool
}

// Batch runs the statements in one transaction, all or nothing, in one round
// trip. The error names the statement that failed.
func (f *Facet) Batch(ctx context.Context, stmts ...Stmt) ([]StepResult, error) {
	res, err := f.steps(ctx, stmts, true)
	if err == nil {
		for i := range res {
			if res[i].Err != nil {
				return res, f.wrap("batch", &StepError{Step: i, Err: res[i].Err})
			}
		}
	}
	return res, f.wrap("batch", err)
}

// Pipeline runs the statements one after the other in one round trip, each its
// own transaction; a failed one does not stop the rest. Look at each Err.
func (f *Facet) Pipeline(ctx context.Context, stmts ...Stmt) ([]StepResult, error) {
	res, err := f.steps(ctx, stmts, false)
	return res, f.wrap("pipeline", err)
}

// StepError is the error of one statement of a Batch.
type StepError struct {
	Step int // from 0
	Err  error
}

func (e *StepError) Error() string { return fmt.Sprintf("statement %d: %v", e.Step, e.Err) }
func (e *StepError) Unwrap() error { return e.Err }

func (f *Facet) steps(ctx context.Context, stmts []Stmt, atomic bool) ([]StepResult, error) {
	if len(stmts) == 0 {
		return nil, nil
	}
	if len(stmts) > facet.MaxSteps {
		return nil, facet.Errorf(facet.CodeLimit, "%d statements, limit %d", len(stmts), facet.MaxSteps)
	}
	k := f.client.newCall()
	steps, write, err := encodeSteps(stmts)
	if err != nil {
		k.free()
		return nil, err
	}
	k.req = facet.Request{Name: f.name, Atomic: atomic, Steps: steps}
	f.finish(ctx, k, write, atomic || len(stmts) == 1)
	if err := f.client.do(ctx, k, true); err != nil {
		return nil, err
	}
	res, err := k.stepResults(len(stmts))
	k.free()
	return res, err
}

func encodeSteps(stmts []Stmt) (steps []facet.Step, write bool, err error) {
	steps = make([]facet.Step, len(stmts))
	var args facet.Values
	for i, s := range stmts {
		if len(s.SQL) > facet.MaxSQLLen {
			return nil, false, sqlTooLong(len(s.SQL))
		}
		from := len(args)
		var names []string
		if args, names, err = appendArgs(args, nil, s.Args); err != nil {
			return nil, false, &StepError{Step: i, Err: err}
		}
		// A slice taken now stays right when args moves: it keeps the old array.
		steps[i] = facet.Step{SQL: []byte(s.SQL), Args: args[from:len(args):len(args)], NArgs: len(s.Args), Names: names}
		write = write || !reads(s.SQL)
	}
	return steps, write, nil
}

// one prepares a call of one step.
func (f *Facet) one(ctx context.Context, sql string, args []any, kind facet.StepKind, noRows bool) (*call, error) {
	if len(sql) > facet.MaxSQLLen {
		return nil, sqlTooLong(len(sql))
	}
	k := f.client.newCall()
	if err := k.setStep(sql, args, kind, noRows); err != nil {
		k.free()
		return nil, err
	}
	k.req = facet.Request{Name: f.name, Steps: k.steps[:]}
	f.finish(ctx, k, kind == facet.StepScript || !reads(sql), true)
	return k, nil
}

func (k *call) setStep(sql string, args []any, kind facet.StepKind, noRows bool) error {
	var err error
	k.sql = append(k.sql[:0], sql...)
	k.args, k.names, err = appendArgs(k.args[:0], k.names[:0], args)
	if err != nil {
		return err
	}
	k.steps[0] = facet.Step{SQL: k.sql, Args: k.args, NArgs: len(args), Kind: kind, NoRows: noRows}
	if len(k.names) > 0 {
		k.steps[0].Names = k.names
	}
	return nil
}

// finish decides what a retry may do and encodes the request.
func (f *Facet) finish(ctx context.Context, k *call, write, keyable bool) {
	k.eff = effRead
	k.req.Read = f.read
	k.follow(f.bookmark)
	k.req.ReadOnly = f.readOnly || !write
	if !k.req.ReadOnly {
		k.eff = effWrite
		k.req.Read = f.readInTx() // a follower would only send it on
		if keyable {
			if key, ok := ctx.Value(keyInContext{}).(facet.Key); ok {
				k.req.Key = key
			} else if f.idempotent {
				k.req.Key, k.ownKey = f.client.keys.next(f.name), true
			}
			if !k.req.Key.IsZero() {
				k.eff = effKeyed
			}
		}
	}
	k.encode(ctx)
}

// rekey gives a request that was not executed another key.
func (k *call) rekey(ctx context.Context, key facet.Key) {
	k.req.Key = key
	k.encode(ctx)
}

// encode makes the frame. The node is told how much time is left, so that it does
// not work for somebody who is gone.
func (k *call) encode(ctx context.Context) {
	if d, ok := ctx.Deadline(); ok {
		k.req.Timeout = max(time.Until(d), time.Microsecond)
	}
	k.name(ctx)
	k.frame = wire.AppendRequest(k.frame[:0], 0, &k.req)
}

// readInTx is how transactions read, and what writes: at the owner.
func (f *Facet) readInTx() facet.ReadMode {
	if f.read == facet.ReadFollower {
		return facet.ReadOwner
	}
	return f.read
}

func sqlTooLong(n int) error {
	e := facet.Errorf(facet.CodeLimit, "the SQL text has %d bytes, limit %d", n, facet.MaxSQLLen)
	e.Limit = "sql_bytes"
	return e
}

func (f *Facet) wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %v: %w", verb, f.name, err)
}
