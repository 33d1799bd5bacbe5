package quorum

import (
	"flag"
	"strings"
	"testing"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run one seed of the simulation and print it")
	worldFlag = flag.String("sim.world", "", "world of that seed")
	flawFlag  = flag.String("sim.flaw", "", "rule to break in it")
	seedsFlag = flag.Uint64("sim.seeds", 0, "seeds per world, 0 for the default")
)

// worlds are the circumstances a session has to cope with.
var worlds = map[string]profile{
	"plain":   {nodes: 3, set: 3, crash: 2, pause: 4, acquire: 4, elect: 1, cut: 2, drop: 20, dup: 80, drift: 20, maxLog: 40, steps: 1800, writes: 50, reads: 30, compact: 6, syncs: 15, renew: true},
	"storm":   {nodes: 3, set: 3, crash: 6, pause: 7, acquire: 10, elect: 4, cut: 2, drop: 60, dup: 200, drift: 20, maxLog: 40, steps: 1800, writes: 60, reads: 15, compact: 6, syncs: 12, renew: true},
	"leases":  {nodes: 3, set: 3, crash: 1, pause: 4, acquire: 1, elect: 2, cut: 4, drop: 5, dup: 20, drift: 30, maxLog: 60, steps: 3000, writes: 25, reads: 70, compact: 1, syncs: 20, renew: true, slow: true},
	"qreads":  {nodes: 3, set: 3, crash: 2, pause: 4, acquire: 2, elect: 2, cut: 6, drop: 15, dup: 60, drift: 20, maxLog: 60, steps: 2100, writes: 30, reads: 60, compact: 4, syncs: 18, renew: true, qreads: true},
	"reconf":  {nodes: 5, set: 3, crash: 3, pause: 4, acquire: 8, elect: 1, cut: 2, drop: 20, dup: 80, drift: 20, maxLog: 40, steps: 2400, writes: 50, reads: 20, compact: 8, syncs: 15, renew: true, reconf: true},
	"small":   {nodes: 4, set: 1, crash: 2, pause: 4, acquire: 8, elect: 1, cut: 1, drop: 20, dup: 80, drift: 20, maxLog: 40, steps: 1800, writes: 50, reads: 20, compact: 8, syncs: 15, renew: true, reconf: true},
	"rot":     {nodes: 3, set: 3, crash: 10, pause: 3, acquire: 1, elect: 1, cut: 15, drop: 60, dup: 40, drift: 20, maxLog: 40, steps: 2400, writes: 80, reads: 5, compact: 6, syncs: 10, renew: true, rot: true},
	"wipe":    {nodes: 3, set: 3, crash: 6, pause: 3, acquire: 6, elect: 1, cut: 1, drop: 20, dup: 80, drift: 20, maxLog: 40, steps: 1800, writes: 60, reads: 10, compact: 6, syncs: 15, renew: true, wipe: true},
	"five":    {nodes: 5, set: 5, crash: 5, pause: 4, acquire: 5, elect: 1, cut: 2, drop: 20, dup: 80, drift: 20, maxLog: 40, steps: 2700, writes: 50, reads: 20, compact: 6, syncs: 15, renew: true},
	"one":     {nodes: 1, set: 1, crash: 5, pause: 2, acquire: 4, elect: 1, drop: 0, dup: 0, drift: 20, maxLog: 60, steps: 1500, writes: 60, reads: 30, compact: 6, syncs: 25, renew: true},
	"figure8": {nodes: 3, set: 3, crash: 4, pause: 8, acquire: 8, elect: 1, cut: 8, drop: 60, dup: 20, maxLog: 60, steps: 2700, writes: 85, reads: 5, syncs: 20, sync1: true},
	"flaps":   {nodes: 3, set: 3, crash: 4, pause: 20, acquire: 25, elect: 1, cut: 2, drop: 200, dup: 20, maxLog: 60, steps: 4000, writes: 85, reads: 5, syncs: 20, sync1: true},
}

var worldOrder = []string{"plain", "storm", "leases", "qreads", "reconf", "small", "rot", "wipe", "five", "one", "figure8", "flaps"}

// profileOf has the facet made active by every second seed, and serve early by every
// fourth.
func profileOf(seed uint64, world string) profile {
	p := worlds[world]
	p.born, p.early = seed%2 == 1, seed%4 == 3
	return p
}

func runSeed(seed uint64, world string, core flaw, sim simFlaw) *world {
	w := newWorld(seed, profileOf(seed, world), core, sim)
	w.run()
	return w
}

func explain(seed uint64, name string, m mutation) string {
	w := newWorld(seed, profileOf(seed, name), m.core, m.sim)
	w.trace = &strings.Builder{}
	w.run()
	return w.trace.String()
}

