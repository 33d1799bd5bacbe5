// Package nativetest is a small service.Service in memory, for the tests of the
// native protocol's two sides. It owns a toy of a facet: an ordered list of the
// writes that were committed, transactions that hold it, idempotency keys. It
// refuses to be SQL: a handful of words are understood. Only tests import it.
//
//	SELECT ROWS n size     n rows of one blob of size bytes
//	SELECT COUNT           one row: how many writes are committed (and in this transaction)
//	SELECT ARGS            one row: the arguments
//	INSERT …               one write; the row id is its number
//	BEGIN… COMMIT ROLLBACK as usual
//	FAIL …                 an SQL error
//	WAIT                   until canceled, or Release
//
// Requests run in the goroutine that submits them, or, with Async, each in its
// own, so that answers leave in any order.
package nativetest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// Incarnation is that of every facet of the toy.
var Incarnation = facet.Incarnation{0xfa, 15: 1}

// Service is the toy. The zero value is usable. The exported fields are set
// before it serves.
type Service struct {
	// Before may answer a request in the service's place: with an error, or by
	// returning nil after doing something.
	Before func(*facet.Request) error
	// After runs when a request is done and before its answer leaves.
	After func(*facet.Request)
	// Async runs every request in a goroutine of its own.
	Async bool

	epoch func(facet.Name) facet.Epoch // of answers; nil is 1

	mu      sync.Mutex
	running int
	idle    *sync.Cond
	facets  map[facet.Name]*state
	waiting []*waiter
	seen    chan struct{} // closed when something began to wait
}

type state struct {
	writes int
	keys   map[facet.Key]int
	tx     facet.TxID
	inTx   int
}

type waiter struct {
	release chan struct{}
	once    sync.Once
}

// Wait waits until every request is answered.
func (s *Service) Wait() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.running > 0 {
		if s.idle == nil {
			s.idle = sync.NewCond(&s.mu)
		}
		s.idle.Wait()
	}
}

// Writes is how many writes of the facet are committed.
func (s *Service) Writes(name facet.Name) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facet(name).writes
}

// OpenTx reports whether a transaction holds the facet.
func (s *Service) OpenTx(name facet.Name) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.facet(name).tx.IsZero()
}

// Abort rolls the facet's transaction back, as the node does when the facet moves.
func (s *Service) Abort(name facet.Name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.facet(name)
	f.tx, f.inTx = facet.TxID{}, 0
}

// Release lets everything go on that WAITs.
func (s *Service) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiting {
		w.once.Do(func() { close(w.release) })
	}
	s.waiting = nil
}

// Waiting is closed as soon as a request WAITs.
func (s *Service) Waiting() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitingLocked()
}

func (s *Service) waitingLocked() chan struct{} {
	if s.seen == nil {
		s.seen = make(chan struct{})
	}
	return s.seen
}

func (s *Service) facet(name facet.Name) *state {
	f := s.facets[name]
	if f == nil {
		if s.facets == nil {
			s.facets = make(map[facet.Name]*state)
		}
		f = &state{keys: make(map[facet.Key]int)}
		s.facets[name] = f
	}
	return f
}

// Submit is service.Service's.
func (s *Service) Submit(call *service.Call) {
	s.mu.Lock()
	s.running++
	s.mu.Unlock()
	if s.Async || len(call.Request.Steps) > 0 && string(call.Request.Steps[0].SQL) == "WAIT" {
		go s.serve(call)
		return
	}
	s.serve(call)
}

func (s *Service) serve(call *service.Call) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.running--; s.running == 0 && s.idle != nil {
			s.idle.Broadcast()
		}
	}()
	r := &call.Request
	var err error
	if s.Before != nil {
		err = s.Before(r)
	}
	if err == nil {
		err = s.run(call)
	}
	if s.After != nil {
		s.After(r)
	}
	call.Err = err
	call.Done(call)
}

