package owner

import (
	"time"

	"github.com/facetd/facetd/facet"
)

// turns is the line of desks that wait for the crew, by tenants: a round of deficits.
// Tenants with desks in line take turns, in a circle. In its turn a tenant has one desk
// served, its oldest, for up to turnTime; what a statement took beyond that the tenant
// owes, and is passed over for as many rounds. So tenants that wait share the time of the
// crew evenly, however many facets and requests each has, and one that is alone has it all.
//
// A tenant may have at most `most` workers, those among them that the watch has counted
// out because their statements take long: a tenant full of those cannot bring more and
// more of them to work while others wait for a processor.
//
// It is guarded by crew.mu.
type turns struct {
	shares  map[facet.Tenant]*share // of tenants with desks
	ring    []*share                // ring[first:] have desks in line; the first is next
	first   int
	waiting int // desks in line
	most    int // workers of one tenant
}

// share is one tenant's part of the crew.
//
// Invariant: it is in the ring exactly while desks of it wait.
type share struct {
	tenant facet.Tenant
	desks  int     // that have it
	line   []*desk // line[first:] wait, oldest first
	first  int
	busy   int // workers that serve a desk of it
	owes   time.Duration
}

const (
	// turnTime is how long a desk is served while others wait: many quick requests, so
	// that changing desks costs little, and short enough that a hundred busy tenants
	// make nobody wait for longer than a person notices.
	turnTime = time.Millisecond

	// mostOwed bounds what a tenant owes: one long statement is no reason to be passed
	// over for as long as it took.
	mostOwed = 100 * turnTime
)

// mostOfOne is how many workers one tenant may have: more than there are hands, so that
// long statements, which the watch counts out, hold nobody of the same tenant up until
// there are many of them.
func mostOfOne(hands int) int { return 2*hands + 2 }

// join gives a desk the share of its tenant, leave takes it back.
func (c *crew) join(d *desk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.line
	s := t.shares[d.name.Tenant]
	if s == nil {
		if t.shares == nil {
			t.shares = make(map[facet.Tenant]*share)
		}
		s = &share{tenant: d.name.Tenant}
		t.shares[s.tenant] = s
	}
	s.desks++
	d.share = s
}

func (c *crew) leave(d *desk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.share.desks--; d.share.desks == 0 {
		delete(c.line.shares, d.share.tenant)
	}
}

// charge books the time of one turn.
func (s *share) charge(took time.Duration) {
	if over := took - turnTime; over > 0 {
		s.owes = min(s.owes+over, mostOwed)
	}
}

// add puts a desk in the line of its tenant.
func (t *turns) add(d *desk) {
	s := d.share
	if len(s.line) == s.first {
		t.ring = push(t.ring, &t.first, s)
	}
	s.line = push(s.line, &s.first, d)
	t.waiting++
}

// push appends to a queue whose items before first are gone.
func push[T any](queue []T, first *int, v T) []T {
	if *first > len(queue)/2 && len(queue) == cap(queue) {
		n := copy(queue, queue[*first:])
		clear(queue[n:])
		queue, *first = queue[:n], 0
	}
	return append(queue, v)
}

// take takes the desk whose turn it is, nil if nobody may have a worker. A tenant that
// owes is passed over and owes a turn less; where all owe, who owes least is next.
func (t *turns) take() *desk {
	var least *share
	for range len(t.ring) - t.first {
		s := t.ring[t.first]
		switch {
		case s.busy >= t.most:
		case s.owes <= 0:
			return t.serve(s)
		default:
			s.owes -= turnTime
			if least == nil || s.owes < least.owes {
				least = s
			}
		}
		t.rotate()
	}
	if least == nil {
		return nil
	}
	for t.ring[t.first] != least {
		t.rotate()
	}
	return t.serve(least)
}

// rotate makes the first of the ring its last.
func (t *turns) rotate() {
	s := t.shift()
	t.ring = push(t.ring, &t.first, s)
}

func (t *turns) shift() *share {
	s := t.ring[t.first]
	t.ring[t.first] = nil
	t.first++
	return s
}

// serve takes the oldest desk of the first of the ring, which goes to the end if it has
// more.
func (t *turns) serve(s *share) *desk {
	t.shift()
	d := s.line[s.first]
	s.line[s.first] = nil
	if s.first++; s.first < len(s.line) {
		t.ring = push(t.ring, &t.first, s)
	} else {
		s.line, s.first = s.line[:0], 0
	}
	if t.first == len(t.ring) {
		t.ring, t.first = t.ring[:0], 0
	}
	t.waiting--
	return d
}

// ahead guesses who is served next, and then.
func (t *turns) ahead() (next [2]*desk) {
	switch rest := t.ring[t.first:]; len(rest) {
	case 0:
	case 1:
		copy(next[:], rest[0].line[rest[0].first:])
	default:
		next[0], next[1] = rest[0].line[rest[0].first], rest[1].line[rest[1].first]
	}
	return next
}
