package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// session is a client: one operation after the other, each at the node it believes
// to be the owner, following redirects and trying again as the SDK does. What was
// sent without a key and may have happened is never sent again.
type session struct {
	w     *world
	id    int
	rng   *rand.Rand
	key   [16]byte
	n     uint64
	owner map[facet.Name]cluster.NodeID
	marks map[facet.Name]facet.Bookmark // newest seen, of facets that stay
	think time.Duration                 // pause between operations, on average
}

var numbers atomic.Int64 // of writes

const (
	// callTimeout is how long a session waits for one answer, opTimeout how long it
	// goes on trying one operation.
	callTimeout = 8 * time.Second
	opTimeout   = 15 * time.Second
)

func (w *world) session(id int) *session {
	s := &session{w: w, id: id, rng: w.rand(), owner: map[facet.Name]cluster.NodeID{}, marks: map[facet.Name]facet.Bookmark{}, think: w.plan.think}
	for i := range s.key {
		s.key[i] = byte(s.rng.Uint32())
	}
	return s
}

// run works until stop is closed.
func (s *session) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(s.rng.Int64N(int64(2*s.think) + 1))):
		}
		s.step()
	}
}

// step does one operation on some facet.
func (s *session) step() {
	spec := s.w.names[s.rng.IntN(len(s.w.names))]
	in := input{id: numbers.Add(1), arg: s.rng.Int64N(5), old: s.rng.Int64N(5)}
	switch r := s.rng.IntN(100); {
	case spec.deleted && r < 6:
		in.kind = opDelete
	case r < 12 && !spec.deleted:
		s.peek(spec.name)
		return
	case r < 45:
		in.kind = opRead
	case r < 65:
		in.kind = opAppend
	case r < 77:
		in.kind = opAdd
	case r < 85:
		in.kind = opSet
	case r < 93:
		in.kind = opCAS
	default:
		in.kind = opTx
	}
	// A key tells the database apart, and a facet made anew is another one: what is
	// retried there happens again. So no keys, and no second tries, where facets go.
	keyed := !spec.deleted && in.kind != opRead && in.kind != opTx && in.kind != opDelete && s.rng.IntN(4) > 0
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	s.do(ctx, spec.name, in, keyed)
}

// do does one operation and writes down what came of it. It reports whether it was
// answered for certain.
func (s *session) do(ctx context.Context, name facet.Name, in input, keyed bool) (output, bool) {
	o := op{session: s.id, in: in, call: stamps.Add(1), at: time.Since(s.w.began)}
	out, err := s.persist(ctx, name, in, keyed)
	o.out, o.ret, o.until = out, stamps.Add(1), time.Since(s.w.began)
	switch {
	case err == nil:
		s.w.note(in.kind.String() + " ok")
	case out.unknown:
		o.ret = math.MaxInt64
		s.w.note(in.kind.String() + " unknown")
	default:
		s.w.note(in.kind.String() + " not done")
		// A facet that is deleted meanwhile is not found.
		gone := codeOf(err) == facet.CodeNotFound && s.w.fleeting(name)
		if !retryable(err) && in.kind != opTx && !gone {
			s.w.problem("session %d: %v on %s: %v", s.id, in, name, err)
		}
		return out, false
	}
	s.w.ledger(name).add(o)
	return out, err == nil
}

// fleeting reports whether the facet is deleted now and then.
func (w *world) fleeting(name facet.Name) bool {
	for _, spec := range w.names {
		if spec.name == name {
			return spec.deleted
		}
	}
	return false
}

// errLost is what a client sees of a node that died or does not answer.
var errLost = errors.New("the connection was lost")

func codeOf(err error) facet.Code {
	var fe *facet.Error
	if errors.As(err, &fe) {
		return fe.Code
	}
	return 0
}

// retryable reports whether a later try may succeed: nothing is wrong with the
// request.
func retryable(err error) bool {
	switch c := codeOf(err); c.Class() {
	case facet.Retry, facet.Redirect, facet.Unknown:
		return true
	default:
		return c == facet.CodeTimeout || c == facet.CodeCanceled || errors.Is(err, errLost) || errors.Is(err, errGone) || errors.Is(err, context.DeadlineExceeded)
	}
}

