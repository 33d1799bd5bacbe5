package sim

import (
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// The checkers are fed what must not be. A checker that cannot fail proves nothing.

// tale is the history of one facet as it is told to the checkers.
type tale struct {
	l   *ledger
	log []int64 // what is in the facet in the end
	was state
	seq uint64
	id  int64
}

// tell adds an operation of a session that ran behind all before it, and was answered
// rightly, from epoch 1 by process a. change spoils the answer.
func (h *tale) tell(in input, change func(*op)) {
	h.id++
	in.id = h.id
	o := op{in: in, call: 10 * h.id, ret: 10*h.id + 5}
	if in.kind == opRead {
		o.out.state = h.was
	} else {
		before := h.was
		h.was, o.out.did = apply(h.was, in)
		h.seq++
		h.log = append(h.log, in.id)
		o.out.state = h.was
		if in.interactive() {
			o.out.state = before
		}
	}
	o.out.life = "a"
	o.out.pos = facet.Position{Epoch: 1, Seq: facet.Seq(h.seq), Sum: facet.Sum{Lo: h.seq}}
	if change != nil {
		change(&o)
	}
	h.l.add(o)
}

// TestCheckersNotice: each history with one thing wrong is noticed, for that reason, and
// the same history without it is not.
func TestCheckersNotice(t *testing.T) {
	work := func(h *tale) {
		h.tell(input{kind: opAppend}, nil)
		h.tell(input{kind: opAdd, arg: 3}, nil)
		h.tell(input{kind: opPay, arg: 30, old: 1}, nil)
		h.tell(input{kind: opCAS, arg: 4, old: 0}, nil)
		h.tell(input{kind: opPayTx, arg: 20, old: 6}, nil)
		h.tell(input{kind: opRead}, nil)
	}
	for _, c := range []struct {
		name, want string
		spoil      func(h *tale)
	}{
		{"nothing", "", func(*tale) {}},
		{"a lost write", "was acknowledged", func(h *tale) { h.log = h.log[:len(h.log)-1] }},
		{"a write done twice", "took effect 2 times", func(h *tale) { h.log = append(h.log, 2) }},
		{"a write of nobody", "nobody was told", func(h *tale) { h.log = append(h.log, 99) }},
		{"a stale read", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opRead}, func(o *op) { o.out.state, o.out.pos = state{}, facet.Position{} })
		}},
		{"an answer from before", "was answered from 1.3 by a, after", func(h *tale) {
			h.tell(input{kind: opRead}, func(o *op) { o.out.pos.Seq -= 2; o.out.pos.Sum.Lo -= 2 })
		}},
		{"a read of what was never written", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opRead}, func(o *op) { o.out.state.hash++ })
		}},
		{"a counter that missed one", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opAdd, arg: 1}, func(o *op) { o.out.state.counter-- })
		}},
		{"a register that changed by itself", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opCAS, arg: 1, old: 4}, func(o *op) { o.out.did = false })
		}},
		{"a payment that was not made", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opPay, arg: 10, old: 1}, func(o *op) { o.out.did = false })
		}},
		{"a payment made from an old balance", "is not linearizable", func(h *tale) {
			h.tell(input{kind: opPayTx, arg: 10, old: 1}, func(o *op) { o.out.state.gain[0] += 5; o.out.state.gain[1] -= 5 })
		}},
		{"two owners of an epoch", "has two owners", func(h *tale) {
			h.tell(input{kind: opAppend}, func(o *op) { o.out.life = "b" })
		}},
		{"two contents of a position", "has two checksums", func(h *tale) {
			h.tell(input{kind: opRead}, func(o *op) { o.out.pos.Sum.Hi++ })
		}},
		{"a follower that saw what was taken back", "are not the first ones of the log", func(h *tale) {
			h.l.peeked(glance{state: state{}.with(77)})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(plan{seed: 1}, slog.New(slog.NewTextHandler(io.Discard, nil)))
			w.lasted = time.Second // it is over
			spec := facetSpec{name: facet.Name{Tenant: "sim", Facet: "f"}}
			h := &tale{l: w.ledger(spec.name)}
			work(h)
			c.spoil(h)
			w.judge(spec, h.log)
			expect(t, strings.Join(w.problems, "\n"), c.want)
		})
	}
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if want == "" && got != "" || !strings.Contains(got, want) {
		t.Errorf("noticed %q, want %q", got, want)
	}
}

// TestMoneyNotices: accounts that do not add up, owe or are missing.
func TestMoneyNotices(t *testing.T) {
	for _, c := range []struct {
		rows int
		gain [accounts]int64
		want string
	}{
		{0, [accounts]int64{}, ""},
		{accounts, [accounts]int64{-100, 40, 60, 0}, ""},
		{accounts, [accounts]int64{-10, 0, 0, 0}, "the sum is off by -10"},
		{accounts, [accounts]int64{-101, 101, 0, 0}, "owes 1"},
		{2, [accounts]int64{}, "there are 2"},
	} {
		expect(t, output{rows: c.rows, state: state{gain: c.gain}}.unbalanced(), c.want)
	}
}

// TestLimitsNotice: requests that came too fast for a limit, and not for another.
func TestLimitsNotice(t *testing.T) {
	var list []ran
	for i := range 40 {
		at := time.Duration(i) * 50 * time.Millisecond // 20 a second
		list = append(list, ran{at, at + time.Millisecond})
	}
	if why := tooFast(list, 20); why != "" {
		t.Errorf("20 a second were too many: %s", why)
	}
	if tooFast(list, 10) == "" {
		t.Error("20 a second were not too many for 10")
	}
}

// TestLivenessNotices: a world whose copies do not agree says so, as does one without a
// leader; and a cluster that is down does not pass for one that serves.
func TestLivenessNotices(t *testing.T) {
	p := plan{seed: 1, nodes: 3, replicas: 3, sessions: 1, facets: 1, idleAfter: 5 * time.Second, repairAfter: time.Hour, segment: 256 << 10, logBudget: 1 << 20}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(p, slog.New(slog.DiscardHandler))
		w.names = p.specs()
		w.form()
		w.fast()
		s := w.session(0)
		s.do(t.Context(), w.names[0].name, input{kind: opAdd, id: w.number(), arg: 1}, true)
		if !w.until(agreesWithin, func() bool { return w.disagreement() == "" }) {
			t.Errorf("copies of a sound cluster do not agree: %s", w.disagreement())
		}
		row := placement.Facet{}
		for row = range w.leader().node.Table().Facets() {
			break
		}
		owner := w.machine(row.Owner.Node)
		for _, m := range w.all() {
			if m != owner {
				m.current().stop(time.Second)
			}
		}
		if why := w.disagreement(); why == "" {
			t.Error("a cluster of one node of three passes for one that agrees")
		}
		w.settle()
		expect(t, strings.Join(w.problems, "\n"), "does not serve")
		w.end()
	})
}
