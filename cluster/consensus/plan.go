package consensus

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/facetd/facetd/cluster"
)

// The membership is kept in order by a loop on the leader that compares what is
// with what should be and takes one step at a time (rule R43). Which step is
// decided here, from values alone.
//
// raft-autopilot does the same job. It was not taken: it promotes every
// non-voter unless given a promoter that decides just what is decided here,
// asks every server for its log position over an RPC of the caller's although
// the leader's transport has seen it, knows neither zones nor replaced disks,
// and removes failed voters without a replacement at hand.

// action is one kind of step.
type action uint8

const (
	doNothing action = iota
	doAdd            // as a member that does not vote
	doAddress        // of a member, which moved
	doPromote
	doDemote
	doRemove
	doTransfer // leadership, to target; the leader is to be demoted next
)

func (a action) String() string {
	return [...]string{"none", "add", "readdress", "promote", "demote", "remove", "transfer"}[a]
}

// change is one step and its reason.
type change struct {
	do     action
	target cluster.NodeID
	place  place // of doAdd and doAddress
	why    string
}

// standing is one node as the leader sees it: a member, or one that may become
// one.
type standing struct {
	id     cluster.NodeID
	zone   string
	member bool
	votes  bool
	self   bool
	place  place // in the configuration

	seen   place // where it says it is, with which log; zero when it was not asked or did not answer
	status cluster.Status
	steady time.Duration // kept up without a break for so long; for members
	silent time.Duration // nothing heard for so long; for members
}

// rules are the numbers of the plan.
type rules struct {
	maxVoters   int
	stableAfter time.Duration
	goneAfter   time.Duration
	silentAfter time.Duration // a member silent for so long does not count as working
	// replaceAfter is how long a voter is silent before another is to take its
	// place. A member silent for less may be just restarting.
	replaceAfter time.Duration
}

func (r *rules) works(s *standing) bool { return s.self || s.silent < r.silentAfter }

// stays is true for a voter that is not to be replaced.
func (r *rules) stays(s *standing) bool {
	return (s.self || s.silent < r.replaceAfter) && s.status != cluster.StatusLeaving
}

// fit is true for a member that may become a voter.
func (r *rules) fit(s *standing) bool {
	return s.member && r.works(s) && s.steady >= r.stableAfter && s.status != cluster.StatusLeaving
}

// wanted is how many voters a cluster of so many members has.
func (r *rules) wanted(members int) int {
	switch {
	case members >= 5 && r.maxVoters >= 5:
		return 5
	case members >= 3:
		return 3
	}
	return 1
}

// plan chooses the next step. Nodes are sorted by id and have the leader among
// them.
func plan(r rules, nodes []standing) change {
	var voters, working, members int
	for i := range nodes {
		s := &nodes[i]
		if s.member && s.status != cluster.StatusLeaving {
			members++
		}
		if s.votes {
			if voters++; r.works(s) {
				working++
			}
		}
	}
	// A voter fewer must leave a majority that works.
	mayLose := func(s *standing) bool {
		w := working
		if r.works(s) {
			w--
		}
		return voters > 1 && w > (voters-1)/2
	}
	for i := range nodes {
		s := &nodes[i]
		switch {
		case s.member && !s.self && !s.place.log.IsZero() && !s.seen.log.IsZero() && s.seen.log != s.place.log:
			// What comes back with another log has forgotten its votes (rule R3).
			if !s.votes || mayLose(s) {
				return change{do: doRemove, target: s.id, why: "its disk was replaced"}
			}
		case s.member && s.seen.address != "" && s.seen != s.place:
			return change{do: doAddress, target: s.id, place: s.seen, why: fmt.Sprintf("it moved from %s", s.place.address)}
		case !s.member && s.seen.address != "" && s.status != cluster.StatusGone && s.status != cluster.StatusLeaving:
			return change{do: doAdd, target: s.id, place: s.seen, why: "it is new"}
		}
	}
	if c := planVoters(r, nodes, voters, r.wanted(members), mayLose); c.do != doNothing {
		return c
	}
	for i := range nodes {
		s := &nodes[i]
		if s.member && !s.votes && !s.self && s.status == cluster.StatusGone && s.silent >= r.goneAfter {
			return change{do: doRemove, target: s.id, why: fmt.Sprintf("it was silent for %v", s.silent.Round(time.Second))}
		}
	}
	return change{}
}

// planVoters moves the set of voters towards the wanted one. A voter that has to
// go stays until its replacement votes: one more that works never hurts the
// majority, one less may.
func planVoters(r rules, nodes []standing, voters, wanted int, mayLose func(*standing) bool) change {
	zones := map[string]int{} // voters that are to stay, by zone
	leader := &nodes[0]
	staying := 0
	for i := range nodes {
		s := &nodes[i]
		if s.self {
			leader = s
		}
		if s.votes && r.stays(s) {
			staying++
			zones[s.zone]++
		}
	}
	// The best one to come: the emptiest zone, then the lowest id.
	var best *standing
	for i := range nodes {
		if s := &nodes[i]; !s.votes && r.fit(s) && (best == nil || zones[s.zone] < zones[best.zone]) {
			best = s
		}
	}
	// The best one to go: one that is to be replaced, then one that does not
	// work now, then the fullest zone; the leader last; then the highest id.
	rank := func(s *standing) int {
		switch {
		case !r.stays(s):
			return 2000
		case !r.works(s):
			return 1000
		}
		k := 10 * zones[s.zone]
		if !s.self {
			k++
		}
		return k
	}
	var order []*standing
	for i := range nodes {
		if nodes[i].votes {
			order = append(order, &nodes[i])
		}
	}
	slices.SortStableFunc(order, func(a, b *standing) int {
		return cmp.Or(cmp.Compare(rank(b), rank(a)), cmp.Compare(b.id, a.id))
	})

	switch {
	case staying < wanted && best != nil:
		return change{do: doPromote, target: best.id, why: fmt.Sprintf("%d of %d voters stay", staying, wanted)}
	case voters <= wanted && best != nil && wanted > 1 && len(order) > 0 && zones[order[0].zone] >= zones[best.zone]+2:
		return change{do: doPromote, target: best.id, why: fmt.Sprintf("zone %q has %d voters, zone %q %d", order[0].zone, zones[order[0].zone], best.zone, zones[best.zone])}
	case voters <= wanted:
		return change{}
	}
	for _, s := range order {
		if !mayLose(s) {
			continue
		}
		if !s.self {
			return change{do: doDemote, target: s.id, why: fmt.Sprintf("%d voters are enough", wanted)}
		}
		for _, o := range order {
			if o != leader && r.works(o) && o.status != cluster.StatusLeaving {
				return change{do: doTransfer, target: o.id, why: "the leader is to vote no more"}
			}
		}
	}
	return change{}
}
