package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

// Caller is what a replica store reports durable entries to.
var _ replica.Acker = (*Caller)(nil)

// TestAppendInOrder appends many entries of several facets; the handler sees them
// in order, whole, with the name of the sender; the acks come back in order.
func TestAppendInOrder(t *testing.T) {
	const facets, each = 5, 400
	where, heard := newAddresses(), newEars()
	var mu sync.Mutex
	seen := make(map[facet.Incarnation][]facet.Commit)
	start(t, "n2", where, func(cfg *Config) {
		cfg.Handler = &funcs{appendFn: func(from *Caller, a *AppendItem) {
			c := *a.Entry
			c.Pages = slices.Clone(c.Pages)
			mu.Lock()
			seen[c.Incarnation] = append(seen[c.Incarnation], c)
			mu.Unlock()
			if r := from.Remote(); r.Node != "n1" || r.Boot != bootOf('1') || a.Epoch != 5 || a.Commit != c.Seq-1 {
				t.Errorf("append from %v in epoch %v, commit %v of %v", r, a.Epoch, a.Commit, c.Seq)
			}
			from.Acked(c.Incarnation, a.Epoch, c.Seq)
		}}
	})
	p := start(t, "n1", where, func(cfg *Config) { cfg.Acks = heard }).Peer("n2")
	if err := p.Append(AppendItem{5, 0, entry(testID(1), 5, 1, 10)}); !errors.Is(err, ErrDown) {
		t.Fatalf("append without a connection: %v, want ErrDown", err)
	}
	if to := heard.next(t, "ready").from; to.Node != "n2" || to.Boot != bootOf('2') {
		t.Errorf("ready: %v", to)
	}
	size := func(seq facet.Seq) int { // some entries fill frames, some whole chunks
		switch {
		case seq%100 == 0:
			return 300 << 10
		case seq%10 == 0:
			return 20 << 10
		}
		return int(seq)
	}
	for seq := facet.Seq(1); seq <= each; seq++ {
		for f := range facets {
			for {
				err := p.Append(AppendItem{5, seq - 1, entry(testID(f+1), 5, seq, size(seq))})
				if err == nil {
					break
				}
				t.Fatal(err) // all of it fits the queue
			}
		}
	}
	last := make(map[facet.Incarnation]facet.Seq)
	for range facets * each {
		a := heard.next(t, "acked").ack
		if a.Err != nil || a.Epoch != 5 || a.Seq != last[a.Incarnation]+1 {
			t.Fatalf("ack %+v after %v", a, last[a.Incarnation])
		}
		last[a.Incarnation] = a.Seq
	}
	mu.Lock()
	defer mu.Unlock()
	for f := range facets {
		id := testID(f + 1)
		if len(seen[id]) != each {
			t.Fatalf("facet %d: %d entries arrived, want %d", f, len(seen[id]), each)
		}
		for i, c := range seen[id] {
			want := entry(id, 5, facet.Seq(i+1), size(facet.Seq(i+1)))
			if c.Position() != want.Position() || c.Prev() != want.Prev() || string(c.Pages) != string(want.Pages) || c.DBPages != want.DBPages {
				t.Fatalf("entry %d of facet %d arrived as %v after %v with %d bytes", i+1, f, c.Position(), c.Prev(), len(c.Pages))
			}
		}
	}
}

// TestNacks sends refusals back, late and out of order.
func TestNacks(t *testing.T) {
	where, heard := newAddresses(), newEars()
	var late []func()
	start(t, "n2", where, func(cfg *Config) {
		cfg.Handler = &funcs{appendFn: func(from *Caller, a *AppendItem) {
			id, e, seq := a.Entry.Incarnation, a.Epoch, a.Entry.Seq
			errs := []error{&replica.EpochError{Promised: 9}, &replica.GapError{Last: pos}, replica.ErrDiverged, replica.ErrFull, replica.ErrUnknown}
			late = append(late, func() { from.Nacked(id, e, seq, errs[seq-1]) })
			if len(late) == len(errs) {
				slices.Reverse(late)
				for _, f := range late {
					f()
				}
			}
		}}
	})
	p := start(t, "n1", where, func(cfg *Config) { cfg.Acks = heard }).Peer("n2")
	connect(t, p)
	heard.next(t, "ready")
	for seq := facet.Seq(1); seq <= 5; seq++ {
		check(t, p.Append(AppendItem{5, 0, entry(testID(1), 5, seq, 10)}))
	}
	for seq := facet.Seq(5); seq >= 1; seq-- {
		a := heard.next(t, "acked").ack
		want := []error{replica.ErrEpoch, replica.ErrGap, replica.ErrDiverged, replica.ErrFull, replica.ErrUnknown}[seq-1]
		if a.Seq != seq || !errors.Is(a.Err, want) {
			t.Errorf("answer %+v, want %v to %v", a, want, seq)
		}
		if e, ok := errors.AsType[*replica.EpochError](a.Err); ok && e.Promised != 9 {
			t.Errorf("promised %v, want 9", e.Promised)
		}
		if e, ok := errors.AsType[*replica.GapError](a.Err); ok && e.Last != pos {
			t.Errorf("log ends at %+v, want %+v", e.Last, pos)
		}
	}
}

