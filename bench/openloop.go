package bench

import (
	"sync"
	"time"
)

// openLoop is the pacer of a fixed rate: call i is due i/rate after the beginning,
// whatever became of the calls before. Calls that are due while every caller is busy
// wait in a queue; one that finds the queue full is dropped, as a server with a
// bounded queue would, and counted. So every call that was due is either made or
// counted as dropped.
//
// The queue is looked at only when a caller comes for work. That loses nothing:
// between two such moments it can only grow.
//
// Invariant: arrived = given + waiting + dropped.
type openLoop struct {
	gap    float64   // nanoseconds from one call to the next
	total  int       // calls due over the whole duration
	begin  time.Time // when call 0 is due
	giveUp time.Time // what waits then is dropped

	mu      sync.Mutex
	arrived int   // calls that were due, or are promised to a caller that waits for them
	queue   []int // ring of the numbers of calls that wait
	head    int
	waiting int
	dropped int64
}

// newOpenLoop paces calls for a duration from now on.
func newOpenLoop(now time.Time, rate float64, d time.Duration, queue int) *openLoop {
	return &openLoop{
		gap: 1e9 / rate, total: max(1, int(d.Seconds()*rate)), begin: now,
		giveUp: now.Add(d + drainWait), queue: make([]int, queue),
	}
}

func (p *openLoop) due(i int) time.Time { return p.begin.Add(time.Duration(float64(i) * p.gap)) }

// arrive takes note of the calls that have become due.
func (p *openLoop) arrive(now time.Time) {
	for ; p.arrived < p.total && !p.due(p.arrived).After(now); p.arrived++ {
		if p.waiting == len(p.queue) {
			p.dropped++
			continue
		}
		p.queue[(p.head+p.waiting)%len(p.queue)] = p.arrived
		p.waiting++
	}
}

// next implements pacer. With nothing due yet the caller gets the next call to come,
// and waits for it.
func (p *openLoop) next() (int, time.Time, bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrive(now)
	if now.After(p.giveUp) {
		p.dropped += int64(p.waiting)
		p.waiting = 0
	}
	if p.waiting > 0 {
		i := p.queue[p.head]
		p.head, p.waiting = (p.head+1)%len(p.queue), p.waiting-1
		return i, p.due(i), true
	}
	if p.arrived == p.total {
		return 0, time.Time{}, false
	}
	i := p.arrived
	p.arrived++
	return i, p.due(i), true
}

// outcome tells how many calls have been due, and how many of them were dropped. It
// is asked when no caller is left; calls that were never begun because the run was
// ended early count as not due.
func (p *openLoop) outcome() (due, dropped int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(p.arrived - p.waiting), p.dropped
}
