//go:build unix

package e2e

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/facetd/facetd/client"
)

// site is what a fault happens to: a cluster under load.
type site struct {
	*cluster
	load   *load
	rng    *rand.Rand
	next   string // the binary of the next release; empty: there is none
	report *report
	times  int // how often a fault made a name of its own
	// remains: an import may have been cut short, and what is left of it stays where it is
	// for half an hour, so no node can be taken out.
	remains bool
}

// fault is one thing that goes wrong. What it leaves broken is healed after it.
type fault struct {
	name  string
	needs need
	do    func(*site)
	// lasts: do only begins it, and others may happen before it is healed.
	lasts bool
	// shrinks: it takes nodes out.
	shrinks bool
	// alone: it is as much as a cluster of three survives, with what lasts too.
	alone bool
}

// need is what a fault needs of the cluster.
type need uint8

const (
	wiring    need = 1 << iota // links that can be cut
	ownDisks                   // disks that can break
	ownClocks                  // clocks that can be wrong
	twoBuilds                  // another release
	cgroups                    // processor time that can be taken away
)

// can reports what this site has.
func (s *site) can() (n need) {
	if s.wires != nil {
		n |= wiring
	}
	if s.disks != nil {
		n |= ownDisks
	}
	if s.skewed {
		n |= ownClocks
	}
	if s.next != "" {
		n |= twoBuilds
	}
	if canStarve() == nil {
		n |= cgroups
	}
	return n
}

// hold lets a fault last: under it the load goes on.
func (s *site) hold(d time.Duration) { time.Sleep(d) }

// someFacet, someMember and two choose what a fault hits.
func (s *site) someFacet() *loadFacet { return s.load.facets[s.rng.IntN(len(s.load.facets))] }

func (s *site) someMember() *member {
	list := s.alive()
	return list[s.rng.IntN(len(list))]
}

func (s *site) two() (a, b *member) {
	list := s.alive()
	s.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list[0], list[1]
}

// facetOwner is the node that owns some facet.
func (s *site) facetOwner() *member { return s.owner(s.load.probe, s.someFacet().name) }

// span chooses a duration up to most, short ones as often as long ones.
func (s *site) span(least, most time.Duration) time.Duration {
	d := least
	for d < most && s.rng.IntN(2) == 0 {
		d *= 2
	}
	return min(d+time.Duration(s.rng.Int64N(int64(d))), most)
}

