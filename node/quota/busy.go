package quota

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
)

const (
	// busyWindow is how many sweeps a window has: what is told as busiest is of the one
	// that runs and the one before.
	busyWindow = 60

	// maxBusy bounds the tenants of a window. Where there are more, those that took least
	// time are forgotten, a quarter at once.
	maxBusy = 4096
)

// Busy is what a tenant did at this node for a while.
type Busy struct {
	Name     facet.Tenant
	Requests int64
	Writes   int64         // requests that changed something
	Bytes    int64         // of requests and answers
	Time     time.Duration // in SQLite
}

func (b *Busy) add(o *Busy) {
	b.Requests += o.Requests
	b.Writes += o.Writes
	b.Bytes += o.Bytes
	b.Time += o.Time
}

// Order says which of two tenants is busier: it is negative where that is a.
type Order func(a, b Busy) int

// Orders are the ways to compare, by name.
var Orders = map[string]Order{
	"requests": func(a, b Busy) int { return cmp.Compare(b.Requests, a.Requests) },
	"writes":   func(a, b Busy) int { return cmp.Compare(b.Writes, a.Writes) },
	"bytes":    func(a, b Busy) int { return cmp.Compare(b.Bytes, a.Bytes) },
	"time":     func(a, b Busy) int { return cmp.Compare(b.Time, a.Time) },
}

// busy sums up what tenants do, from one sweep to the next: a request only adds to the
// counters of its tenant.
type busy struct {
	mu           sync.Mutex
	now, before  map[facet.Tenant]*Busy
	sweeps       int // in now
	sweepsBefore int
}

// add takes in what a tenant did since the last sweep.
func (s *busy) add(d *Busy) {
	if *d == (Busy{Name: d.Name}) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = make(map[facet.Tenant]*Busy)
	}
	b := s.now[d.Name]
	if b == nil {
		if len(s.now) >= maxBusy {
			s.forget()
		}
		b = &Busy{Name: d.Name}
		s.now[d.Name] = b
	}
	b.add(d)
}

// forget makes room. s.mu is held.
func (s *busy) forget() {
	all := make([]*Busy, 0, len(s.now))
	for _, b := range s.now {
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b *Busy) int { return cmp.Compare(a.Time, b.Time) })
	for _, b := range all[:len(all)/4+1] {
		delete(s.now, b.Name)
	}
}

// swept ends a sweep.
func (s *busy) swept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeps++; s.sweeps >= busyWindow {
		s.before, s.sweepsBefore = s.now, s.sweeps
		s.now, s.sweeps = nil, 0
	}
}

// Busiest lists up to n tenants, the busiest first, and of how long a time it tells.
func (s *Tenants) Busiest(by Order, n int) (list []Busy, over time.Duration) {
	b := &s.busy
	b.mu.Lock()
	sums := make(map[facet.Tenant]Busy, len(b.now)+len(b.before))
	for _, window := range []map[facet.Tenant]*Busy{b.now, b.before} {
		for name, w := range window {
			sum := sums[name]
			sum.Name = name
			sum.add(w)
			sums[name] = sum
		}
	}
	over = time.Duration(b.sweeps+b.sweepsBefore) * time.Second
	b.mu.Unlock()
	for _, sum := range sums {
		list = append(list, sum)
	}
	slices.SortFunc(list, func(a, b Busy) int { return cmp.Or(by(a, b), cmp.Compare(a.Name, b.Name)) })
	return list[:min(n, len(list))], over
}

// Worked counts what a request was, when it has been executed.
func (t *Tenant) Worked(wrote bool, bytes int64, took time.Duration) {
	if t == nil {
		return
	}
	t.ran.Add(1)
	if wrote {
		t.wrote.Add(1)
	}
	t.bytes.Add(bytes)
	t.took.Add(int64(took))
}
