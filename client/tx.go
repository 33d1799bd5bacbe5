package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/facet"
)

// Tx is an interactive transaction. While it is open it holds the facet: nobody
// else's statements run there, so keep it short; the node rolls it back when it
// is idle or open for too long (facet.ErrTxClosed). It lives and dies with one
// connection. It is for one goroutine.
type Tx struct {
	f    *Facet
	conn *conn
	id   facet.TxID
	done atomic.Bool

	// moved: it was rolled back because its connection or its owner went.
	moved bool
}

// Begin opens a transaction that may write (BEGIN IMMEDIATE), or one that reads
// when the facet is ReadOnly. A facet held by another transaction is waited for.
func (f *Facet) Begin(ctx context.Context) (*Tx, error) {
	sql := "BEGIN IMMEDIATE"
	if f.readOnly {
		sql = "BEGIN"
	}
	k := f.client.newCall()
	if err := k.setStep(sql, nil, facet.StepExecute, true); err != nil {
		k.free()
		return nil, err
	}
	k.req = facet.Request{Name: f.name, KeepTx: true, ReadOnly: f.readOnly, Read: f.readInTx(), Steps: k.steps[:]}
	k.follow(f.bookmark)
	k.eff = effRead // a transaction that was opened and lost is rolled back
	k.encode(ctx)
	if err := f.client.do(ctx, k, true); err != nil {
		return nil, f.wrap("begin", err)
	}
	tx := &Tx{f: f, conn: k.conn, id: k.tx}
	_, err := k.result()
	k.free()
	if err == nil && tx.id.IsZero() {
		err = badAnswer(errors.New("it names no transaction"))
	}
	if err != nil {
		return nil, f.wrap("begin", err)
	}
	return tx, nil
}

// Tx runs fn in a transaction and commits it, or rolls it back when fn fails or
// panics.
//
// A transaction dies with its connection and with the ownership it was begun
// under. When it surely was rolled back that way, fn is called again in a new
// transaction, for as long as other calls are retried; so what fn does beside the
// transaction must do no harm when it is done twice. For that fn must return the
// error of the statement that failed, or one that wraps it. fn is not called again
// when the node ended the transaction for being open too long, or when nobody
// knows whether the commit took effect (facet.ErrUnknownOutcome).
func (f *Facet) Tx(ctx context.Context, fn func(*Tx) error) error {
	begin := time.Now()
	for a := (attempt{}); ; a.pauses++ {
		tx, err := f.Begin(ctx)
		if err != nil {
			return err
		}
		err = tx.do(ctx, fn)
		if err == nil || !tx.moved || !errors.Is(err, facet.ErrTxClosed) {
			return err
		}
		a.jitter = rand.Float64()
		pause := backoff(a)
		if pause >= f.client.timeLeft(ctx, begin) || sleep(ctx, pause) != nil {
			return err
		}
	}
}

