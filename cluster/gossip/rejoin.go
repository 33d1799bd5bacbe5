package gossip

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The library finds members through those it knows, and gives up on the dead
// after a while: a node that started before its seeds, or a cluster that was cut
// in two for longer, would stay apart for ever. So this loop goes on looking for
// everybody who ought to be there: seeds, and members that were lost.

// pacer says how long to wait between rounds. It is pure but for the jitter.
type pacer struct {
	t         *Timings
	alone     bool
	missing   int
	tries     int // rounds since the situation changed
	followUps int
}

// next returns the pause after a round. alone: nobody else was in sight after
// it. missing: how many lost members and seeds are not in sight. contacted:
// somebody answered.
func (p *pacer) next(alone bool, missing int, contacted bool) time.Duration {
	if alone != p.alone || missing != p.missing {
		p.alone, p.missing, p.tries, p.followUps = alone, missing, 0, 0
	}
	if contacted && missing > 0 && p.followUps < maxFollowUps {
		p.followUps++
		return p.t.RetryMin
	}
	least, most := p.t.RejoinMin, p.t.RejoinMax
	if alone {
		least, most = p.t.RetryMin, p.t.RetryMax
	}
	if missing == 0 {
		return most
	}
	d := most
	if p.tries < 30 {
		d = min(least<<p.tries, most)
	}
	p.tries++
	return d
}

// maintain is the goroutine that keeps this node in touch. It ends with g.ctx,
// or when the node has left.
func (g *Gossip) maintain() {
	t := &g.set.Timings
	p := pacer{t: t}
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	lonely := false
	first := true // round
	known, settling := false, 0
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.wake:
			g.announce()
			// Many losses at once bring one early round, not many.
			if soon := time.Now().Add(t.RetryMin); g.urgent.Swap(false) && soon.Before(due) {
				due = soon
				timer.Reset(t.RetryMin)
			}
			continue
		case <-timer.C:
		}
		g.mu.Lock()
		left := g.leaving
		if g.roster.forget(time.Now(), t.Forget) > 0 {
			g.changed()
		}
		contested := !g.contested.IsZero() && time.Since(g.contested) < t.Reclaim+t.RejoinMax
		g.mu.Unlock()
		if left {
			return
		}
		missing, contacted := g.round(contested, settling > 0)
		alone := len(g.sight().alive) == 0
		if settling > 0 {
			settling--
		}
		if !alone && !known {
			settling = settleRounds
		}
		known = !alone
		// Seeds that start together do not hear each other in the first round.
		if was := lonely; was != (alone && missing > 0) && !first {
			if lonely = !was; lonely {
				g.report.line(levelWarn, "no other member in sight, trying seeds", "seeds", len(g.set.seeds))
			}
		}
		first = false
		d := p.next(alone, missing, contacted)
		if contested {
			d = min(d, t.RejoinMin)
		}
		if settling > 0 {
			d = min(d, 4*t.Probe)
		}
		d = jitter(d)
		due = time.Now().Add(d)
		timer.Reset(d)
	}
}

// round looks for whoever is missing: everybody who was ever there if nobody is in
// sight, a few otherwise, and with settling one that is there. It returns how many were
// missing and whether anybody answered.
func (g *Gossip) round(contested, settling bool) (missing int, contacted bool) {
	s := g.sight()
	alone := len(s.alive) == 0
	targets := slices.Clone(s.lost)
	if alone {
		for _, a := range g.set.Known {
			if a != g.addr && !slices.Contains(targets, a) {
				targets = append(targets, a)
			}
		}
	}
	for _, sd := range g.set.seeds {
		if g.ctx.Err() != nil {
			return 0, false
		}
		ips, err := g.resolveSeed(sd)
		if err != nil {
			g.report.line(levelDebug, "seed has no address", "seed", sd.host, "error", err)
			if alone {
				missing++
			}
			continue
		}
		for _, ip := range ips {
			a := netip.AddrPortFrom(ip, sd.port)
			if a == g.addr || slices.Contains(targets, a) || s.alive[a] && !contested {
				continue
			}
			targets = append(targets, a)
		}
	}
	if contested && len(targets) == 0 {
		for a := range s.alive {
			targets = append(targets, a)
		}
	}
	missing += len(targets)
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	limit := maxRejoin
	if alone {
		limit = maxJoinAddrs
	}
	targets = targets[:min(len(targets), limit)]
	if settling {
		for a := range s.alive { // in random order
			targets = append(targets, a)
			break
		}
	}
	return missing, g.join(targets) > 0
}

// join swaps states with each of addrs and returns how many answered.
func (g *Gossip) join(addrs []netip.AddrPort) int {
	var answered atomic.Int64
	var wg sync.WaitGroup
	work := make(chan netip.AddrPort, len(addrs))
	for _, a := range addrs {
		work <- a
	}
	close(work)
	for range min(joinWorkers, len(addrs)) {
		wg.Go(func() {
			for a := range work {
				if g.ctx.Err() != nil {
					return
				}
				g.stats.joins.Add(1)
				// An address literal: the library resolves nothing.
				if n, err := g.list.Join([]string{a.String()}); n == 0 {
					g.stats.joinsFailed.Add(1)
					g.report.line(levelDebug, "member did not answer", "addr", a, "error", err)
				} else {
					answered.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return int(answered.Load())
}

// resolveSeed bounds a lookup as it bounds a stream.
func (g *Gossip) resolveSeed(sd seed) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(g.ctx, g.set.Timings.Stream)
	defer cancel()
	return g.set.resolve(ctx, sd.host)
}

func (g *Gossip) sight() sight {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.roster.sight()
}

// jitter spreads d by a fifth either way, so that nodes started together do not
// all call at once.
func jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
