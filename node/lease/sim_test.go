package lease

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// sim is a cluster in which facets are taken, given back and activated while nodes
// are told late, stop renewing, and the leader starts over. A node serves a facet
// from its activation until it is told that the facet was taken.
//
// What must hold is the rule leases exist for: while one node is activated for a
// facet, no other one serves it under a lease (R21, R40).
type sim struct {
	*world
	rng    *rand.Rand
	nodes  []*simNode
	facets []facet.Incarnation
	asked  map[facet.Incarnation]chan judgement
	cancel map[facet.Incarnation]context.CancelFunc
	acts   int // activations
	over   int // of facets that somebody else had served before
}

type simNode struct {
	n       byte
	holder  *holder
	serving map[facet.Incarnation]facet.Epoch
	deaf    int // steps until it looks at the table again
	paused  int
}

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{world: newWorld(t), rng: rand.New(rand.NewPCG(seed, 1)),
		asked: map[facet.Incarnation]chan judgement{}, cancel: map[facet.Incarnation]context.CancelFunc{}}
	s.do(register(1))
	for n := byte(2); n <= 4; n++ {
		s.do(register(n))
		x := &simNode{n: n, holder: s.hold(n), serving: map[facet.Incarnation]facet.Epoch{}}
		x.holder.told.Store(s.table.Applied())
		s.nodes = append(s.nodes, x)
	}
	for i := range 6 {
		id := testID(i)
		s.facets = append(s.facets, id)
		s.do(placement.Create{Name: nameOf(i), Incarnation: id, Owner: ownerOf(2), Set: set(2, 3, 4)})
	}
	return s
}

// look tells a node everything there is.
func (s *sim) look(x *simNode) {
	index := s.table.Applied()
	for id, e := range x.serving {
		if row, ok := s.table.ByIncarnation(id); !ok || row.Epoch != e {
			delete(x.serving, id)
		}
	}
	x.holder.told.Store(index)
	x.holder.Wake()
}

// take issues the next epoch of a facet to a node, in one of the ways there are.
func (s *sim) take(id facet.Incarnation) {
	row, _ := s.table.ByIncarnation(id)
	to := s.nodes[s.rng.IntN(len(s.nodes))]
	c := placement.Acquire{Incarnation: id, Owner: ownerOf(to.n), Expected: row.Epoch}
	for _, x := range s.nodes {
		if x.serving[id] != 0 && row.Holder.Node == nodeID(x.n) && x.serving[id] == row.Epoch && s.rng.IntN(3) == 0 {
			delete(x.serving, id) // handed over by its own word
			c.Released = bootID(x.n)
		}
	}
	delete(to.serving, id) // it acts in its new epoch from here on
	s.do(c)
	s.ask(id)
}

// ask has the newest owner of a facet ask for its activation.
func (s *sim) ask(id facet.Incarnation) {
	if c := s.cancel[id]; c != nil {
		c()
		<-s.asked[id]
		delete(s.asked, id)
		delete(s.cancel, id)
	}
	row, _ := s.table.ByIncarnation(id)
	if row.State != placement.Recovering && row.State != placement.Creating {
		return
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	s.cancel[id] = cancel
	s.asked[id] = s.judge(ctx, placement.Activate{Incarnation: id, Epoch: row.Epoch, Boot: row.Owner.Boot})
}

// heed lets those who were activated serve.
func (s *sim) heed() {
	for id, c := range s.asked {
		select {
		case v := <-c:
			delete(s.asked, id)
			s.cancel[id]()
			delete(s.cancel, id)
			if v.err != nil {
				s.ask(id)
				continue
			}
		default:
		}
	}
	for _, id := range s.facets {
		row, _ := s.table.ByIncarnation(id)
		if row.State != placement.Active {
			continue
		}
		for _, x := range s.nodes {
			if ownerOf(x.n) == row.Owner && x.serving[id] != row.Epoch && x.deaf == 0 {
				x.serving[id] = row.Epoch
				s.acts++
			}
		}
	}
}

// check looks for two who serve one facet.
func (s *sim) check() error {
	for _, id := range s.facets {
		row, _ := s.table.ByIncarnation(id)
		if row.State != placement.Active {
			continue
		}
		for _, x := range s.nodes {
			if e := x.serving[id]; e != 0 && e != row.ActiveEpoch && ownerOf(x.n) != row.Owner {
				s.over++
				if x.holder.Valid() {
					return fmt.Errorf("facet %v is served in epoch %v by %v and by n%d in epoch %v", id, row.ActiveEpoch, row.Owner.Node, x.n, e)
				}
			}
		}
	}
	return nil
}

func (s *sim) step() error {
	time.Sleep(time.Duration(1+s.rng.IntN(30)) * time.Millisecond)
	synctest.Wait()
	switch k := s.rng.IntN(1000); {
	case k < 60:
		s.take(s.facets[s.rng.IntN(len(s.facets))])
	case k < 75:
		s.nodes[s.rng.IntN(len(s.nodes))].deaf = s.rng.IntN(200)
	case k < 85:
		x := s.nodes[s.rng.IntN(len(s.nodes))]
		x.paused = s.rng.IntN(200)
		x.holder.Pause()
	case k < 88:
		s.restart()
	}
	for _, x := range s.nodes {
		if x.deaf = max(x.deaf-1, 0); x.deaf == 0 && s.rng.IntN(3) == 0 {
			s.look(x)
		}
		if x.paused > 0 {
			if x.paused--; x.paused == 0 {
				x.holder.Unpause()
			}
		}
	}
	s.heed()
	return s.check()
}

// restart ends the leader's process and begins another.
func (s *sim) restart() {
	if s.rng.IntN(2) == 0 {
		s.stop()
		s.start()
	} else { // a leader that could not follow the table
		s.grants.mu.Lock()
		s.grants.again()
		s.grants.mu.Unlock()
	}
	for _, id := range slices.Clone(s.facets) {
		s.ask(id)
	}
}

func (s *sim) end() {
	for id, c := range s.cancel {
		c()
		if a := s.asked[id]; a != nil {
			<-a
		}
	}
	for _, x := range s.nodes {
		check(s.t, x.holder.Close())
	}
	s.stop()
}

// TestNobodyServesTwice runs the simulation.
func TestNobodyServesTwice(t *testing.T) {
	steps := 4000
	if testing.Short() {
		steps = 1000
	}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSim(t, seed)
				defer s.end()
				for i := range steps {
					if err := s.step(); err != nil {
						t.Errorf("step %d, %v after the start: %v", i, s.clock(), err)
						break
					}
				}
				if s.acts < steps/50 || s.over < steps/100 {
					t.Errorf("%d activations, %d times past an old holder: too few to show anything", s.acts, s.over)
				}
			})
		})
	}
}
