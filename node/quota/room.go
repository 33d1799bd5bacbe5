package quota

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// room holds the facets of one tenant together to its total bytes, although they are
// spread over nodes and no write waits for another node.
//
// The simple version: before a facet grows, ask all nodes how much there is. That costs a
// round for every page. So a node takes grants: it asks, and may then grow by a chunk
// without asking, for grantFor.
//
// Invariant: what all nodes have and hold together is at most the limit. A node that asks
// first announces what it wants (pending) and then asks the others and sums up; what it
// announced is part of what it tells others meanwhile. Of two that ask at a time the later
// one to read sees what the other announced, so they never both take the same room; at
// worst both are refused what only one could have had. What moves between the parts is
// added to the new one before it leaves the old one, so nobody who reads counts too little.
//
// What the invariant does not cover is said in docs/design/0007: facets that change their
// owner while somebody sums up, and nodes that do not answer.
//
// Rejected: dividing what is left by the number of nodes, which refuses an import of half
// of the room; and reservations in the placement table, which put Raft into the way of
// writes.
type room struct {
	left    atomic.Int64 // bytes that may be used without asking
	using   atomic.Int64 // taken from left by transactions that have not ended
	pending atomic.Int64 // announced by who asks now
	until   atomic.Int64 // when left ends, by the clock of set

	// Growth by refused bytes or more is refused without asking until again.
	again   atomic.Int64
	refused atomic.Int64

	asking chan struct{} // holds a token while somebody asks
	known  map[cluster.NodeID]int64
}

const (
	// grantFor is how long a node keeps what it did not use. grantGrace is how much longer
	// others count it: somebody may be on the way to using it.
	grantFor   = 10 * time.Second
	grantGrace = 5 * time.Second

	// grantMost and grantPart bound what a node asks for beyond what it needs: a part of
	// the limit, so that nodes near it do not keep much from each other.
	grantMost = 64 << 20
	grantPart = 64

	// askTimeout bounds one question to all other nodes. The facet that grows waits.
	askTimeout = time.Second

	// refuseFor is how long a tenant at its limit is refused without asking again.
	refuseFor = time.Second
)

// Grow takes n bytes that a facet is to grow by, or says that the tenant is at its limit.
// What it took is given back by Grown. Wait is called before other nodes are asked, which
// may take askTimeout.
func (t *Tenant) Grow(n int64, wait func()) (taken int64, err error) {
	r := t.Rules()
	if r == nil || r.Limits.TotalBytes == 0 || n <= 0 {
		return 0, nil
	}
	if t.room.take(t.set.now(), n) {
		return n, nil
	}
	if t.room.refuses(t.set.now(), n) {
		return 0, t.fullError(n)
	}
	if wait != nil {
		wait()
	}
	t.room.asking <- struct{}{}
	defer func() { <-t.room.asking }()
	switch now := t.set.now(); {
	case t.room.take(now, n): // somebody asked meanwhile
		return n, nil
	case t.room.refuses(now, n) || !t.ask(n) || !t.room.take(t.set.now(), n):
		return 0, t.fullError(n)
	}
	return n, nil
}

// Grown ends what Grow took: the facet has grown by grew bytes, which are among those the
// node tells it owns. Where sure is false nobody knows, and nothing is left of it.
func (t *Tenant) Grown(taken, grew int64, sure bool) {
	if t == nil {
		return
	}
	if grew < 0 {
		t.room.again.Store(0)
	}
	if taken == 0 {
		return
	}
	if unused := taken - max(grew, 0); unused > 0 && sure {
		t.room.left.Add(unused)
	}
	t.room.using.Add(-taken)
}

// Freed tells that a facet of the tenant that was owned here is gone.
func (s *Tenants) Freed(name facet.Tenant) {
	sh := s.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if t := sh.tenants[name]; t != nil {
		t.room.again.Store(0)
	}
}

// Granted is what the tenant holds here for growth. Whoever sums up asks for it before he
// looks at the sizes.
func (s *Tenants) Granted(name facet.Tenant) int64 {
	sh := s.shard(name)
	sh.mu.Lock()
	t := sh.tenants[name]
	sh.mu.Unlock()
	if t == nil {
		return 0
	}
	return t.room.held(s.now()) + t.room.pending.Load()
}

func (r *room) take(now, n int64) bool {
	if now >= r.until.Load() {
		return false
	}
	r.using.Add(n) // first: see the invariant
	for {
		left := r.left.Load()
		if left < n {
			r.using.Add(-n)
			return false
		}
		if r.left.CompareAndSwap(left, left-n) {
			return true
		}
	}
}

func (r *room) refuses(now, n int64) bool { return now < r.again.Load() && n >= r.refused.Load() }

// held is what is used or may be used without asking.
func (r *room) held(now int64) (n int64) {
	if now < r.until.Load()+int64(grantGrace) {
		n = r.left.Load()
	}
	return n + r.using.Load()
}

// ask gets a grant of n bytes at least, or reports that there is no room. Its caller has the token.
func (t *Tenant) ask(n int64) bool {
	r, set := &t.room, t.set
	limit := clamp(t.Rules().Limits.TotalBytes)
	if limit == 0 {
		limit = math.MaxInt64 // it was taken back meanwhile
	}
	if set.now() >= r.until.Load()+int64(grantGrace) {
		r.left.Store(0) // nobody counts it any more
	}
	want := max(n, min(grantMost, limit/grantPart))
	r.pending.Store(want)
	defer r.pending.Store(0) // behind the grant
	var others int64
	if set.opts.Others != nil {
		if r.known == nil {
			r.known = make(map[cluster.NodeID]int64)
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		others = set.opts.Others(ctx, t.name, r.known)
		cancel()
	}
	left := r.left.Load()
	have := others + left + r.using.Load() + set.opts.Own(t.name)
	grant := min(want, limit-have)
	if grant < n-left {
		r.refused.Store(n)
		r.again.Store(set.now() + int64(refuseFor))
		return false
	}
	r.left.Add(grant)
	r.until.Store(set.now() + int64(grantFor))
	return true
}

func (t *Tenant) fullError(n int64) error {
	most := t.Rules().Limits.TotalBytes
	return &facet.Error{Code: facet.CodeLimit, Limit: LimitTotalBytes, Message: fmt.Sprintf(
		"the facets of tenant %s are as large as they may be together, and this needs %d bytes more (limit total_bytes = %d): delete rows and VACUUM, or delete facets", t.name, n, most)}
}
