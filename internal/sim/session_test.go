package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
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
	in := input{id: s.w.number(), arg: s.rng.Int64N(5), old: s.rng.Int64N(5)}
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
	case r < 74:
		in.kind = opAdd
	case r < 79:
		in.kind = opSet
	case r < 84:
		in.kind = opCAS
	case r < 90:
		in.kind = opPay
	case r < 95:
		in.kind = opPayTx
	default:
		in.kind = opTx
	}
	switch in.kind {
	case opRead:
		// One in eight asks a majority; where clocks are wrong, every other one.
		if n := s.rng.IntN(8); n == 0 || n < 4 && s.w.plan.badClocks() {
			in.how = facet.ReadQuorum
		}
	case opPay, opPayTx:
		in.old, in.arg = s.rng.Int64N(accounts*accounts), 1+s.rng.Int64N(60)
	}
	// A key tells the database apart, and a facet made anew is another one: what is
	// retried there happens again. So no keys, and no second tries, where facets go.
	keyed := !spec.deleted && !in.interactive() && in.kind != opRead && in.kind != opDelete && s.rng.IntN(4) > 0
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
		s.w.note(noteOp + in.kind.String() + " ok")
		if in.kind == opRead && in.how == facet.ReadOwner && s.w.doubt.Load() && !s.w.fleeting(name) {
			// By a lease of a clock that may be wrong: it may be old, and no more than that.
			s.w.ledger(name).peeked(glance{session: s.id, life: out.life, pos: out.pos, state: out.state})
			s.w.note("read by lease while clocks are in doubt")
			return out, true
		}
	case out.unknown:
		o.ret = math.MaxInt64
		s.w.note(noteOp + in.kind.String() + " unknown")
	default:
		s.w.note(noteOp + in.kind.String() + " refused")
		// A facet that is deleted meanwhile is not found.
		gone := codeOf(err) == facet.CodeNotFound && s.w.fleeting(name)
		if !retryable(err) && !in.interactive() && !gone {
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

// interactive reports whether an operation is a transaction of several requests.
func (in input) interactive() bool { return in.kind == opTx || in.kind == opPayTx }

// errLost is what a client sees of a node that died or does not answer.
var errLost = errors.New("the connection was lost")

func codeOf(err error) facet.Code {
	if fe, ok := errors.AsType[*facet.Error](err); ok {
		return fe.Code
	}
	return 0
}

// ownerIn is where an answer leads that says who the owner is.
func ownerIn(err error) (cluster.NodeID, bool) {
	fe, ok := errors.AsType[*facet.Error](err)
	if !ok || fe.Code != facet.CodeNotOwner || fe.Owner == "" {
		return "", false
	}
	host := strings.TrimPrefix(fe.Owner, "http://")
	return cluster.NodeID(strings.TrimSuffix(host, ":7400")), true
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
	first := "" // the process that may have done it
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
				switch {
				case maybe && keyed && first == l.name:
					s.w.note("lost answer asked for again")
				case maybe && keyed:
					s.w.note("lost answer asked for again at another process")
				}
				return out, nil
			}
		}
		lost := sent && (errors.Is(err, errLost) || codeOf(err).Class() == facet.Unknown ||
			// A request that ran out of time was rolled back; see CodeTimeout.
			in.kind == opDelete && codeOf(err) == facet.CodeUnavailable)
		if lost && in.kind != opRead {
			maybe, first = true, l.name
		}
		if maybe && !keyed || maybe && ctx.Err() != nil {
			return output{unknown: true}, err
		}
		owner, moved := ownerIn(err)
		switch {
		case moved && redirects < 4:
			s.owner[name] = owner
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
	case opTx, opPayTx:
		out, err = s.transact(ctx, l, name, in)
		return out, true, err
	}
	req := request(name, in, key)
	req.Bookmark = true
	second := func(output, error) {}
	if !key.IsZero() && s.rng.IntN(6) == 0 {
		second = s.repeat(ctx, l, req, in)
	}
	resp, err := s.call(ctx, l, req)
	s.saw(name, resp.Bookmark)
	switch {
	case in.kind == opRead && unwritten(err):
		err = nil
	case err == nil:
		out, err = read(resp.Result, in)
		out.pos = resp.Position
	}
	s.money(name, l, out)
	second(out, err)
	return out, true, err
}

// repeat sends a request with a key again while its first copy is on its way, or behind
// it: a message that came twice. The function it returns waits, and compares the answers.
func (s *session) repeat(ctx context.Context, l *life, req facet.Request, in input) func(output, error) {
	after := time.Duration(s.rng.IntN(30_000)) * time.Microsecond
	type answer struct {
		out output
		err error
	}
	done := make(chan answer, 1)
	s.w.wg.Go(func() {
		time.Sleep(after)
		resp, err := s.call(ctx, l, req)
		var a answer
		if a.err = err; err == nil {
			a.out, a.err = read(resp.Result, in)
		}
		done <- a
	})
	return func(first output, err error) {
		a := <-done
		if err != nil || a.err != nil {
			return // the write is there once, or not at all: the log of the facet tells
		}
		s.w.note("request with a key repeated")
		if first.state != a.out.state || first.did != a.out.did {
			s.w.problem("session %d: %v on %s was answered with %+v, and when it was repeated with %+v", s.id, in, req.Name, first, a.out)
		}
	}
}

// money: no read shows money that was made or lost, or a debt.
func (s *session) money(name facet.Name, l *life, out output) {
	if why := out.unbalanced(); why != "" {
		s.w.problem("%s: the accounts read at %s by session %d, %v: %s", name, l.name, s.id, out.state.gain, why)
	}
}

// unbalanced tells what is wrong with accounts as they were read, empty if nothing is.
func (o output) unbalanced() string {
	if o.rows != 0 && o.rows != accounts {
		return fmt.Sprintf("there are %d of %d", o.rows, accounts)
	}
	sum := int64(0)
	for i, v := range o.state.gain {
		if sum += v; v < -deposit {
			return fmt.Sprintf("account %d owes %d", i, -deposit-v)
		}
	}
	if sum != 0 {
		return fmt.Sprintf("the sum is off by %d", sum)
	}
	return ""
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
			s.money(name, l, out)
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
	if part := s.w.forgetful.Load(); part > 0 && s.w.percent(part) {
		s.w.note("answer lost")
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
	s.money(name, l, out)
	time.Sleep(time.Duration(s.rng.IntN(3000)) * time.Microsecond)
	tx := resp.Tx
	write := []facet.Step{insert(in.id)}
	if in.kind == opPayTx {
		// What the accounts will have is reckoned here: nobody may come in between.
		var next state
		if next, out.did = apply(out.state, in); out.did {
			for i, v := range next.gain {
				write = append(write, step("INSERT OR REPLACE INTO bank VALUES(?, ?)", int64(i), v+deposit))
			}
		}
	}
	if resp, err = s.call(ctx, l, facet.Request{Name: name, Tx: tx, KeepTx: true, Steps: write}); err == nil {
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