func (tx *Tx) do(ctx context.Context, fn func(*Tx) error) error {
	defer tx.Rollback(ctx) // nothing after Commit
	if err := fn(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// send runs one step of the transaction.
func (tx *Tx) send(ctx context.Context, sql string, args []any, kind facet.StepKind, noRows, whole bool, eff effect) (*call, error) {
	if tx.done.Load() {
		return nil, facet.Errorf(facet.CodeTxClosed, "the transaction is over")
	}
	if len(sql) > facet.MaxSQLLen {
		return nil, sqlTooLong(len(sql))
	}
	k := tx.f.client.newCall()
	if err := k.setStep(sql, args, kind, noRows); err != nil {
		k.free()
		return nil, err
	}
	k.req = facet.Request{Name: tx.f.name, Tx: tx.id, KeepTx: true, ReadOnly: tx.f.readOnly, Read: tx.f.readInTx(), Steps: k.steps[:]}
	k.follow(tx.f.bookmark)
	k.eff = eff
	k.node = tx.conn.node
	k.encode(ctx)
	return k, tx.run(ctx, k, whole)
}

// run is do for a transaction: there is one connection and no other.
func (tx *Tx) run(ctx context.Context, k *call, whole bool) error {
	begin := time.Now()
	for a := (attempt{effect: k.eff}); ; a.try++ {
		st := answered
		err := tx.conn.send(ctx, k)
		if err != nil {
			st = unsentStage(ctx, err)
		} else if st, err = k.wait(ctx, tx.conn, whole); err == nil {
			if whole {
				tx.note(k)
			}
			return nil
		}
		a.observe(st, err, tx.f.client.timeLeft(ctx, begin))
		act, pause, maybe := decide(a)
		a.maybe = maybe
		if act == again {
			a.pauses++
			if werr := sleep(ctx, pause); werr != nil {
				return k.fail(giveUp, dropped, errors.Join(werr, err))
			}
			continue
		}
		if act == txGone || act == unknown || errors.Is(err, facet.ErrTxClosed) {
			tx.done.Store(true)
		}
		if act == txGone {
			tx.moved = true
			tx.f.client.hear(tx.f.name, tx.conn.node, st, a.code, err)
		}
		return k.fail(act, st, err)
	}
}

// note looks whether the transaction is still open after an answer.
func (tx *Tx) note(k *call) {
	if k.tx != tx.id {
		tx.done.Store(true)
	}
}

// Exec runs one statement of the transaction and drops its rows.
func (tx *Tx) Exec(ctx context.Context, sql string, args ...any) (Result, error) {
	eff := effInTx
	if commits(sql) {
		eff = effCommit
	}
	return tx.exec(ctx, "exec", sql, args, facet.StepExecute, eff)
}

// Script runs any number of statements inside the transaction. As they may end it,
// facet.ErrUnknownOutcome means what it means for Commit.
func (tx *Tx) Script(ctx context.Context, sql string) error {
	_, err := tx.exec(ctx, "script", sql, nil, facet.StepScript, effCommit)
	return err
}

func (tx *Tx) exec(ctx context.Context, verb, sql string, args []any, kind facet.StepKind, eff effect) (Result, error) {
	k, err := tx.send(ctx, sql, args, kind, true, true, eff)
	if err != nil {
		return Result{}, tx.f.wrap(verb, err)
	}
	res, err := k.result()
	k.free()
	return res, tx.f.wrap(verb, err)
}

// Query runs one statement of the transaction and reads its rows, which must be
// closed before the next statement.
func (tx *Tx) Query(ctx context.Context, sql string, args ...any) (*Rows, error) {
	r := new(Rows)
	if err := tx.query(ctx, r, sql, args); err != nil {
		return nil, err
	}
	return r, nil
}

func (tx *Tx) query(ctx context.Context, r *Rows, sql string, args []any) error {
	eff := effInTx
	if commits(sql) {
		eff = effCommit
	}
	k, err := tx.send(ctx, sql, args, facet.StepExecute, false, false, eff)
	if err != nil {
		return tx.f.wrap("query", err)
	}
	return r.begin(ctx, k, tx.f)
}

// QueryRow is Facet.QueryRow inside the transaction.
func (tx *Tx) QueryRow(ctx context.Context, sql string, args ...any) *Row {
	r := new(Row)
	r.err = tx.query(ctx, &r.rows, sql, args)
	return r
}

// Commit makes the transaction durable. facet.ErrUnknownOutcome means that the
// connection was lost before the answer.
func (tx *Tx) Commit(ctx context.Context) error {
	if tx.done.Load() {
		return tx.f.wrap("commit", facet.Errorf(facet.CodeTxClosed, "the transaction is over"))
	}
	_, err := tx.exec(ctx, "commit", "COMMIT", nil, facet.StepExecute, effCommit)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		tx.done.Store(true) // in the air; a rollback cannot help either
	}
	return err
}

// Rollback undoes the transaction. It does nothing when the transaction is over,
// so it can be deferred. It is tried even when ctx has ended.
func (tx *Tx) Rollback(ctx context.Context) error {
	if tx.done.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_, err := tx.exec(ctx, "rollback", "ROLLBACK", nil, facet.StepExecute, effInTx)
	tx.done.Store(true)
	if errors.Is(err, facet.ErrTxClosed) {
		return nil // rolled back already
	}
	return err
}

// Done reports whether the transaction is over, as far as the SDK knows.
func (tx *Tx) Done() bool { return tx.done.Load() || !tx.conn.alive() }
