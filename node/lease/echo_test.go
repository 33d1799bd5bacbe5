package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/peer"
)

// drifting is a clock that runs at a rate of its own, which may be changed, and jumps
// when told to. By says what the time is; it never goes back.
type drifting struct {
	by func() time.Duration

	mu    sync.Mutex
	since time.Duration
	at    float64 // what it showed then
	rate  float64
}

func newDrifting(by func() time.Duration, at time.Duration, rate float64) *drifting {
	return &drifting{by: by, since: by(), at: float64(at), rate: rate}
}

func (d *drifting) now() quorum.Instant {
	d.mu.Lock()
	defer d.mu.Unlock()
	return quorum.Instant(d.at + d.rate*float64(d.by()-d.since))
}

func (d *drifting) set(rate float64, jump time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.by()
	d.since, d.at, d.rate = t, d.at+d.rate*float64(t-d.since)+float64(jump), rate
}

// bench is a holder and a granter with a clock each, and a network between them.
type bench struct {
	t           time.Duration
	here, there *drifting
	dog         echoes
	granter     cluster.BootID
}

func newBench(here, there float64) *bench {
	b := &bench{dog: echoes{margin: quorum.LeaseMargin}, granter: bootID(1)}
	by := func() time.Duration { return b.t }
	b.here, b.there = newDrifting(by, time.Hour, here), newDrifting(by, 1000*time.Hour, there)
	return b
}

// renew is one exchange: so long there, kept there, and back.
func (b *bench) renew(to, kept, back time.Duration) verdict {
	x := exchange{sent: b.here.now()}
	b.t += to
	x.got = b.there.now()
	b.t += kept
	x.answered = b.there.now()
	b.t += back
	x.back = b.here.now()
	v := b.dog.take(b.granter, x)
	b.t += max(0, quorum.RenewEvery-to-kept-back)
	return v
}

// run exchanges for a while and gives the last verdict that was one, and when it came.
func (b *bench) run(d, to, kept, back time.Duration) (v verdict, after time.Duration) {
	for begin := b.t; b.t < begin+d; {
		if w := b.renew(to, kept, back); w != fine {
			v, after = w, b.t-begin
		}
	}
	return v, after
}

// TestEchoes: what a clock may do beside another one and what it may not (R41).
func TestEchoes(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name           string
		here, there    float64
		to, kept, back time.Duration
		want           verdict
		within         time.Duration
	}{
		{"alike", 1, 1, ms, 50 * ms, ms, fine, 0},
		{"disciplined", 1.0005, 0.9995, ms, 50 * ms, ms, fine, 0},
		{"0.9 percent", 1.009, 1, ms, 50 * ms, ms, fine, 0},
		{"1.1 percent fast here", 1.011, 1, ms, 50 * ms, ms, tripped, 23 * time.Second},
		{"1.1 percent slow here", 0.989, 1, ms, 50 * ms, ms, tripped, 23 * time.Second},
		{"1.1 percent fast there", 1, 1.011, ms, 50 * ms, ms, tripped, 23 * time.Second},
		{"1.1 percent slow there", 1, 0.989, ms, 50 * ms, ms, tripped, 23 * time.Second},
		{"2 percent, and the leader waits for its disk", 1.02, 1, ms, 300 * ms, ms, tripped, 13 * time.Second},
		{"2 percent over a slow network", 1.02, 1, 40 * ms, 0, 40 * ms, tripped, 20 * time.Second},
		{"hidden behind a slow network", 1.012, 1, 60 * ms, 0, 80 * ms, fine, 0},
		{"one way is slow", 1, 1, 300 * ms, 0, 0, fine, 0},
		{"the other way is slow", 1, 1, 0, 0, 300 * ms, fine, 0},
	} {
		b := newBench(c.here, c.there)
		v, after := b.run(time.Minute, c.to, c.kept, c.back)
		if v != c.want || b.dog.bad != (c.want == tripped) || c.want == tripped && (after < watchWindow || after > c.within) {
			t.Errorf("%s: %v after %v", c.name, v, after)
		}
	}
}

