//go:build unix

package e2e

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

// The long run: go test ./internal/e2e -run Chaos -chaos.time=10m -chaos.seed=7 -timeout=0
var (
	chaosTime  = flag.Duration("chaos.time", 0, "inflict random faults on clusters for this time, on loopback and on a network half of it each")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "seed of the random faults; 0 draws one, which is printed")
	chaosFault = flag.String("chaos.fault", "", "inflict only this fault, by its name")
	chaosKeep  = flag.String("chaos.keep", "", "keep logs and data of clusters of tests that failed in this directory")
)

func seed(t *testing.T) uint64 {
	s := *chaosSeed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d: repeat it with -chaos.seed=%d", s, s)
	return s
}

// newSite starts a cluster of three and a load on it.
func newSite(t *testing.T, onWires bool, size loadSize) *site {
	s := seed(t)
	c := newCluster(t, 3, onWires)
	return &site{cluster: c, load: startLoad(c, size, s), rng: rand.New(rand.NewPCG(s, 1))}
}

// short is a load that leaves two cores time for the cluster.
var short = loadSize{facets: 12, callers: 6, pause: 20 * time.Millisecond}

// long is that of long runs.
var long = loadSize{facets: 30, callers: 10, pause: 30 * time.Millisecond}

// TestChaosProcesses kills and pauses the processes of a cluster under load, and
// checks that no acknowledged write is lost, no write with a key is lost or doubled,
// and no read goes back.
func TestChaosProcesses(t *testing.T) {
	if *chaosTime > 0 {
		walk(t, false)
		return
	}
	s := newSite(t, false, short)
	for _, f := range namedFaults("kill the owner of a facet", "pause an owner for long", "kill all") {
		s.inflict(f)
	}
	s.load.finish()
}

// TestChaosNetwork does the same with cut cables.
func TestChaosNetwork(t *testing.T) {
	if *chaosTime > 0 {
		walk(t, true)
		return
	}
	s := newSite(t, true, short)
	for _, f := range namedFaults("cut off an owner from its peers, not from clients", "an owner hears nobody") {
		s.inflict(f)
	}
	s.load.finish()
}

// walk inflicts random faults for half of the time asked for.
func walk(t *testing.T, onWires bool) {
	s := newSite(t, onWires, long)
	var list []fault
	for _, f := range faults {
		if (onWires || !f.wired) && (*chaosFault == "" || *chaosFault == f.name) {
			list = append(list, f)
		}
	}
	if len(list) == 0 {
		t.Skipf("no fault here is called %q", *chaosFault)
	}
	for end := time.Now().Add(*chaosTime / 2); time.Now().Before(end) && !t.Failed(); {
		s.inflict(list[s.rng.IntN(len(list))])
	}
	s.load.finish()
}
