//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// load is a workload that goes on until it is stopped: callers that write to and
// read from some facets, while everything they ask and hear is written down.
type load struct {
	t      testing.TB
	facets []*loadFacet
	begun  time.Time
	probe  *client.Client // of the test itself
	stop   context.CancelFunc
	ctx    context.Context
	wg     sync.WaitGroup

	// calm: no fault is under way that a caller without a key may notice; every
	// request must succeed.
	calm atomic.Bool
	// full: some disk is full, and writes may be refused because of it.
	full atomic.Bool

	acked, notDone, unknown, failed atomic.Int64
	slowest                         longest // of the operations since it was last taken
	slowestWrite                    longest // of the writes
	report                          *report // nil: nobody wants one
}

// longest is the longest of some durations.
type longest struct{ atomic.Int64 }

func (l *longest) take(d time.Duration) {
	for old := l.Load(); int64(d) > old && !l.CompareAndSwap(old, int64(d)); old = l.Load() {
	}
}

// reset gives it, and begins anew.
func (l *longest) reset() time.Duration { return time.Duration(l.Swap(0)) }

// loadFacet is one facet of a load, and its history.
type loadFacet struct {
	name string
	top  atomic.Int64 // length of the list that somebody was told of

	mu     sync.Mutex
	events []event // guarded by mu
	peeks  []peek  // guarded by mu
}

// peek is what a copy that may be behind showed: no older than what its reader had seen,
// and something that was committed.
type peek struct {
	n  int64
	id string
	at time.Duration // when it was asked for
}

// probeID is the client that the test itself is in histories.
const probeID = 1000

// loadSize is how much a load does.
type loadSize struct {
	facets, callers int
	pause           time.Duration // between two operations of one caller, at most
}

// startLoad makes the facets and starts the callers.
func startLoad(c *cluster, size loadSize, seed uint64) *load {
	c.t.Helper()
	return startLoadFor(c, size, seed, nil)
}

// startLoadFor is startLoad with a report of it.
func startLoadFor(c *cluster, size loadSize, seed uint64, r *report) *load {
	c.t.Helper()
	l := &load{t: c.t, report: r, probe: c.dial(client.Options{Idempotent: true, RetryFor: patience}), begun: time.Now()}
	made := make([]client.Bookmark, size.facets)
	for i := range size.facets {
		l.facets = append(l.facets, &loadFacet{name: fmt.Sprintf("acme/f%d", i)})
		fac := l.facet(l.probe, l.facets[i])
		if err := fac.Bookmarked(&made[i]).Script(c.t.Context(), schema); err != nil {
			c.t.Fatal(err)
		}
	}
	l.ctx, l.stop = context.WithCancel(context.WithoutCancel(c.t.Context()))
	for i := range size.callers {
		w := &caller{l: l, id: i, marks: make([]mark, size.facets), rng: rand.New(rand.NewPCG(seed, uint64(i)+100)), pause: size.pause,
			keyed: c.dial(client.Options{Idempotent: true, RetryFor: patience}), plain: c.dial(client.Options{RetryFor: patience})}
		for i := range made {
			if err := w.marks[i].Set(made[i].String()); err != nil {
				c.t.Fatal(err)
			}
		}
		l.wg.Go(w.run)
	}
	c.t.Cleanup(l.end) // before the clients are closed
	return l
}

// end stops the callers and waits for their last answers.
func (l *load) end() {
	l.stop()
	l.wg.Wait()
}

func (l *load) facet(cl *client.Client, f *loadFacet) *client.Facet {
	fac, err := cl.Facet(f.name)
	if err != nil {
		l.t.Fatal(err)
	}
	return fac
}

// finish stops the load and checks all that was told to anybody. It returns how many
// entries there are.
func (l *load) finish() (entries int) {
	l.t.Helper()
	l.end()
	for _, f := range l.facets {
		entries += audit(l.t, l.probe, f)
	}
	l.t.Logf("%d operations acknowledged, %d not done, %d with unknown outcome, %d failed; %d entries in %d facets",
		l.acked.Load(), l.notDone.Load(), l.unknown.Load(), l.failed.Load(), entries, len(l.facets))
	if l.acked.Load() == 0 {
		l.t.Error("nothing was acknowledged")
	}
	return entries
}

// progress waits until a new write to every facet was acknowledged, and tells how long
// that took.
func (l *load) progress() time.Duration {
	l.t.Helper()
	var wg sync.WaitGroup
	begin := time.Now()
	for i, f := range l.facets {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(l.t.Context()), patience)
			defer cancel()
			id := fmt.Sprintf("probe-%d-%d", i, time.Since(l.begun))
			l.append(ctx, l.probe, f, probeID, id)
		})
	}
	wg.Wait()
	took := time.Since(begin)
	l.t.Logf("%v: every facet took a write within %v; the slowest operation since the last such line took %v",
		time.Since(l.begun).Round(time.Millisecond), took.Round(time.Millisecond), l.slowest.reset().Round(time.Millisecond))
	return took
}