// TestRefusedAppends: what no log may hold is refused here, and harms nobody.
func TestRefusedAppends(t *testing.T) {
	where := newAddresses()
	p := start(t, "n1", where, nil).Peer("n2")
	zero := entry(testID(1), 5, 1, 1)
	zero.Seq = 0
	barrier := entry(testID(1), 5, 1, 1)
	barrier.Kind = facet.KindBarrier
	for _, c := range []struct {
		a    AppendItem
		want error
	}{
		{AppendItem{5, 0, zero}, ErrInvalid},
		{AppendItem{4, 0, entry(testID(1), 5, 1, 1)}, ErrInvalid},
		{AppendItem{5, 0, entry(facet.Incarnation{}, 5, 1, 1)}, ErrInvalid},
		{AppendItem{5, 0, barrier}, ErrInvalid},
		{AppendItem{5, 0, entry(testID(1), 5, 1, facet.MaxCommitBytes+1)}, ErrTooLong},
	} {
		if err := p.Append(c.a); !errors.Is(err, c.want) {
			t.Errorf("append %v in session %v: %v, want %v", c.a.Entry.Position(), c.a.Epoch, err, c.want)
		}
	}
	if err := p.Known(KnownItem{testID(1), 5, facet.Position{Epoch: 6, Seq: 1}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("known beyond the session: %v", err)
	}
	if _, err := p.Prepare(t.Context(), make([]Session, MaxItems+1)); !errors.Is(err, ErrTooLong) {
		t.Errorf("too many sessions: %v", err)
	}
	if _, err := p.Propose(t.Context(), [][]byte{make([]byte, MaxCommand+1)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long a command: %v", err)
	}
}

// TestCalls asks every question, many at once, answered out of order.
func TestCalls(t *testing.T) {
	where := newAddresses()
	var mu sync.Mutex
	var late []func()
	later := func(f func()) {
		mu.Lock()
		late = append(late, f)
		fire := len(late) == 2*40
		mu.Unlock()
		if fire {
			slices.Reverse(late)
			for _, f := range late {
				f()
			}
		}
	}
	log := []*facet.Commit{}
	for seq := facet.Seq(1); seq <= 30; seq++ {
		log = append(log, entry(idA, 7, seq, 100<<10))
	}
	start(t, "n2", where, func(cfg *Config) {
		f := &funcs{
			prepareFn: func(from *Caller, s Session, reply func(replica.Promise, error)) {
				later(func() {
					if s.Epoch%3 == 0 {
						reply(replica.Promise{}, &replica.EpochError{Promised: s.Epoch + 1})
						return
					}
					p := *samplePromise()
					p.CommitKnown = facet.Seq(s.Epoch)
					reply(p, nil)
				})
			},
			checkFn: func(from *Caller, s Session) bool { return s.Epoch == 7 },
			renewFn: func(from *Caller, r RenewRequest, reply func(Grant, error)) {
				if r.Applied < 10 {
					reply(Grant{Stamp: r.Stamp, Apply: 10}, ErrRefused)
					return
				}
				reply(Grant{Stamp: r.Stamp, TTL: 1500 * time.Millisecond, Got: time.Hour, Answered: time.Hour + 1}, nil)
			},
			proposeFn: func(from *Caller, cmds [][]byte, reply func(int, []byte, error)) {
				for i := range slices.Backward(cmds) {
					switch i {
					case 0:
						reply(i, nil, &NotLeaderError{"n3"})
					case 1:
						reply(i, nil, ErrUnknownOutcome)
					default:
						reply(i, append([]byte("did "), cmds[i]...), nil)
					}
				}
			},
			fetchFn: func(ctx context.Context, from *Caller, r FetchRequest, out *EntryWriter) error {
				if r.From > 30 {
					return replica.ErrCompacted
				}
				for _, c := range log[r.From-1:] {
					if more, err := out.Write(c); err != nil || !more {
						return err
					}
				}
				return nil
			},
		}
		cfg.Handler, cfg.Placement, cfg.Inspector = f, f, f
	})
	p := start(t, "n1", where, nil).Peer("n2")
	ctx := t.Context()

	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			list := []Session{{testID(i), facet.Epoch(2*i + 1)}, {testID(i), facet.Epoch(2*i + 2)}}
			res, err := p.Prepare(ctx, list)
			if err != nil {
				t.Error(err)
				return
			}
			for j, r := range res {
				if r.From.Node != "n2" || r.From.Boot.IsZero() || r.From.Store.IsZero() {
					t.Errorf("a promise of %v", r.From)
				}
				if e := list[j].Epoch; e%3 == 0 {
					if pe, ok := errors.AsType[*replica.EpochError](r.Err); !ok || pe.Promised != e+1 {
						t.Errorf("epoch %v: %v", e, r.Err)
					}
				} else if want := samplePromise(); r.Err != nil || r.Promise.CommitKnown != facet.Seq(e) || r.Promise.Epoch != e ||
					r.Promise.Incarnation != list[j].Incarnation || r.Promise.Last != want.Last || r.Promise.Base != want.Base || r.Promise.Health != want.Health {
					t.Errorf("epoch %v: %+v", e, r)
				}
			}
		})
	}
	wg.Wait()

	if from, got, err := p.Check(ctx, []Session{{idA, 7}, {idA, 8}, {idB, 7}}); err != nil || from.Node != "n2" || !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("check: %v of %v, %v", got, from, err)
	}
	copies, err := p.Inspect(ctx, []Session{{idA, 7}, {idB, 7}})
	check(t, err)
	if a := samplePromise(); copies[0].Err != nil || copies[0].Promise.Last != a.Last || copies[0].Promise.Health != a.Health ||
		copies[0].From.Node != "n2" || !errors.Is(copies[1].Err, replica.ErrUnknown) {
		t.Errorf("inspect: %+v", copies)
	}
	if g, err := p.Renew(ctx, RenewRequest{Applied: 12, Stamp: 99}); err != nil || g != (Grant{Stamp: 99, TTL: 1500 * time.Millisecond, Got: time.Hour, Answered: time.Hour + 1, Granter: bootOf('2')}) {
		t.Errorf("renew: %+v, %v", g, err)
	}
	if g, err := p.Renew(ctx, RenewRequest{Applied: 9, Stamp: 98}); !errors.Is(err, ErrRefused) || g.Apply != 10 || g.Stamp != 98 {
		t.Errorf("renew too early: %+v, %v", g, err)
	}
	res, err := p.Propose(ctx, [][]byte{[]byte("a"), []byte("b"), []byte("c"), {}})
	check(t, err)
	if e, ok := errors.AsType[*NotLeaderError](res[0].Err); !ok || e.Leader != "n3" || res[1].Err != ErrUnknownOutcome ||
		string(res[2].Result) != "did c" || string(res[3].Result) != "did " {
		t.Errorf("propose: %+v", res)
	}
	if _, err := p.Ping(ctx); err != nil {
		t.Error(err)
	}

	next := facet.Seq(1)
	for n := 0; next <= 30; n++ {
		r, err := p.Fetch(ctx, FetchRequest{Incarnation: idA, Epoch: 7, From: next, MaxBytes: 512 << 10})
		check(t, err)
		if len(r.Entries) != 5 || r.More != (next < 26) {
			t.Fatalf("fetch from %v: %d entries, more %v", next, len(r.Entries), r.More)
		}
		for _, c := range r.Entries {
			if want := log[next-1]; c.Position() != want.Position() || string(c.Pages) != string(want.Pages) {
				t.Fatalf("fetched %v, want %v", c.Position(), want.Position())
			}
			next++
		}
	}
	if r, err := p.Fetch(ctx, FetchRequest{Incarnation: idA, Epoch: 7, From: 20, To: 21}); err != nil || len(r.Entries) != 2 || r.More {
		t.Errorf("fetch 20 to 21: %d entries, more %v, %v", len(r.Entries), r.More, err)
	}
	if r, err := p.Fetch(ctx, FetchRequest{Incarnation: idA, Epoch: 7, From: 2, MaxBytes: 1}); err != nil || len(r.Entries) != 1 || !r.More {
		t.Errorf("fetch with no room: %d entries, more %v, %v", len(r.Entries), r.More, err)
	}
	if _, err := p.Fetch(ctx, FetchRequest{Incarnation: idA, Epoch: 7, From: 31}); !errors.Is(err, replica.ErrCompacted) {
		t.Errorf("fetch what is gone: %v", err)
	}
}

