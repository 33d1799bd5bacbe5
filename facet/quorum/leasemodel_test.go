package quorum

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

// leaseWorld is lease.pml with real code in it: one holder, two placement leaders
// of which one really leads, renewals and grants with any delay, clocks that
// drift as far as the margin allows, and a facet that is taken from the holder
// while it lives.
type leaseWorld struct {
	rng    *rand.Rand
	at     Instant
	lease  Lease
	drift  [3]int64 // per mille, of the holder and both leaders
	boot   BootID
	known  uint64 // index the holder has applied
	log    uint64
	taken  uint64 // index of the revocation, 0 for none
	live   bool   // the new owner was activated
	lead   int
	heard  [2]Instant // when an entry came to both leaders' logs: the last one, the one before
	g      [2]*Granter
	rounds [2]leaseRound
	renews []Renewal
	grants []Answer
	read   bool // the holder answered under its lease before the facet was taken
}

type leaseRound struct {
	number uint64
	ended  bool
	ok     bool
}

func (w *leaseWorld) clock(i int) Instant { return w.at + w.at*Instant(w.drift[i])/1000 }

func newLeaseWorld(seed uint64, broken flaw) *leaseWorld {
	w := &leaseWorld{rng: rand.New(rand.NewPCG(seed, 5)), lease: NewLease(0, 0), boot: BootID{1}}
	w.lease.flaws |= broken
	for i := range w.drift {
		w.drift[i] = w.rng.Int64N(65) - 32 // twice 3.2 % of 1.5 s is below 100 ms
	}
	for i := range w.g {
		w.g[i] = NewGranter(0, 0)
		w.g[i].flaws |= broken
	}
	w.elect(0)
	return w
}

func (w *leaseWorld) elect(i int) {
	w.lead = i
	w.log++
	w.rounds[i] = leaseRound{}
	// Whoever wins has the entries that the other's grants rest on, if the other is
	// late to give them, and counts from when the last one came.
	at := w.heard[0]
	if w.g[i].flaws&flawOldEntry != 0 {
		at = w.heard[1]
	}
	w.g[i].Elected(at+at*Instant(w.drift[1+i])/1000, w.log)
}

func (w *leaseWorld) step() error {
	w.at += Instant(w.rng.Int64N(int64(12 * time.Millisecond)))
	if w.rng.IntN(200) == 0 {
		w.at += Instant(w.rng.Int64N(int64(2 * time.Second)))
	}
	i := w.rng.IntN(2)
	g, round := w.g[i], &w.rounds[i]
	switch w.rng.IntN(8) {
	case 0:
		if w.lease.Renew(w.clock(0)) {
			if w.rng.IntN(2) == 0 {
				w.quick()
				return nil
			}
			w.renews = append(w.renews, Renewal{Boot: w.boot, Applied: w.known, Stamp: w.clock(0)})
		}
	case 1:
		if len(w.renews) > 0 {
			k := w.rng.IntN(len(w.renews))
			if err := g.Renew(w.renews[k]); err != nil && err != ErrNotLeading {
				return err
			}
			if w.rng.IntN(2) == 0 {
				w.renews = append(w.renews[:k], w.renews[k+1:]...)
			}
		}
	case 2:
		if len(w.grants) > 0 {
			k := w.rng.IntN(len(w.grants))
			if a := w.grants[k]; a.TTL > 0 {
				w.lease.Granted(a.Stamp, w.clock(0), a.TTL)
			} else {
				w.lease.Refused()
			}
			w.grants = append(w.grants[:k], w.grants[k+1:]...)
		}
	case 3, 4:
		w.round(i, g, round)
	case 5:
		switch x := w.rng.IntN(100); x {
		case 0:
			w.elect(1 - w.lead)
		case 1, 2, 3:
			if w.taken == 0 && w.at > Instant(4*time.Second) {
				w.log++
				w.taken = w.log
				if err := w.g[w.lead].Taken(simFacet, w.boot, w.taken); err != nil {
					return err
				}
			}
		case 4:
			w.known = w.log
		default:
			if w.taken == 0 && x < 20 {
				w.known = w.log
			}
		}
	default:
		if w.taken != 0 && !w.live && w.g[w.lead].MayActivate(simFacet, true, w.clock(1+w.lead)) {
			w.live = true
			w.g[w.lead].Settled(simFacet)
		}
	}
	serves := w.taken == 0 || w.known < w.taken
	if serves && w.lease.Valid(w.clock(0)) {
		w.read = w.read || w.taken == 0
		if w.live {
			return fmt.Errorf("at %v the holder answers, and a new owner is active", time.Duration(w.at))
		}
	}
	return nil
}