// persist tries an operation until it is answered, or may have happened and must not
// be tried again, or ctx ends.
func (s *session) persist(ctx context.Context, name facet.Name, in input, keyed bool) (output, error) {
	var key facet.Key
	if keyed {
		s.n++
		key = facet.Key{Client: s.key, N: s.n}
	}
	maybe := false // it may have happened
	pause := 10 * time.Millisecond
	redirects := 0
	for {
		l := s.target(name)
		err := fmt.Errorf("no node answers: %w", errGone)
		var out output
		sent := false
		if l != nil {
			out, sent, err = s.try(ctx, l, name, in, key)
			if err == nil {
				s.owner[name] = l.m.id
				out.life = l.name
				return out, nil
			}
		}
		lost := sent && (errors.Is(err, errLost) || codeOf(err).Class() == facet.Unknown ||
			// A request that ran out of time was rolled back; see CodeTimeout.
			in.kind == opDelete && codeOf(err) == facet.CodeUnavailable)
		maybe = maybe || lost && in.kind != opRead
		if maybe && !keyed || maybe && ctx.Err() != nil {
			return output{unknown: true}, err
		}
		var fe *facet.Error
		errors.As(err, &fe)
		switch {
		case fe != nil && fe.Code == facet.CodeNotOwner && fe.Owner != "" && redirects < 4:
			host := strings.TrimPrefix(fe.Owner, "http://")
			s.owner[name] = cluster.NodeID(strings.TrimSuffix(host, ":7400"))
			redirects++
			s.w.note("redirect")
			continue
		case !retryable(err):
			return output{unknown: maybe}, err
		}
		redirects = 0
		delete(s.owner, name)
		wait := pause/2 + time.Duration(s.rng.Int64N(int64(pause/2)))
		if pause < 500*time.Millisecond {
			pause *= 2
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return output{unknown: maybe}, err
		}
	}
}

// target is the process to ask.
func (s *session) target(name facet.Name) *life {
	if id := s.owner[name]; id != "" {
		if m := s.w.machine(id); m != nil {
			if l := m.current(); l != nil && l.isReady() {
				return l
			}
		}
		delete(s.owner, name)
	}
	list := s.w.running()
	if len(list) == 0 {
		return nil
	}
	return list[s.rng.IntN(len(list))]
}

// try sends an operation to one process. sent is false if it cannot have arrived.
func (s *session) try(ctx context.Context, l *life, name facet.Name, in input, key facet.Key) (out output, sent bool, err error) {
	s.travel()
	if err := l.wait(ctx); err != nil {
		return out, false, err
	}
	defer s.travel()
	switch in.kind {
	case opDelete:
		err = s.deleteAt(ctx, l, name)
		if out.did = err == nil; codeOf(err) == facet.CodeNotFound {
			err = nil
		}
		return out, true, err
	case opTx:
		out, err = s.transact(ctx, l, name, in)
		return out, true, err
	}
	req := request(name, in, key)
	req.Bookmark = true
	resp, err := s.call(ctx, l, req)
	s.saw(name, resp.Bookmark)
	if in.kind == opRead && unwritten(err) {
		return out, true, nil
	}
	if err != nil {
		return out, true, err
	}
	out, err = read(resp.Result, in)
	out.pos = resp.Position
	return out, true, err
}

// peek reads at any node, from a state no older than what the session has seen (R35).
// It is tried once: a node that cannot say leads to the owner, where others go anyway.
func (s *session) peek(name facet.Name) {
	list := s.w.running()
	if len(list) == 0 {
		return
	}
	l := list[s.rng.IntN(len(list))]
	ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
	defer cancel()
	s.travel()
	if l.wait(ctx) != nil {
		return
	}
	req := request(name, input{kind: opRead}, facet.Key{})
	req.Read, req.After = facet.ReadFollower, s.marks[name]
	resp, err := s.call(ctx, l, req)
	s.travel()
	if err == nil {
		var out output
		if out, err = read(resp.Result, input{kind: opRead}); err == nil {
			if !req.After.IsZero() && !req.After.Covered(resp.Position) {
				s.w.problem("session %d: %s answered from %v of %s, which is before %v", s.id, l.name, resp.Position, name, req.After)
			}
			s.saw(name, resp.Bookmark)
			s.w.ledger(name).peeked(glance{session: s.id, life: l.name, pos: resp.Position, state: out.state})
			s.w.note("peek ok")
			return
		}
	}
	if !retryable(err) && !unwritten(err) {
		s.w.problem("session %d: peek at %s after %v: %v", s.id, name, req.After, err)
	}
	s.w.note("peek not done")
}

// saw keeps the newest bookmark of a facet.
func (s *session) saw(name facet.Name, b facet.Bookmark) {
	if b.Seq > s.marks[name].Seq && !s.w.fleeting(name) {
		s.marks[name] = b
	}
}

// travel is the way between a client and a node.
func (s *session) travel() { time.Sleep(time.Duration(s.rng.IntN(500)) * time.Microsecond) }

// call submits a request and waits for its answer, the end of the process, or the
// session's patience.
func (s *session) call(ctx context.Context, l *life, req facet.Request) (facet.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := make(chan struct{})
	c := &service.Call{Request: req, Done: func(*service.Call) { close(done) }}
	l.node.Service().Submit(c)
	select {
	case <-done:
	case <-l.dead:
		return facet.Response{}, errLost
	case <-ctx.Done():
		c.Cancel()
		return facet.Response{}, errLost
	}
	if err := l.wait(ctx); err != nil || l.isDead() {
		return facet.Response{}, errLost
	}
	return c.Response, c.Err
}

// deleteAt deletes the facet at one process.
func (s *session) deleteAt(ctx context.Context, l *life, name facet.Name) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	done := make(chan error, 1)
	s.w.wg.Go(func() { done <- l.node.Service().Delete(ctx, name) })
	select {
	case err := <-done:
		if l.isDead() {
			return errLost
		}
		return err
	case <-l.dead:
	case <-ctx.Done():
	}
	return errLost
}