// TestKnown keeps its place among the appends.
func TestKnown(t *testing.T) {
	where, heard := newAddresses(), newEars()
	var order []string
	start(t, "n2", where, func(cfg *Config) {
		cfg.Handler = &funcs{
			knownFn: func(_ *Caller, k *KnownItem) {
				order = append(order, fmt.Sprintf("known %v %v", k.Epoch, k.At))
			},
			appendFn: func(from *Caller, a *AppendItem) {
				order = append(order, fmt.Sprintf("entry %v", a.Entry.Seq))
				if a.Entry.Seq == 2 {
					from.Acked(a.Entry.Incarnation, a.Epoch, a.Entry.Seq)
				}
			},
		}
	})
	p := start(t, "n1", where, func(cfg *Config) { cfg.Acks = heard }).Peer("n2")
	connect(t, p)
	heard.next(t, "ready")
	check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}))
	check(t, p.Known(KnownItem{idA, 5, facet.Position{Epoch: 5, Seq: 1}}))
	check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 2, 10)}))
	heard.next(t, "acked")
	if want := []string{"entry 1", "known 5 5.1", "entry 2"}; !slices.Equal(order, want) {
		t.Errorf("arrived as %q, want %q", order, want)
	}
}

// TestCallerGivesUp: a call ends with its context, and its late answer harms
// nobody.
func TestCallerGivesUp(t *testing.T) {
	where := newAddresses()
	asked, answer := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	start(t, "n2", where, func(cfg *Config) {
		cfg.Handler = &funcs{prepareFn: func(_ *Caller, _ Session, reply func(replica.Promise, error)) {
			go func() {
				defer close(done)
				close(asked)
				<-answer
				reply(replica.Promise{}, nil)
			}()
		}}
	})
	p := start(t, "n1", where, nil).Peer("n2")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := p.Prepare(ctx, []Session{{idA, 1}}); !errors.Is(err, context.Canceled) {
		t.Errorf("prepare: %v, want context.Canceled", err)
	}
	close(answer)
	<-done
	if _, err := p.Ping(t.Context()); err != nil {
		t.Errorf("ping after a late answer: %v", err)
	}
	if s := p.Status(); !s.Connected || s.Lost != 0 {
		t.Errorf("status %+v", s)
	}
}