// TestEchoesJump: a jump is seen at once, and forgotten after a window in which the
// clocks agreed.
func TestEchoesJump(t *testing.T) {
	const ms = time.Millisecond
	for _, jump := range []time.Duration{120 * ms, -120 * ms, time.Hour, -time.Hour} {
		for _, there := range []bool{false, true} {
			b := newBench(1, 1)
			b.run(time.Minute, ms, 20*ms, ms)
			clock := b.here
			if there {
				clock = b.there
			}
			clock.set(1, jump)
			if v := b.renew(ms, 20*ms, ms); v != tripped || !b.dog.bad {
				t.Fatalf("jump of %v, there %v: %v", jump, there, v)
			}
			v, after := b.run(time.Minute, ms, 20*ms, ms)
			if v != cleared || b.dog.bad || after < watchWindow || after > watchWindow+time.Second {
				t.Errorf("after a jump of %v: %v after %v", jump, v, after)
			}
		}
	}
	b := newBench(1, 1)
	b.run(time.Minute, ms, 20*ms, ms)
	b.here.set(1, 80*ms)
	if v, _ := b.run(time.Minute, ms, 20*ms, ms); v != fine {
		t.Errorf("less than the margin: %v", v)
	}
}

// TestEchoesReturn: clocks are trusted again only when it is proved that they agree.
func TestEchoesReturn(t *testing.T) {
	const ms = time.Millisecond
	b := newBench(1.02, 1)
	if v, _ := b.run(20*time.Second, ms, 20*ms, ms); v != tripped {
		t.Fatal(v)
	}
	if v, _ := b.run(time.Minute, ms, 20*ms, ms); v != fine || !b.dog.bad {
		t.Errorf("apart still: %v", v)
	}
	// Over this network nothing can be said, neither that nor the contrary.
	if v, _ := b.run(time.Minute, 190*ms, 0, 190*ms); v != fine || !b.dog.bad {
		t.Errorf("nothing is known: %v", v)
	}
	b.here.set(1, 0)
	if v, _ := b.run(time.Minute, 190*ms, 0, 190*ms); v != fine || !b.dog.bad {
		t.Errorf("mended, and nothing is known of it: %v", v)
	}
	if v, _ := b.run(time.Minute, 50*ms, 0, 50*ms); v != cleared || b.dog.bad {
		t.Errorf("mended, over a network that is fast enough: %v", v)
	}
}

// TestEchoesOfAnother: another granter is another clock. It takes a window of its own
// to trust it, and what the last one showed is not held against it.
func TestEchoesOfAnother(t *testing.T) {
	const ms = time.Millisecond
	b := newBench(1, 1)
	b.run(time.Minute, ms, 20*ms, ms)
	b.granter = bootID(2)
	b.there.set(1, 5*time.Hour) // it has another clock
	if v, _ := b.run(time.Minute, ms, 20*ms, ms); v != fine || b.dog.bad {
		t.Errorf("another clock: %v", v)
	}
	b.there.set(1.03, 0)
	if v, _ := b.run(time.Minute, ms, 20*ms, ms); v != tripped {
		t.Fatal(v)
	}
	b.granter = bootID(3)
	b.there.set(1, -time.Hour)
	if v, after := b.run(time.Minute, ms, 20*ms, ms); v != cleared || after < watchWindow || after > watchWindow+time.Second {
		t.Errorf("%v after %v with a sound granter", v, after)
	}
}