// TestSimulation runs whole worlds of sessions, replicas, leases and placement
// leaders from seeds, with checkers that know nothing of the rules.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		m := mutation{}
		for _, o := range mutations {
			if o.name == *flawFlag {
				m = o
			}
		}
		name := *worldFlag
		if name == "" {
			name = m.world
		}
		t.Log("\n" + explain(*seedFlag, name, m))
		return
	}
	seeds := uint64(300)
	if testing.Short() {
		seeds = 50
	}
	if *seedsFlag != 0 {
		seeds = *seedsFlag
	}
	for _, name := range worldOrder {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sum world
			for seed := uint64(1); seed <= seeds; seed++ {
				w := runSeed(seed, name, 0, 0)
				if w.err != nil {
					t.Fatalf("seed %d: %v\nreplay: go test -run TestSimulation -v ./facet/quorum -sim.seed %d -sim.world %s", seed, w.err, seed, name)
				}
				sum.activations += w.activations
				sum.acks += w.acks
				sum.readsDone += w.readsDone
				sum.qreads += w.qreads
				sum.snaps += w.snaps
				sum.fetches += w.fetches
				sum.rots += w.rots
				sum.wipes += w.wipes
				sum.reconfs += w.reconfs
				sum.firsts += w.firsts
			}
			t.Logf("%d seeds: %d activations, %d writes acknowledged, %d reads (%d by quorum), %d fetches, %d snapshots, %d rots, %d wipes, %d sets proposed, %d first epochs",
				seeds, sum.activations, sum.acks, sum.readsDone, sum.qreads, sum.fetches, sum.snaps, sum.rots, sum.wipes, sum.reconfs, sum.firsts)
			// A simulation in which nothing happens proves nothing.
			if n := int(seeds); sum.activations < n || sum.firsts < n/2 || sum.acks < 2*n || worlds[name].reads > 5 && sum.readsDone < n/2 {
				t.Errorf("too little happened")
			}
		})
	}
}

type mutation struct {
	name  string
	core  flaw
	sim   simFlaw
	world string
	seeds uint64 // it must fail within so many
}

// mutations are the rules broken on purpose, by the names of the model's flags
// where it has one. The finer points of leases are in TestLeaseModelBroken.
var mutations = []mutation{
	{"NO_BARRIER", 0, simNoBarrier, "storm", 2000},
	{"NO_OWN_EPOCH", 0, simNoOwnEpoch, "flaps", 20000},
	{"EARLY_SHIP", flawEarlyShip, 0, "figure8", 2000},
	{"LONGEST_ONLY", flawLongestOnly, 0, "figure8", 5000},
	{"NEWSET", flawNewSet, 0, "reconf", 2000},
	{"NO_ACT", flawNoAct, 0, "reconf", 2000},
	{"NO_CAS", 0, simNoCAS, "reconf", 2000},
	{"SELF_BYPASS", flawSelfBypass, 0, "storm", 2000},
	{"ROLLBACK_REUSE", 0, simRollbackReuse, "storm", 2000},
	{"SAME_EPOCH", 0, simSameEpoch, "figure8", 5000},
	{"AMNESIA", flawAmnesia, 0, "wipe", 2000},
	{"AMNESIA_REPLICA", 0, simAmnesia, "wipe", 2000},
	{"ROT_TRUST", flawRotTrust, 0, "rot", 2000},
	{"NO_FENCE", 0, simNoFence, "storm", 2000},
	{"SNAP_HEALS", 0, simSnapHeals, "rot", 8000},
	{"EARLY_HINT", flawEarlyHint, 0, "reconf", 2000},
	{"NO_GATE", flawNoGate, 0, "plain", 2000},
	{"CHECK_BEFORE", 0, simCheckBefore, "leases", 2000},
	{"QREAD_EARLY", flawQReadEarly, 0, "qreads", 2000},
	{"NO_LEASE_WAIT", flawNoLeaseWait, 0, "leases", 2000},
	{"NODE_LEASE", flawNodeLease, 0, "leases", 2000},
	{"NO_EPOCH_CHECK", 0, simNoEpochCheck, "storm", 2000},
	{"NO_PREV", 0, simNoPrev, "storm", 2000},
	{"TRUNC_ON_DUP", 0, simTruncOnDup, "storm", 2000},
	{"NO_FSYNC", 0, simNoFsync, "storm", 2000},
	{"NO_PROMISE_DURABLE", 0, simNoPromiseDurable, "figure8", 5000},
}

// TestBrokenRules breaks one rule at a time and wants the simulation to notice:
// a checker that cannot fail proves nothing.
func TestBrokenRules(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			for seed := uint64(1); seed <= m.seeds; seed++ {
				if w := runSeed(seed, m.world, m.core, m.sim); w.err != nil {
					t.Logf("world %s, seed %d, step %d: %v", m.world, seed, w.step, w.err)
					return
				}
			}
			t.Errorf("not noticed in %d seeds of world %s", m.seeds, m.world)
		})
	}
}