// TestNoAllocations: appends and their acks cost no memory once warm.
func TestNoAllocations(t *testing.T) {
	where := newAddresses()
	acked := make(chan facet.Seq, 1)
	start(t, "n2", where, nil)
	p := start(t, "n1", where, func(cfg *Config) { cfg.Acks = lastAck{acked} }).Peer("n2")
	connect(t, p)
	c := entry(idA, 5, 1, 300)
	seq := facet.Seq(0)
	round := func() {
		for range 20 {
			seq++
			c.Seq, c.PrevEpoch, c.PreSum, c.PostSum = seq, 5, sumAt(seq-1), sumAt(seq)
			if err := p.Append(AppendItem{5, seq - 1, c}); err != nil {
				t.Fatal(err)
			}
		}
		for <-acked < seq {
		}
	}
	for range 200 {
		round()
	}
	// Per round of 20 appends; the keepalive and the runtime may add a little.
	if n := testing.AllocsPerRun(500, round); n > 1 {
		t.Errorf("%v allocations in 20 appends", n)
	}
}

type lastAck struct{ ch chan facet.Seq }

func (lastAck) Ready(Remote)       {}
func (lastAck) Lost(Remote, error) {}
func (l lastAck) Acked(_ Remote, acks []Ack) {
	l.ch <- acks[len(acks)-1].Seq
}

// TestForget ends a peer for good.
func TestForget(t *testing.T) {
	where, heard := newAddresses(), newEars()
	start(t, "n2", where, nil)
	n1 := start(t, "n1", where, func(cfg *Config) { cfg.Acks = heard })
	p := n1.Peer("n2")
	connect(t, p)
	heard.next(t, "ready")
	n1.Forget("n2")
	heard.next(t, "lost")
	if _, err := p.Ping(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("ping of a forgotten peer: %v", err)
	}
	if q := n1.Peer("n2"); q == p {
		t.Error("the forgotten peer is still there")
	} else {
		connect(t, q)
	}
	for i := range maxPeers {
		n1.Peer(cluster.NodeID(fmt.Sprintf("x%d", i)))
	}
	if _, err := n1.Peer("one-more").Ping(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("ping of one peer too many: %v", err)
	}
}