// transact reads and appends in an interactive transaction. Whatever goes wrong
// before COMMIT leaves nothing behind.
func (s *session) transact(ctx context.Context, l *life, name facet.Name, in input) (out output, err error) {
	undone := func(err error) error {
		return facet.Errorf(facet.CodeTxClosed, "%v", err)
	}
	req := facet.Request{Name: name, KeepTx: true, Steps: append([]facet.Step{step("BEGIN")}, schema()...)}
	req.Steps = append(req.Steps, reading()...)
	resp, err := s.call(ctx, l, req)
	if err != nil {
		if codeOf(err) == facet.CodeNotOwner {
			return out, err
		}
		return out, undone(err)
	}
	if out, err = read(resp.Result, input{kind: opRead}); err != nil {
		return out, undone(err)
	}
	time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Microsecond)
	tx := resp.Tx
	if resp, err = s.call(ctx, l, facet.Request{Name: name, Tx: tx, KeepTx: true, Steps: []facet.Step{insert(in.id)}}); err == nil {
		_, err = read(resp.Result, in)
	}
	if err != nil {
		return out, undone(err)
	}
	if resp, err = s.call(ctx, l, facet.Request{Name: name, Tx: tx, Steps: []facet.Step{step("COMMIT")}}); err == nil {
		_, err = read(resp.Result, in)
	}
	switch {
	case err == nil:
		out.pos = resp.Position
	case errors.Is(err, errLost) || codeOf(err).Class() == facet.Unknown:
		err = facet.Errorf(facet.CodeUnknownOutcome, "%v", err)
	default:
		err = undone(err)
	}
	return out, err
}

// The SQL of an operation.

func step(sql string, args ...int64) facet.Step {
	st := facet.Step{SQL: []byte(sql), NArgs: len(args)}
	for _, a := range args {
		st.Args = facet.AppendInt(st.Args, a)
	}
	return st
}

func schema() []facet.Step {
	return []facet.Step{
		step("CREATE TABLE IF NOT EXISTS log(at INTEGER PRIMARY KEY, id INTEGER NOT NULL)"),
		step("CREATE TABLE IF NOT EXISTS cell(k INTEGER PRIMARY KEY, v INTEGER NOT NULL)"),
	}
}

func insert(id int64) facet.Step { return step("INSERT INTO log(id) VALUES(?)", id) }

func reading() []facet.Step {
	return []facet.Step{
		step("SELECT 'log', id FROM log ORDER BY at"),
		step("SELECT 'cell', k, v FROM cell"),
	}
}

const upsert = "INSERT INTO cell VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = "

func request(name facet.Name, in input, key facet.Key) facet.Request {
	req := facet.Request{Name: name, Atomic: true, Key: key}
	if in.kind == opRead {
		req.ReadOnly, req.Steps = true, reading()
		return req
	}
	req.Steps = append(schema(), insert(in.id))
	switch in.kind {
	case opAdd:
		req.Steps = append(req.Steps, step(upsert+"v + excluded.v", 1, in.arg), step("SELECT 'cell', k, v FROM cell WHERE k = 1"))
	case opSet:
		req.Steps = append(req.Steps, step(upsert+"excluded.v", 2, in.arg))
	case opCAS:
		// A register nobody has set is 0.
		req.Steps = append(req.Steps, step("INSERT OR IGNORE INTO cell VALUES(2, 0)"),
			step("UPDATE cell SET v = ? WHERE k = 2 AND v = ?", in.arg, in.old), step("SELECT 'did', changes()"))
	}
	req.Steps = append(req.Steps, step("SELECT 'n', count(*) FROM log"))
	return req
}

// unwritten reports whether err is what reading a facet gives that nobody has
// written to.
func unwritten(err error) bool {
	return codeOf(err) == facet.CodeSQL && strings.Contains(err.Error(), "no such table")
}

// read takes the rows of a result apart.
func read(r facet.Result, in input) (out output, err error) {
	for len(r) > 0 {
		it, rest, err := r.Next()
		if err != nil {
			return out, err
		}
		r = rest
		switch it.Kind {
		case facet.ItemError:
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				return out, err
			}
			if in.kind == opRead && unwritten(e) {
				return output{}, nil
			}
			return out, e
		case facet.ItemRow:
			row, err := facet.Values(it.Body).Decode(nil)
			if err != nil {
				return out, err
			}
			switch what := string(row[0].Bytes); {
			case what == "log":
				out.state = out.state.with(row[1].Int)
				if in.kind == opRead && in.id < 0 {
					out.log = append(out.log, row[1].Int)
				}
			case what == "n":
				out.state.n = row[1].Int
			case what == "did":
				out.did = row[1].Int != 0
			case what == "cell" && row[1].Int == 1:
				out.state.counter = row[2].Int
			case what == "cell":
				out.state.reg = row[2].Int
			}
		}
	}
	return out, nil
}