// append appends an entry and notes what became of it.
func (l *load) append(ctx context.Context, cl *client.Client, f *loadFacet, who int, id string) {
	name := "append, no key"
	if cl == l.probe {
		name = "append"
	}
	e := l.ask(f, who, name, opInput{kind: opAppend, id: id}, cl != l.probe)
	res, err := l.facet(cl, f).Exec(ctx, "INSERT INTO entry (id) VALUES (?)", id)
	e.out = opOutput{n: res.LastInsertID, applied: true}
	l.heard(f, e, err)
}

// asked is an operation under way: its event, and the length of the list that was
// known before it.
type asked struct {
	event
	name    string // of its kind, in reports
	top     int64
	fragile bool // it has no key, and may fail while there are faults
	full    bool // a disk was full, and it may have been refused because of that
}

func (l *load) ask(f *loadFacet, who int, name string, in opInput, fragile bool) *asked {
	return &asked{event: event{client: who, in: in, call: time.Since(l.begun)}, name: name, top: f.top.Load(), fragile: fragile, full: l.full.Load()}
}

// heard notes the answer, and compares it with what was heard before.
func (l *load) heard(f *loadFacet, e *asked, err error) {
	e.ret, e.err = time.Since(l.begun), err
	l.slowest.take(e.ret - e.call)
	if e.in.kind != opRead && e.in.kind != opPeek {
		l.slowestWrite.take(e.ret - e.call)
	}
	switch {
	case err == nil:
		e.outcome = done
		l.acked.Add(1)
		if e.in.kind != opPeek {
			l.compare(f, e)
		}
	case errors.Is(err, facet.ErrUnknownOutcome):
		e.outcome = unknown
		l.unknown.Add(1)
	default:
		e.outcome = notDone
		l.notDone.Add(1)
	}
	if l.report != nil {
		l.report.op(e.name, e.outcome)
	}
	f.mu.Lock()
	if e.in.kind != opPeek {
		f.events = append(f.events, e.event)
	} else if err == nil {
		f.peeks = append(f.peeks, peek{e.out.n, e.out.id, e.call})
	}
	f.mu.Unlock()
	if err == nil || (e.full || l.full.Load()) && errors.Is(err, facet.ErrDiskFull) {
		return
	}
	if !e.fragile || l.calm.Load() {
		l.failed.Add(1)
		l.t.Errorf("%v: %s: %+v failed after %v: %v", e.ret, f.name, e.in, e.ret-e.call, err)
	}
}

// compare holds an answer against what somebody had heard when it was asked for:
// lists only grow.
func (l *load) compare(f *loadFacet, e *asked) {
	least := e.top
	switch {
	case e.in.kind == opSwap && !e.out.applied:
		return
	case e.in.kind != opRead:
		least++
	}
	if e.out.n < least {
		l.t.Errorf("%s: %+v, asked at %v and answered at %v, tells of length %d, but %d had been told before", f.name, e.in, e.call, e.ret, e.out.n, e.top)
	}
	for {
		if top := f.top.Load(); e.out.n <= top || f.top.CompareAndSwap(top, e.out.n) {
			return
		}
	}
}

// caller is one goroutine that asks one thing after the other.
type caller struct {
	l            *load
	id           int
	n            int
	rng          *rand.Rand
	pause        time.Duration
	keyed, plain *client.Client
	marks        []mark // by facet
}

// mark is how far in a facet a caller has seen, by a bookmark and by the list itself.
type mark struct {
	client.Bookmark
	n int64
}

func (w *caller) run() {
	for w.l.ctx.Err() == nil {
		w.step()
		if w.pause > 0 {
			timer := time.NewTimer(time.Duration(w.rng.Int64N(int64(w.pause))))
			select {
			case <-timer.C:
			case <-w.l.ctx.Done():
			}
			timer.Stop()
		}
	}
}

