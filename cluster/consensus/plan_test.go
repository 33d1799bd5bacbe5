package consensus

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
)

var testRules = rules{maxVoters: 5, stableAfter: 5 * time.Second, goneAfter: 10 * time.Minute, silentAfter: time.Second, replaceAfter: 30 * time.Second}

// parseStanding reads "n1 v a self" and the like: id, v (votes) or f (follows)
// or - (no member), zone, then any of self, slow (does not keep up), silent=1m,
// leaving, gone, wiped, moved.
func parseStanding(s string) standing {
	w := strings.Fields(s)
	st := standing{id: cluster.NodeID(w[0]), member: w[1] != "-", votes: w[1] == "v", zone: w[2], status: cluster.StatusAlive, steady: time.Hour}
	st.place = place{w[0], LogID{1}}
	if !st.member {
		st.seen, st.place = st.place, place{}
	}
	for _, o := range w[3:] {
		switch k, v, _ := strings.Cut(o, "="); k {
		case "self":
			st.self, st.seen = true, st.place
		case "slow":
			st.steady = 0
		case "silent":
			st.silent, _ = time.ParseDuration(v)
			st.steady = 0
		case "leaving":
			st.status = cluster.StatusLeaving
		case "gone":
			st.status = cluster.StatusGone
		case "wiped":
			st.seen = place{w[0], LogID{2}}
		case "moved":
			st.seen = place{"elsewhere", LogID{1}}
		case "unasked":
			st.seen = place{}
		default:
			panic(o)
		}
	}
	return st
}

func TestPlan(t *testing.T) {
	for _, tc := range []struct {
		name, nodes, want string
	}{
		{"one alone", "n1 v a self", "none "},
		{"a new one", "n1 v a self; n2 - a", "add n2"},
		{"a new one that did not answer", "n1 v a self; n2 - a unasked", "none "},
		{"a new one that leaves", "n1 v a self; n2 - a leaving", "none "},
		{"two keep one voter", "n1 v a self; n2 f a", "none "},
		{"three grow", "n1 v a self; n2 f a; n3 f a", "promote n2"},
		{"three grow on", "n1 v a self; n2 v a; n3 f a", "promote n3"},
		{"three wait for the slow", "n1 v a self; n2 v a; n3 f a slow", "none "},
		{"another zone first", "n1 v a self; n2 f a; n3 f b", "promote n3"},
		{"four keep three", "n1 v a self; n2 v b; n3 v c; n4 f d", "none "},
		{"five vote", "n1 v a self; n2 v b; n3 v c; n4 f d; n5 f d", "promote n4"},
		{"four of five", "n1 v a self; n2 v b; n3 v c; n4 v d", "demote n4"},
		{"a restart is no reason", "n1 v a self; n2 v a; n3 v a silent=10s; n4 f a", "none "},
		{"a long silence is", "n1 v a self; n2 v a; n3 v a silent=40s; n4 f a", "promote n4"},
		{"and then it goes", "n1 v a self; n2 v a; n3 v a silent=40s; n4 v a", "demote n3"},
		{"nobody replaces it", "n1 v a self; n2 v a; n3 v a silent=40s gone", "none "},
		{"one that leaves is replaced", "n1 v a self; n2 v a leaving; n3 v a; n4 f a", "promote n4"},
		{"and goes", "n1 v a self; n2 v a leaving; n3 v a; n4 v a", "demote n2"},
		{"the leader leaves", "n1 v a self leaving; n2 v a; n3 v a; n4 v a", "transfer n4"},
		{"an empty zone", "n1 v a self; n2 v a; n3 v b; n4 f c", "promote n4"},
		{"zones as even as can be", "n1 v a self; n2 v a; n3 v b; n4 f b", "none "},
		{"crowded zone", "n1 v a self; n2 v a; n3 v a; n4 f b", "promote n4"},
		{"crowded zone, second step", "n1 v a self; n2 v a; n3 v a; n4 v b", "demote n3"},
		{"wiped", "n1 v a self; n2 v a; n3 v a silent=5s wiped", "remove n3"},
		{"wiped and needed", "n1 v a self; n2 v a silent=5s; n3 v a silent=5s wiped", "none "},
		{"moved", "n1 v a self; n2 v a; n3 v a silent=5s moved", "readdress n3"},
		{"gone for good", "n1 v a self; n2 f a silent=11m gone", "remove n2"},
		{"silent, not given up", "n1 v a self; n2 f a silent=11m", "none "},
	} {
		var nodes []standing
		for _, s := range strings.Split(tc.nodes, ";") {
			nodes = append(nodes, parseStanding(s))
		}
		if c := plan(testRules, nodes); fmt.Sprintf("%v %v", c.do, c.target) != tc.want {
			t.Errorf("%s: %v %v (%s), want %s", tc.name, c.do, c.target, c.why, tc.want)
		}
	}
}