// TestEchoesBounds: what cannot have been is no exchange, answers that were overtaken
// are none either, and not more is kept than is meant to be.
func TestEchoesBounds(t *testing.T) {
	var e echoes
	good := exchange{sent: 10, back: 20, got: 5, answered: 6}
	for _, x := range []exchange{
		{sent: 20, back: 10, got: 5, answered: 6}, {sent: 10, back: 20, got: 6, answered: 5},
		{sent: 10, back: 20, got: -1, answered: 6}, {sent: 10, back: 20, got: 5, answered: maxEcho},
		{sent: 10, back: maxEcho, got: 5, answered: 6}, {sent: -1, back: 20, got: 5, answered: 6},
	} {
		if e.take(bootID(1), x) != fine || len(e.kept) != 0 {
			t.Errorf("%+v counts", x)
		}
	}
	e.take(bootID(1), good)
	e.take(bootID(1), exchange{sent: 9, back: 30, got: 5, answered: 6})
	if len(e.kept) != 1 || e.kept[0] != good {
		t.Errorf("kept %+v", e.kept)
	}
	b := newBench(1, 1)
	for range 1000 {
		b.renew(0, 0, 0)
		if len(b.dog.kept) > echoSlots {
			t.Fatalf("%d kept", len(b.dog.kept))
		}
	}
	last := b.dog.kept[len(b.dog.kept)-1]
	if age := last.sent - b.dog.kept[0].sent; age > echoKept || age < quorum.Instant(watchWindow) {
		t.Errorf("kept for %v", time.Duration(age))
	}
	b.t += time.Hour // nobody led, say
	b.renew(0, 0, 0)
	if len(b.dog.kept) != 1 {
		t.Errorf("%d kept of before a long pause", len(b.dog.kept))
	}
}

// TestEchoesProve checks with random clocks and networks that nothing is concluded that
// is not so, and that what the network does not hide is seen.
func TestEchoesProve(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d) + 1)) }
	for range 400 {
		slow := upTo(200 * time.Millisecond)
		held := upTo(300 * time.Millisecond)

		// Rates that wander, never more than one percent apart: silence.
		b := newBench(1, 1)
		for range 200 {
			here := 1 + (r.Float64()-0.5)/20
			b.here.set(here, 0)
			b.there.set(here*(1+(r.Float64()-0.5)*0.0195), 0)
			if v := b.renew(upTo(slow), upTo(held), upTo(slow)); v != fine {
				t.Fatalf("clocks that run alike, network up to %v, kept up to %v: %v", slow, held, v)
			}
		}

		// Further apart than what the network may hide over the time that is kept, at
		// any time: seen.
		apart := 0.0105 + 2*float64(slow*2)/float64(20*time.Second)
		if r.IntN(2) == 0 {
			apart = -apart
		}
		b.here.set(1, 0)
		b.there.set(1+apart*1.02, 0)
		seen := false
		for range 200 {
			v := b.renew(upTo(slow), upTo(held), upTo(slow))
			seen = seen || v == tripped
		}
		if !seen || !b.dog.bad {
			t.Fatalf("%.2f percent apart, network up to %v, not seen", 100*apart, slow)
		}
	}
}

// remote has a holder reach its granter over a network, with a clock of its own.
func remote(clock Clock, way time.Duration, granter func() cluster.BootID, log *slog.Logger) func(*HolderOptions) {
	return func(o *HolderOptions) {
		send := o.Send
		o.Send = func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) {
			time.Sleep(way)
			g, err := send(ctx, r)
			time.Sleep(way)
			g.Granter = granter()
			return g, err
		}
		o.Clock, o.Logger = clock, log
		o.Clocks = func() Reading { t := clock(); return Reading{t, t, t} }
	}
}

// said is a log that remembers.
type said struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), what)
}

