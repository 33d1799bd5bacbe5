package quota

import (
	"context"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Table is where the settings come from; placement.Table is one.
type Table interface {
	// TenantsVersion goes up with every change of settings. It is asked for every
	// request, and takes no lock.
	TenantsVersion() uint64
	// Settings are those in force, defaults applied, zero where there is no limit.
	Settings(facet.Tenant) facet.TenantSettings
}

// Options of New. Table is needed, and Own where a table has limits of bytes.
type Options struct {
	Table Table
	// Own is how many bytes the facets have that this node owns of a tenant.
	Own func(facet.Tenant) int64
	// Others is how many bytes the other nodes have and hold (Granted) of a tenant, asked
	// for from all of them now. For one that does not answer it goes by known, where it
	// keeps what they said last. Nil: there are no others.
	Others func(ctx context.Context, name facet.Tenant, known map[cluster.NodeID]int64) int64
}

// Tenants are the tenants in use at this node.
type Tenants struct {
	opts   Options
	began  time.Time
	busy   busy
	seed   maphash.Seed
	shards [shards]shard
}

type shard struct {
	mu      sync.Mutex
	tenants map[facet.Tenant]*Tenant
	free    int // of tenants: without a reference
}

// New makes an empty set.
func New(opts Options) (*Tenants, error) {
	if opts.Table == nil {
		return nil, errors.New("quota options: Table is needed")
	}
	if opts.Own == nil {
		opts.Own = func(facet.Tenant) int64 { return 0 }
	}
	s := &Tenants{opts: opts, began: time.Now(), seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].tenants = make(map[facet.Tenant]*Tenant)
	}
	return s, nil
}

// now is the clock of the buckets.
func (s *Tenants) now() int64 { return int64(time.Since(s.began)) }

func (s *Tenants) shard(name facet.Tenant) *shard {
	return &s.shards[maphash.String(s.seed, string(name))%shards]
}

// Use gives the record of a tenant, which Unuse gives back. A nil set has none.
func (s *Tenants) Use(name facet.Tenant) *Tenant {
	if s == nil {
		return nil
	}
	sh := s.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	t := sh.tenants[name]
	switch {
	case t == nil:
		t = &Tenant{set: s, name: name, room: room{asking: make(chan struct{}, 1)}}
		sh.tenants[name] = t
	case t.refs == 0:
		sh.free--
	}
	t.refs++
	return t
}

// Unuse gives back what Use gave. Any tenant that nobody uses makes room where there are
// too many.
func (s *Tenants) Unuse(t *Tenant) {
	if t == nil {
		return
	}
	sh := s.shard(t.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if t.refs--; t.refs > 0 {
		return
	}
	t.free = s.now()
	if sh.free++; sh.free <= maxTenants/shards {
		return
	}
	for name, other := range sh.tenants {
		if other.refs == 0 {
			delete(sh.tenants, name)
			sh.free--
			return
		}
	}
}

// Sweep drops the records that are not needed any more, and measures the others. It is
// called once a second.
func (s *Tenants) Sweep() {
	now := s.now()
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for name, t := range sh.tenants {
			d := t.measure()
			s.busy.add(&d)
			if t.refs == 0 && now-t.free >= int64(keepFor) && t.underWay.Load() == 0 && t.requests.full(now) && t.rows.full(now) && t.room.held(now) == 0 {
				delete(sh.tenants, name)
				sh.free--
			}
		}
		sh.mu.Unlock()
	}
	s.busy.swept()
}

// measure takes the counters over, and returns what was done since the last time.
func (t *Tenant) measure() Busy {
	m := &t.measured
	since := func(last *int64, now int64) int64 {
		d := now - *last
		*last = now
		return d
	}
	m.asked.Store(since(&m.lastAsked, t.asked.Load()))
	m.refused.Store(since(&m.lastRefused, t.refused.Load()))
	m.rows.Store(since(&m.lastRows, t.rowed.Load()))
	now := Busy{t.name, t.ran.Load(), t.wrote.Load(), t.bytes.Load(), time.Duration(t.took.Load())}
	d := Busy{t.name, now.Requests - m.last.Requests, now.Writes - m.last.Writes, now.Bytes - m.last.Bytes, now.Time - m.last.Time}
	m.last = now
	return d
}

// Use is what a tenant does at this node: the last second, and what is under way.
type Use struct {
	Requests, Refused, Rows int64 // of the last second
	UnderWay                int64
}

// Of tells what a tenant does here. One that is not in use does nothing.
func (s *Tenants) Of(name facet.Tenant) Use {
	sh := s.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	t := sh.tenants[name]
	if t == nil {
		return Use{}
	}
	m := &t.measured
	return Use{m.asked.Load(), m.refused.Load(), m.rows.Load(), t.underWay.Load()}
}

// Check says why a tenant may not do something now, nil if it may: nothing while it is
// frozen altogether, and with writes nothing while it is frozen at all.
func (s *Tenants) Check(name facet.Tenant, writes bool) error {
	f := s.opts.Table.Settings(name).Freeze
	if f == facet.FreezeAll || writes && f != facet.NotFrozen {
		return FrozenError(name, f)
	}
	return nil
}

// Len is the number of records, for metrics.
func (s *Tenants) Len() (n int) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.tenants)
		sh.mu.Unlock()
	}
	return n
}