var faults = []fault{
	{name: "kill the owner of a facet", do: func(s *site) {
		s.facetOwner().kill()
		s.load.progress() // without the node
	}},
	{name: "kill an owner and start it at once", do: func(s *site) {
		m := s.facetOwner()
		m.kill()
		m.launch()
	}},
	{name: "kill the placement leader", do: func(s *site) {
		s.leader(s.load.probe).kill()
		s.load.progress()
	}},
	{name: "kill two", alone: true, do: func(s *site) {
		a, b := s.two()
		killAll([]*member{a, b})
		s.hold(s.span(200*time.Millisecond, 4*time.Second))
	}},
	{name: "kill all", alone: true, do: func(s *site) { killAll(s.alive()) }},
	{name: "kill one after the other", do: func(s *site) {
		// Each takes over with what the one before left: three quorums that differ.
		for _, m := range s.alive() {
			m.kill()
			s.load.progress()
			m.launch()
			m.ready()
		}
	}},
	{name: "pause an owner", do: func(s *site) {
		m := s.facetOwner()
		m.pause()
		s.hold(pauses[s.rng.IntN(len(pauses))])
		m.resume()
	}},
	{name: "pause an owner for long", do: func(s *site) {
		m := s.facetOwner()
		m.pause()
		s.load.progress() // its facets are served elsewhere
		m.resume()
	}},
	{name: "pause the placement leader", do: func(s *site) {
		m := s.leader(s.load.probe)
		m.pause()
		s.hold(pauses[s.rng.IntN(len(pauses))])
		m.resume()
	}},
	{name: "pause again and again", do: func(s *site) {
		m := s.facetOwner()
		for range 5 {
			m.pause()
			s.hold(s.span(50*time.Millisecond, 2*time.Second))
			m.resume()
			s.hold(s.span(50*time.Millisecond, time.Second))
		}
	}},
	{name: "pause two", alone: true, do: func(s *site) {
		a, b := s.two()
		a.pause()
		b.pause()
		s.hold(s.span(500*time.Millisecond, 4*time.Second))
		a.resume()
		b.resume()
	}},
	{name: "lose a disk", alone: true, do: func(s *site) {
		m := s.someMember()
		m.kill()
		m.wipe()
		s.hold(s.span(100*time.Millisecond, 2*time.Second))
		m.launch()
		m.ready()
		s.repaired(m)
	}},
	{name: "stop one gracefully", do: func(s *site) {
		m := s.facetOwner()
		m.term()
		m.launch()
	}},
	{name: "drain and undrain", do: func(s *site) {
		m := s.facetOwner()
		s.operation(s.load.probe, client.OperationRequest{Kind: "drain", Node: m.name})
		s.operation(s.load.probe, client.OperationRequest{Kind: "undrain", Node: m.name})
	}},
	{name: "rebalance and kill meanwhile", do: func(s *site) {
		if _, err := s.load.probe.StartOperation(s.t.Context(), client.OperationRequest{Kind: "rebalance"}); err != nil {
			s.t.Log("rebalance:", err)
		}
		s.hold(s.span(10*time.Millisecond, 500*time.Millisecond))
		s.someMember().kill()
	}},
	{name: "drain one and kill another", do: func(s *site) {
		a, b := s.two()
		if _, err := s.load.probe.StartOperation(s.t.Context(), client.OperationRequest{Kind: "drain", Node: a.name}); err != nil {
			s.t.Log("drain:", err)
		}
		s.hold(s.span(10*time.Millisecond, 500*time.Millisecond))
		b.kill()
		s.hold(s.span(100*time.Millisecond, 3*time.Second))
		b.launch()
		b.ready()
		s.operation(s.load.probe, client.OperationRequest{Kind: "undrain", Node: a.name})
	}},

	{name: "cut off an owner", needs: wiring, do: func(s *site) {
		s.wires.unplug(s.facetOwner().host)
		s.load.progress()
	}},
	{name: "cut off the placement leader", needs: wiring, do: func(s *site) {
		s.wires.unplug(s.leader(s.load.probe).host)
		s.load.progress()
	}},
	{name: "cut off an owner from its peers, not from clients", needs: wiring, do: func(s *site) {
		m := s.facetOwner()
		for _, o := range s.alive() {
			if o != m {
				s.wires.cut(m.host, o.host)
				s.wires.cut(o.host, m.host)
			}
		}
		s.load.progress()
	}},
	{name: "cut off a node from the placement leader only", needs: wiring, do: func(s *site) {
		l := s.leader(s.load.probe)
		for _, m := range s.alive() {
			if m != l {
				s.wires.cut(m.host, l.host)
				s.wires.cut(l.host, m.host)
				break
			}
		}
		s.hold(s.span(time.Second, 8*time.Second))
		s.load.progress()
	}},
	{name: "cut one way", needs: wiring, do: func(s *site) {
		a, b := s.two()
		s.t.Logf("from %s to %s", a.name, b.name)
		s.wires.cut(a.host, b.host)
		s.hold(s.span(time.Second, 8*time.Second))
		s.load.progress()
	}},
	{name: "an owner hears nobody", needs: wiring, do: func(s *site) {
		m := s.facetOwner()
		for _, o := range s.alive() {
			if o != m {
				s.wires.cut(o.host, m.host)
			}
		}
		s.load.progress()
	}},
	{name: "nobody hears an owner", needs: wiring, do: func(s *site) {
		m := s.facetOwner()
		for _, o := range s.alive() {
			if o != m {
				s.wires.cut(m.host, o.host)
			}
		}
		s.load.progress()
	}},
	{name: "cut all links for a moment", needs: wiring, do: func(s *site) {
		for _, m := range s.alive() {
			s.wires.unplug(m.host)
		}
		s.hold(s.span(200*time.Millisecond, 4*time.Second))
	}},
	{name: "cut and uncut", needs: wiring, do: func(s *site) {
		for range 5 {
			a, b := s.two()
			s.wires.cut(a.host, b.host)
			s.hold(s.span(100*time.Millisecond, 2*time.Second))
			s.wires.heal()
			s.hold(s.span(50*time.Millisecond, time.Second))
		}
	}},
}

// pauses are how long a process is stopped: less than a lease, more than one, and
// until all that waits for it has given up.
var pauses = []time.Duration{500 * time.Millisecond, 3 * time.Second, 10 * time.Second}

// named gives faults by their names.
func namedFaults(names ...string) (list []fault) {
	for _, n := range names {
		for _, f := range faults {
			if f.name == n {
				list = append(list, f)
			}
		}
	}
	if len(list) != len(names) {
		panic(fmt.Sprintf("not all of these are faults: %q", names))
	}
	return list
}

// inflict makes faults happen together, heals the cluster, and waits until it takes
// writes again.
func (s *site) inflict(list ...fault) {
	s.t.Helper()
	s.load.slowestWrite.reset()
	for _, f := range list {
		s.t.Logf("%v: %s", time.Since(s.load.begun).Round(time.Millisecond), f.name)
		f.do(s)
	}
	if last := list[len(list)-1]; last.lasts {
		s.hold(s.span(2*time.Second, 8*time.Second))
	}
	s.heal()
	recovery := s.load.progress()
	pause := s.load.slowestWrite.reset()
	if s.report != nil {
		for _, f := range list {
			s.report.fault(f.name, pause, recovery)
		}
	}
}

// repaired waits until the node keeps a copy of every facet again, and votes: before
// that a second fault may be one too many.
func (s *site) repaired(m *member) {
	s.t.Helper()
	s.operation(s.load.probe, client.OperationRequest{Kind: "repair"})
	s.until(m.name+" keeps every facet", func() error {
		st := s.status(s.load.probe)
		n, ok := st.Node(m.name)
		if !ok || n.Held != st.Facets {
			return fmt.Errorf("it keeps %d of %d", n.Held, st.Facets)
		}
		return nil
	})
	s.voting(s.load.probe, 3)
}