// quick is a renewal that nothing delays: only such a one lasts to the end of its
// time, where the margin matters.
func (w *leaseWorld) quick() {
	g, r := w.g[w.lead], &w.rounds[w.lead]
	if r.number != 0 {
		return
	}
	if err := g.Renew(Renewal{Boot: w.boot, Applied: w.known, Stamp: w.clock(0)}); err != nil {
		return
	}
	w.round(w.lead, g, r)
	w.round(w.lead, g, r)
	for r.number != 0 {
		w.round(w.lead, g, r)
	}
	for _, a := range w.grants {
		w.lease.Granted(a.Stamp, w.clock(0), a.TTL)
	}
	w.grants = w.grants[:0]
}

func (w *leaseWorld) round(i int, g *Granter, r *leaseRound) {
	switch {
	case r.number == 0:
		if n, ok := g.Tick(); ok {
			*r = leaseRound{number: n}
			if i == w.lead { // the other takes the entry at once: the earliest there is
				w.heard = [2]Instant{w.at, w.heard[0]}
			}
			if g.flaws&flawReplyFirst != 0 {
				w.grants = g.early(w.grants)
			}
		}
	case !r.ended:
		r.ended, r.ok = true, i == w.lead
		if r.ok {
			w.log++
		}
	case w.rng.IntN(10) == 0 || g.flaws&flawEarlyVerify == 0: // it may be slow to notice
		n := r.number
		r.number = 0
		if !r.ok {
			g.Failed(n)
			return
		}
		w.grants = g.Committed(n, w.clock(1+i), w.grants)
	}
}

func runLease(seed uint64, broken flaw) (*leaseWorld, error) {
	w := newLeaseWorld(seed, broken)
	for range 1500 {
		if err := w.step(); err != nil {
			return w, err
		}
	}
	return w, nil
}

func TestLeaseModel(t *testing.T) {
	seeds := uint64(4000)
	if testing.Short() {
		seeds = 500
	}
	live, read := 0, 0
	for seed := uint64(1); seed <= seeds; seed++ {
		w, err := runLease(seed, 0)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if w.live {
			live++
		}
		if w.read {
			read++
		}
	}
	t.Logf("%d seeds: in %d the holder read under a lease, in %d a new owner became active", seeds, read, live)
	if live < int(seeds)/2 || read < int(seeds)/2 {
		t.Error("too little happened")
	}
}

func TestLeaseModelBroken(t *testing.T) {
	for _, m := range []struct {
		name   string
		broken flaw
	}{
		{"NO_LEASE_WAIT", flawNoLeaseWait}, {"NODE_LEASE", flawNodeLease}, {"FROM_RECEIPT", flawFromReceipt},
		{"NO_MARGIN", flawNoMargin}, {"NO_NEW_WAIT", flawNoNewWait}, {"EARLY_VERIFY", flawEarlyVerify},
		{"REPLY_FIRST", flawReplyFirst}, {"NO_TERM_INDEX", flawNoTermIndex}, {"OLD_ENTRY", flawOldEntry},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= 10000; seed++ {
				if _, err := runLease(seed, m.broken); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("not noticed in 10000 seeds")
		})
	}
}