func (w *caller) step() {
	// An operation ends by itself: what is under way when the load ends is heard of.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.l.ctx), patience)
	defer cancel()
	w.n++
	i := w.rng.IntN(len(w.l.facets))
	f, id := w.l.facets[i], fmt.Sprintf("%d-%d", w.id, w.n)
	switch p := w.rng.IntN(100); {
	case p < 30:
		e := w.l.ask(f, w.id, "append", opInput{kind: opAppend, id: id}, false)
		m := &w.marks[i]
		res, err := w.l.facet(w.keyed, f).Bookmarked(&m.Bookmark).Exec(ctx, "INSERT INTO entry (id) VALUES (?)", id)
		if e.out = (opOutput{n: res.LastInsertID, applied: true}); err == nil {
			m.n = max(m.n, e.out.n)
		}
		w.l.heard(f, e, err)
	case p < 42:
		w.l.append(ctx, w.plain, f, w.id, id)
	case p < 50:
		w.swap(ctx, f, id)
	case p < 64:
		w.transfer(ctx, f, id)
	case p < 78:
		w.read(ctx, f, "read", w.l.facet(w.keyed, f))
	case p < 83:
		w.readTwice(ctx, f)
	case p < 88:
		w.read(ctx, f, "read by quorum", w.l.facet(w.keyed, f).QuorumReads())
	default:
		w.peek(ctx, f, &w.marks[i])
	}
}

// peek reads from any copy, with what this caller has seen as a bookmark.
func (w *caller) peek(ctx context.Context, f *loadFacet, m *mark) {
	e := w.l.ask(f, w.id, "read by bookmark", opInput{kind: opPeek}, false)
	var v view
	err := w.l.facet(w.keyed, f).FollowerReads().Bookmarked(&m.Bookmark).QueryRow(ctx, look).Scan(v.fields()...)
	if err == nil && v.n < m.n {
		w.l.t.Errorf("%s: a read with a bookmark, asked at %v, tells of length %d, but its reader had seen %d", f.name, e.call, v.n, m.n)
	}
	m.n = max(m.n, v.n)
	w.saw(f, e, v, err)
}

// swap appends if nobody else did since the length was heard of.
func (w *caller) swap(ctx context.Context, f *loadFacet, id string) {
	want := f.top.Load()
	e := w.l.ask(f, w.id, "compare and append", opInput{kind: opSwap, id: id, want: want}, false)
	res, err := w.l.facet(w.keyed, f).Exec(ctx, "INSERT INTO entry (id) SELECT ? WHERE coalesce((SELECT max(n) FROM entry), 0) = ?", id, want)
	if e.out.applied = res.RowsAffected > 0; e.out.applied {
		e.out.n = res.LastInsertID
	}
	w.l.heard(f, e, err)
}

func (w *caller) read(ctx context.Context, f *loadFacet, name string, how *client.Facet) {
	e := w.l.ask(f, w.id, name, opInput{kind: opRead}, false)
	var v view
	err := how.QueryRow(ctx, look).Scan(v.fields()...)
	w.saw(f, e, v, err)
}

func (w *caller) saw(f *loadFacet, e *asked, v view, err error) {
	e.out = opOutput{n: v.n, id: v.id}
	w.l.heard(f, e, err)
	if wrong := v.wrong(); err == nil && wrong != "" {
		w.l.t.Errorf("%s: a read asked at %v: %s", f.name, e.call, wrong)
	}
}

// readTwice reads twice in one transaction, which must give the same.
func (w *caller) readTwice(ctx context.Context, f *loadFacet) {
	e := w.l.ask(f, w.id, "two reads in a transaction", opInput{kind: opRead}, true)
	var a, b view
	err := w.l.facet(w.plain, f).Tx(ctx, func(tx *client.Tx) error {
		if err := tx.QueryRow(ctx, look).Scan(a.fields()...); err != nil {
			return err
		}
		return tx.QueryRow(ctx, look).Scan(b.fields()...)
	})
	if err == nil && a != b {
		w.l.t.Errorf("%s: two reads of one transaction begun at %v: %+v and %+v", f.name, e.call, a, b)
	}
	w.saw(f, e, a, err)
}

// transfer moves money between two accounts and appends an entry about it, in an
// interactive transaction.
func (w *caller) transfer(ctx context.Context, f *loadFacet, id string) {
	from, to, amount := w.rng.IntN(accounts), w.rng.IntN(accounts), 1+w.rng.IntN(20)
	e := w.l.ask(f, w.id, "transfer in a transaction", opInput{kind: opAppend, id: id}, true)
	err := w.l.facet(w.plain, f).Tx(ctx, func(tx *client.Tx) error {
		var balance, sum int
		if err := tx.QueryRow(ctx, "SELECT balance, (SELECT sum(balance) FROM account) FROM account WHERE id = ?", from).Scan(&balance, &sum); err != nil {
			return err
		}
		if sum != money {
			w.l.t.Errorf("%s: a transaction begun at %v sees %d money", f.name, e.call, sum)
		}
		amount := min(amount, balance)
		if _, err := tx.Exec(ctx, "UPDATE account SET balance = balance - ? WHERE id = ?", amount, from); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE account SET balance = balance + ? WHERE id = ?", amount, to); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, "INSERT INTO entry (id) VALUES (?)", id)
		e.out = opOutput{n: res.LastInsertID, applied: true}
		return err
	})
	w.l.heard(f, e, err)
}