// TestPlanSettles follows the plan from random beginnings. No step may cost a
// working majority, and it must come to rest with as many voters as are wanted,
// spread over the zones as evenly as a count allows.
func TestPlanSettles(t *testing.T) {
	for seed := range 20_000 {
		rng := rand.New(rand.NewPCG(uint64(seed), 5))
		var nodes []standing
		n := 1 + rng.IntN(8)
		for i := range n {
			s := parseStanding(fmt.Sprintf("n%d f %c", i, 'a'+rng.IntN(4)))
			s.votes = rng.IntN(2) == 0
			if rng.IntN(5) == 0 {
				s = parseStanding(fmt.Sprintf("n%d - %s", i, s.zone))
			}
			if s.member && rng.IntN(6) == 0 {
				s.silent, s.steady = time.Hour, 0
			}
			if rng.IntN(8) == 0 {
				s.status = cluster.StatusLeaving
			}
			nodes = append(nodes, s)
		}
		leader := &nodes[rng.IntN(n)]
		leader.self, leader.member, leader.votes, leader.silent, leader.steady = true, true, true, 0, time.Hour
		leader.place = place{string(leader.id), LogID{1}}
		leader.seen = leader.place
		healthy := func() bool {
			votes, works := 0, 0
			for i := range nodes {
				if nodes[i].votes {
					if votes++; testRules.works(&nodes[i]) {
						works++
					}
				}
			}
			return works > votes/2
		}
		if !healthy() {
			continue // it would not lead
		}
		steps := 0
		for ; ; steps++ {
			if steps > 30 {
				t.Fatalf("seed %d: the plan does not come to rest: %+v", seed, nodes)
			}
			c := plan(testRules, nodes)
			if c.do == doNothing {
				break
			}
			i := slices.IndexFunc(nodes, func(s standing) bool { return s.id == c.target })
			s := &nodes[i]
			switch c.do {
			case doAdd:
				s.member, s.place, s.steady = true, c.place, time.Hour
			case doPromote:
				s.votes = true
			case doDemote:
				if s.self {
					t.Fatalf("seed %d: demotes the leader", seed)
				}
				s.votes = false
			case doRemove:
				s.member, s.votes, s.seen = false, false, place{}
			case doTransfer:
				for k := range nodes {
					nodes[k].self = false
				}
				s.self = true
			}
			if !healthy() {
				t.Fatalf("seed %d: %v %v leaves no working majority: %+v", seed, c.do, c.target, nodes)
			}
		}
		members, voters, staying, spare := 0, 0, 0, 0
		for i := range nodes {
			s := &nodes[i]
			if s.member && s.status != cluster.StatusLeaving {
				members++
			}
			if s.votes {
				if voters++; testRules.stays(s) {
					staying++
				}
			} else if testRules.fit(s) {
				spare++
			}
		}
		want := testRules.wanted(members)
		if staying < want && spare > 0 {
			t.Fatalf("seed %d: %d of %d voters stay and %d could replace them: %+v", seed, staying, want, spare, nodes)
		}
		if staying >= want && voters != want {
			t.Fatalf("seed %d: %d voters, want %d: %+v", seed, voters, want, nodes)
		}
	}
}