// TestLeaseHolder has the corners of the holder's side.
func TestLeaseHolder(t *testing.T) {
	l := NewLease(0, 0)
	if !l.Renew(0) || l.Renew(1) || l.Due() != Instant(RenewEvery) {
		t.Error("the first renewal goes at once, the next one after RenewEvery")
	}
	l.Granted(5, 10, LeaseTTL)
	if l.Deadline() != 0 {
		t.Error("a grant for a stamp that was never sent was believed")
	}
	l.Granted(0, 10, LeaseTTL)
	if l.Deadline() != 0 {
		t.Error("stamp 0 precedes the stop mark")
	}
	now := Instant(time.Second)
	l.Renew(now)
	l.Granted(now, now+5, 10*LeaseTTL)
	if l.Deadline() != now.Add(LeaseTTL) || !l.Valid(now.Add(LeaseTTL)-1) || l.Valid(now.Add(LeaseTTL)) {
		t.Errorf("lease ends at %d", l.Deadline())
	}
	l.Refused()
	if !l.Renew(now + 1) {
		t.Error("a refusal asks for another renewal soon")
	}
	l.Pause()
	if l.Renew(now.Add(time.Hour)) || l.Due() != Never || !l.Valid(now+2) {
		t.Error("a pause stops renewals and keeps the lease")
	}
	l.Stop(now + 3)
	l.Granted(now+1, now+4, LeaseTTL)
	if l.Valid(now + 5) {
		t.Error("a grant that was on its way revived a lease given up")
	}
	l.Unpause()
	l.Renew(now.Add(time.Second))
	l.Granted(now.Add(time.Second), now.Add(time.Second), LeaseTTL)
	if !l.Valid(now.Add(time.Second)) {
		t.Error("no new lease after a stop")
	}
}

// TestGranterBounds has the corners of the leader's side.
func TestGranterBounds(t *testing.T) {
	g := NewGranter(0, 0)
	if g.Renew(Renewal{}) != ErrNotLeading || g.MayActivate(simFacet, false, Never-1) {
		t.Error("a node that does not lead decides")
	}
	g.Elected(0, 10)
	for i := range MaxHolders {
		if err := g.Taken(facet.Incarnation{byte(i), byte(i >> 8)}, BootID{byte(i), byte(i >> 8), 1}, 11); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.Taken(facet.Incarnation{0, 0, 9}, BootID{0, 0, 2}, 11); err == nil {
		t.Error("holders without bound")
	}
	end := Instant(LeaseTTL + LeaseMargin)
	if g.MayActivate(facet.Incarnation{1}, true, end-1) || !g.MayActivate(facet.Incarnation{1}, true, end) {
		t.Error("a new leader waits one lease and margin")
	}
	if err := g.Gone(BootID{2, 0, 1}); err != nil || !g.MayActivate(facet.Incarnation{2}, true, 1) {
		t.Error("a process that is gone is waited for")
	}
	if g.Forget(BootID{3, 0, 1}, end-1) || g.Forget(BootID{3, 0, 1}, end) {
		t.Error("a holder was forgotten while a facet waits for it")
	}
	g.Settled(facet.Incarnation{3})
	if !g.Forget(BootID{3, 0, 1}, end) {
		t.Error("a holder cannot be forgotten")
	}
	if err := g.Renew(Renewal{Boot: BootID{3, 0, 1}, Applied: 10, Stamp: 1}); err != nil {
		t.Fatal(err)
	}
	round, _ := g.Tick()
	if _, again := g.Tick(); again {
		t.Error("two rounds run")
	}
	out := g.Committed(round, end, nil)
	if len(out) != 1 || out[0].TTL != 0 || out[0].Applied != 11 {
		t.Errorf("a forgotten holder came back and got %+v", out)
	}
	if out = g.Committed(round, end, nil); len(out) != 0 {
		t.Error("a round ended twice")
	}
}
