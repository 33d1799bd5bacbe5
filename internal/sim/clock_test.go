package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/lease"
)

// clocks are those of one machine (R37, R41): the clock of leases, which counts what the
// machine sleeps; the one time servers discipline; and the hardware's.
type clocks struct {
	mu              sync.Mutex
	boot, mono, raw clock
	usual           float64 // how fast they run when they are sound
}

// clock shows value at the moment at and runs at rate since.
type clock struct {
	at    time.Time
	value quorum.Instant
	rate  float64
}

func (c *clock) now() quorum.Instant {
	return c.value + quorum.Instant(float64(time.Since(c.at))*c.rate)
}

// turn has the clock jump, and run at another rate from here on.
func (c *clock) turn(jump quorum.Instant, rate float64) {
	c.value, c.at, c.rate = c.now()+jump, time.Now(), rate
}

// newClocks are clocks that agree with one another.
func newClocks(rate float64, value quorum.Instant) clocks {
	c := clock{at: time.Now(), value: value, rate: rate}
	return clocks{boot: c, mono: c, raw: c, usual: rate}
}

func (c *clocks) leases() quorum.Instant {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.boot.now()
}

func (c *clocks) read() lease.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	return lease.Reading{Boot: c.boot.now(), Mono: c.mono.now(), Raw: c.raw.now()}
}

// sound has all clocks run as they should from here on; what they gained or lost stays.
func (c *clocks) sound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range []*clock{&c.boot, &c.mono, &c.raw} {
		x.turn(0, c.usual)
	}
}

// turn changes how fast the three run, and has them jump.
func (c *clocks) turn(boot, mono, raw float64, jump [3]time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot.turn(quorum.Instant(jump[0]), c.usual*boot)
	c.mono.turn(quorum.Instant(jump[1]), c.usual*mono)
	c.raw.turn(quorum.Instant(jump[2]), c.usual*raw)
}

// badClock has the clocks of a machine be wrong for a while, by more than a lease
// allows for. From then on a read by lease may be old until a watchdog has noticed; all
// else must be as ever (R41).
func (n *nemesis) badClock() {
	l := n.victim()
	if lead := n.w.leader(); lead != nil && n.rng.IntN(3) == 0 {
		l = lead
	}
	if l == nil {
		return
	}
	off := 1 + 0.02 + 0.3*n.rng.Float64()
	if n.rng.IntN(2) == 0 {
		off = 1 / off
	}
	by := n.upTo(5 * time.Second)
	n.w.doubt.Store(true)
	c, what := &l.m.clocks, ""
	switch n.rng.IntN(6) {
	case 0:
		what = fmt.Sprintf("all clocks of %s run at %.3f", l.name, off)
		c.turn(off, off, off, [3]time.Duration{})
	case 1:
		what = fmt.Sprintf("the clocks of %s run at %.3f, its hardware's does not", l.name, off)
		c.turn(off, off, 1, [3]time.Duration{})
	case 2:
		what = fmt.Sprintf("two clocks of %s jump by %v", l.name, by)
		c.turn(1, 1, 1, [3]time.Duration{by, by, 0})
	case 3: // as if it had slept
		what = fmt.Sprintf("the clock of leases of %s jumps by %v", l.name, by)
		c.turn(1, 1, 1, [3]time.Duration{by, 0, 0})
	case 4:
		by = min(by, 2*time.Second)
		what = fmt.Sprintf("the clock of leases of %s jumps back by %v", l.name, by)
		c.turn(1, 1, 1, [3]time.Duration{-by, 0, 0})
	case 5:
		what = fmt.Sprintf("all clocks of %s jump by %v", l.name, by)
		c.turn(1, 1, 1, [3]time.Duration{by, by, by})
	}
	d := n.upTo(15 * time.Second)
	n.w.tell("%s, for %v", what, d)
	n.later(d, func() {
		n.w.tell("no more: %s", what)
		c.sound()
	})
}