// bubbleTime is the time of a bubble, for drifting clocks.
func bubbleTime() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// TestOddHolder: of two holders of one granter the one whose clock runs away has no
// lease by it, though all its own clocks agree, and goes on to renew. When it has been
// set right for a window it has one again.
func TestOddHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for n := byte(1); n <= 3; n++ {
			w.do(register(n))
		}
		var log said
		by := bubbleTime()
		granter := func() cluster.BootID { return bootID(1) }
		sound, odd := newDrifting(by, time.Hour, 1.0002), newDrifting(by, 9*time.Hour, 1)
		h2 := w.hold(2, remote(sound.now, time.Millisecond, granter, quiet()))
		defer h2.Close()
		h3 := w.hold(3, remote(odd.now, time.Millisecond, granter, slog.New(slog.NewTextHandler(&log, nil))))
		defer h3.Close()
		time.Sleep(30 * time.Second)
		if !h2.Valid() || !h3.Valid() || !h2.Trusted() || !h3.Trusted() {
			t.Fatal("no lease by clocks that agree")
		}

		odd.set(0.985, 0) // slow: it believes its lease for longer than the granter does
		time.Sleep(watchWindow + 5*time.Second)
		if h3.Valid() || h3.Trusted() || h3.Deadline() != 0 {
			t.Error("a lease by a clock that runs away")
		}
		if n := log.count("level=ERROR"); n != 1 {
			t.Errorf("%d alarms", n)
		}
		before := len(h3.stamps())
		time.Sleep(watchWindow)
		if n := len(h3.stamps()) - before; n < 20 || h3.Valid() || log.count("level=ERROR") != 1 {
			t.Errorf("%d signs of life in 10 s, a lease: %v, %d alarms", n, h3.Valid(), log.count("level=ERROR"))
		}
		if dead := w.dead(); len(dead) != 0 {
			t.Errorf("dead: %v", dead)
		}
		if !h2.Valid() || !h2.Trusted() {
			t.Error("the sound one has no lease")
		}

		odd.set(1, 0)
		time.Sleep(2*watchWindow + 3*time.Second) // one may hold a part of the bad time
		if !h3.Trusted() || !h3.Valid() || log.count("run alike again") != 1 {
			t.Errorf("trusted %v, a lease %v after the clock was set right", h3.Trusted(), h3.Valid())
		}

		odd.set(1, 150*time.Millisecond)
		time.Sleep(quorum.RenewEvery + slack)
		if h3.Trusted() || h3.Valid() {
			t.Error("a lease after a jump")
		}
	})
}

// TestOddGranter: when the clock of the granter runs away none of its holders has a
// lease, and each has one again when another one has granted them for a window.
func TestOddGranter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by := bubbleTime()
		leader := newDrifting(by, 5*time.Hour, 1.03) // it counts leases over too early
		w := newWorldBy(t, leader.now)
		defer w.stop()
		for n := byte(1); n <= 3; n++ {
			w.do(register(n))
		}
		var mu sync.Mutex
		boot := bootID(1) // guarded by mu
		granter := func() cluster.BootID {
			mu.Lock()
			defer mu.Unlock()
			return boot
		}
		var holders []*holder
		for n := byte(2); n <= 3; n++ {
			clock := newDrifting(by, time.Duration(n)*time.Hour, 1)
			h := w.hold(n, remote(clock.now, 2*time.Millisecond, granter, quiet()))
			defer h.Close()
			holders = append(holders, h)
		}
		own := w.hold(1) // the leader's own: granted by its own clock
		defer own.Close()
		time.Sleep(watchWindow + 3*time.Second)
		for i, h := range holders {
			if h.Trusted() || h.Valid() {
				t.Errorf("holder %d has a lease", i)
			}
		}
		if !own.Valid() || !own.Trusted() {
			t.Error("the leader has nobody to compare with")
		}

		// Another one leads, by a clock that is right.
		leader.set(1, time.Hour)
		mu.Lock()
		boot = bootID(9)
		mu.Unlock()
		time.Sleep(watchWindow - time.Second)
		for i, h := range holders {
			if h.Trusted() {
				t.Errorf("holder %d trusts before a whole window", i)
			}
		}
		time.Sleep(3 * time.Second)
		for i, h := range holders {
			if !h.Trusted() || !h.Valid() {
				t.Errorf("holder %d has no lease by a granter that is right", i)
			}
		}
	})
}