func (s *Service) run(call *service.Call) error {
	r := &call.Request
	if len(r.Steps) == 1 && string(r.Steps[0].SQL) == "WAIT" {
		return s.wait(call)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.facet(r.Name)
	switch {
	case !r.Tx.IsZero() && r.Tx != f.tx:
		return facet.Errorf(facet.CodeTxClosed, "no such transaction")
	case r.Tx.IsZero() && !f.tx.IsZero():
		return facet.Errorf(facet.CodeBusy, "a transaction holds the facet")
	}
	if n, ok := f.keys[r.Key]; ok {
		call.Response.Result = facet.AppendDone(call.Response.Result, facet.Done{Changes: 1, LastRowID: int64(n)})
		return nil
	}
	if !r.After.IsZero() && r.After.Facet != Incarnation {
		return facet.Errorf(facet.CodeBookmark, "the bookmark is of another facet")
	}
	before := f.writes
	for i := range r.Steps {
		if err := s.step(call, f, &r.Steps[i]); err != nil {
			e := facet.Errorf(facet.CodeSQL, "%v", err)
			e.SQLite = 1
			if r.Atomic {
				f.writes = before
				return e
			}
			call.Response.Result = facet.AppendErrorItem(call.Response.Result, e)
		}
	}
	if !r.Key.IsZero() {
		f.keys[r.Key] = f.writes
	}
	if !f.tx.IsZero() && !r.KeepTx {
		f.tx, f.inTx = facet.TxID{}, 0
		return facet.Errorf(facet.CodeTxClosed, "the transaction was left open")
	}
	call.Response.Tx = f.tx
	call.Response.Position = facet.Position{Epoch: 1, Seq: facet.Seq(f.writes + 1)}
	if s.epoch != nil {
		call.Response.Position.Epoch = s.epoch(r.Name)
	}
	if p := call.Response.Position; r.Bookmark {
		call.Response.Bookmark = facet.Bookmark{Facet: Incarnation, Epoch: p.Epoch, Seq: p.Seq}
	}
	return nil
}

func (s *Service) step(call *service.Call, f *state, st *facet.Step) error {
	sql := string(st.SQL)
	res := call.Response.Result
	defer func() { call.Response.Result = res }()
	word, _, _ := strings.Cut(sql, " ")
	done := facet.Done{Transaction: !f.tx.IsZero()}
	switch word {
	case "SELECT":
		if !call.Request.ReadOnly && f.tx.IsZero() && len(call.Request.Steps) == 1 {
			return fmt.Errorf("the SDK did not mark a read as one")
		}
		return selectRows(&res, sql, f, st, done)
	case "INSERT":
		if call.Request.ReadOnly {
			return fmt.Errorf("a write in a read-only request")
		}
		if f.tx.IsZero() {
			f.writes++
		} else {
			f.inTx++
		}
		done.Changes, done.LastRowID = 1, int64(f.writes+f.inTx)
	case "BEGIN":
		f.tx, f.inTx = facet.NewTxID(), 0
	case "COMMIT":
		f.writes += f.inTx
		f.tx, f.inTx = facet.TxID{}, 0
	case "ROLLBACK":
		f.tx, f.inTx = facet.TxID{}, 0
	default:
		return fmt.Errorf("near %.40q: syntax error", sql)
	}
	res = facet.AppendDone(res, done)
	return nil
}

func selectRows(res *facet.Result, sql string, f *state, st *facet.Step, done facet.Done) error {
	out := *res
	var n, size int
	switch {
	case sql == "SELECT COUNT":
		out = columns(out, "n")
		var at int
		out, at = facet.BeginItem(out, facet.ItemRow)
		out = facet.EndItem(facet.Result(facet.AppendInt(facet.Values(out), int64(f.writes+f.inTx))), at)
		done.RowsOut = 1
	case sql == "SELECT ARGS":
		names := make([]string, st.NArgs)
		for i := range names {
			names[i] = fmt.Sprintf("a%d", i)
			if st.Names != nil {
				names[i] = st.Names[i]
			}
		}
		out = columns(out, names...)
		var at int
		out, at = facet.BeginItem(out, facet.ItemRow)
		out = facet.EndItem(append(out, st.Args...), at)
		done.RowsOut = 1
	default:
		if _, err := fmt.Sscanf(sql, "SELECT ROWS %d %d", &n, &size); err != nil {
			return fmt.Errorf("near %.40q: syntax error", sql)
		}
		out = columns(out, "b")
		for i := range n {
			var at int
			out, at = facet.BeginItem(out, facet.ItemRow)
			row := facet.AppendBlob(facet.Values(out), make([]byte, size))
			if size > 0 {
				row[len(row)-1] = byte(i)
			}
			out = facet.EndItem(facet.Result(row), at)
		}
		done.RowsOut = uint64(n)
	}
	*res = facet.AppendDone(out, done)
	return nil
}

func columns(dst facet.Result, names ...string) facet.Result {
	dst, at := facet.BeginItem(dst, facet.ItemColumns)
	// Counts stay below 128: one byte of uvarint.
	dst = append(dst, byte(len(names)))
	for _, n := range names {
		dst = facet.AppendStr(dst, n)
		dst = facet.AppendStr(dst, declared[n])
	}
	return facet.EndItem(dst, at)
}

// declared gives columns with these names a declared type.
var declared = map[string]string{"created": "DATETIME", "flag": "boolean", "price": "DECIMAL(10,2)", "b": "BLOB", "n": "INTEGER"}

func (s *Service) wait(call *service.Call) error {
	w := &waiter{release: make(chan struct{})}
	canceled := func() { w.once.Do(func() { close(w.release) }) }
	s.mu.Lock()
	s.waiting = append(s.waiting, w)
	if ch := s.waitingLocked(); len(s.waiting) == 1 {
		select {
		case <-ch:
		default:
			close(ch)
		}
	}
	s.mu.Unlock()
	call.OnInterrupt(&canceled)
	<-w.release
	call.OnInterrupt(nil)
	if call.Canceled() {
		return facet.Errorf(facet.CodeCanceled, "canceled while it ran; it was rolled back")
	}
	call.Response.Result = facet.AppendDone(call.Response.Result, facet.Done{})
	return nil
}

// The rest of service.Service is not the native protocol's matter.

func (s *Service) Create(context.Context, facet.Name) (service.Info, bool, error) {
	return service.Info{}, false, errNotHere
}
func (s *Service) Stat(context.Context, facet.Name) (service.Info, error) {
	return service.Info{}, errNotHere
}
func (s *Service) List(context.Context, facet.Tenant, string, int) ([]service.Info, bool, error) {
	return nil, false, errNotHere
}
func (s *Service) Delete(context.Context, facet.Name) error { return errNotHere }
func (s *Service) Export(context.Context, facet.Name) (service.Export, error) {
	return nil, errNotHere
}
func (s *Service) Clone(context.Context, facet.Name, facet.Name) (service.Info, error) {
	return service.Info{}, errNotHere
}
func (s *Service) Import(context.Context, facet.Name, io.Reader, bool) (service.Info, error) {
	return service.Info{}, errNotHere
}
func (s *Service) Cluster(context.Context) service.Cluster { return service.Cluster{} }
func (s *Service) Ready(context.Context) []service.Check   { return nil }
func (s *Service) Metrics(io.Writer) error                 { return nil }

var errNotHere = facet.Errorf(facet.CodeInternal, "the toy service does not manage facets")
