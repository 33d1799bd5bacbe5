package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// plan is what a seed decides about a run.
type plan struct {
	seed        uint64
	nodes       int  // that begin the cluster
	grow        int  // nodes that come later
	zones       int  // the nodes are spread over; 0: no node tells one
	replicas    int  // copies of a facet, where there are as many nodes
	capped      bool // a tenant with limits works too
	sessions    int
	facets      int // that stay
	fleeting    int // that are deleted and made again
	think       time.Duration
	length      time.Duration // of the part with faults
	idleAfter   time.Duration
	repairAfter time.Duration
	pause       time.Duration // between faults, on average
	segment     int64         // bytes of a segment of the commit log
	logBudget   int64
	faults      []fault
}

type facetSpec struct {
	name    facet.Name
	deleted bool // now and then
}

func (p plan) String() string {
	names := ""
	for _, f := range p.faults {
		names += " " + f.name
	}
	return fmt.Sprintf("seed %d: %d nodes, %d more later, %d zones, %d copies, %d sessions, %d facets, %d fleeting, limits %t, %v of faults:%s",
		p.seed, p.nodes, p.grow, p.zones, p.replicas, p.sessions, p.facets, p.fleeting, p.capped, p.length, names)
}

// has reports whether a fault is among those of the run.
func (p plan) has(name string) bool {
	return slices.ContainsFunc(p.faults, func(f fault) bool { return f.name == name })
}

// loss is what a crash does to a disk. Where another disk is lost or rots it must not
// leave doubt: a block that is neither old nor new may be a rotten one (R14), and of
// those there is one in the run.
func (p plan) loss(rng *rand.Rand) disk.Loss {
	if !slices.ContainsFunc(p.faults, fault.spoils) {
		return disk.LossAny
	}
	return []disk.Loss{disk.LoseAll, disk.KeepAll, disk.KeepSome}[rng.IntN(3)]
}

// badClocks reports whether clocks may be wrong by more than leases allow for.
func (p plan) badClocks() bool { return p.has("clock") }

func (p plan) specs() (out []facetSpec) {
	for i := range p.facets + p.fleeting {
		out = append(out, facetSpec{facet.Name{Tenant: "sim", Facet: fmt.Sprintf("f%d", i)}, i >= p.facets})
	}
	return out
}

// draw makes the plan of a seed.
func draw(seed uint64) plan {
	r := rand.New(rand.NewPCG(seed, 2))
	p := plan{
		seed: seed, nodes: 3, replicas: 3, sessions: 3 + r.IntN(4), facets: 2 + r.IntN(3),
		think: time.Duration(20+r.IntN(150)) * time.Millisecond, length: time.Duration(20+r.IntN(20)) * time.Second,
		idleAfter: time.Duration(1+r.IntN(6)) * time.Second, repairAfter: 20 * time.Second,
		segment: 64 << 10 << r.IntN(4), logBudget: 256 << 10 << r.IntN(4),
		pause: time.Duration(1000+r.IntN(3000)) * time.Millisecond,
	}
	if r.IntN(3) == 0 {
		p.fleeting = 1
	}
	switch r.IntN(8) {
	case 0:
		p.nodes, p.grow = 1, 2
	case 1:
		p.grow = 1
	case 2:
		p.grow = 2
	case 3:
		// More nodes than copies, some of which vote and some do not.
		p.nodes, p.facets = 5+2*r.IntN(2), p.facets+4
	case 4:
		// From one copy to three, and on to five.
		p.nodes, p.grow, p.replicas = 1, 4, 5
	case 5:
		p.nodes, p.replicas = 5, 5
	}
	if p.nodes > 1 && r.IntN(2) == 0 {
		p.zones = 3
	}
	p.capped = r.IntN(3) == 0
	// Few kinds of fault at a time: each gets far, and pairs meet.
	perm := r.Perm(len(faults))
	for _, i := range perm[:2+r.IntN(5)] {
		p.faults = append(p.faults, faults[i])
	}
	for _, f := range faults {
		if slices.Contains(strings.Split(*with, ","), f.name) && !p.has(f.name) {
			p.faults = append(p.faults, f)
		}
	}
	// One disk at a time may be in doubt: see fault.harms.
	if slices.ContainsFunc(p.faults, fault.spoils) {
		p.faults = slices.DeleteFunc(p.faults, fault.harms)
	}
	if p.has("wipe") {
		p.faults = slices.DeleteFunc(p.faults, func(f fault) bool { return f.name == "rot" })
	}
	return p
}
