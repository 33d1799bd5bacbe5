//go:build unix

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// The long run: go test ./internal/e2e -run TestChaosNetwork -chaos.time=1h -chaos.seed=7 -timeout=0 -v
var (
	chaosTime  = flag.Duration("chaos.time", 0, "inflict random faults on clusters for this time, in TestChaosNetwork (all that root can do to a machine) or TestChaosProcesses (on loopback)")
	chaosEach  = flag.Duration("chaos.each", 5*time.Minute, "begin with a fresh cluster after this time")
	chaosSeed  = flag.Uint64("chaos.seed", 0, "seed of the random faults, one more for each cluster that follows; 0 draws one, which is printed")
	chaosFault = flag.String("chaos.fault", "", "inflict only faults with one of these words, separated by |, in their names")
	chaosKeep  = flag.String("chaos.keep", "", "keep logs and data of clusters of tests that failed in this directory")
)

func seed(t testing.TB) uint64 {
	s := *chaosSeed
	if s == 0 {
		s = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d: repeat it with -chaos.seed=%d", s, s)
	return s
}

// newSite starts a cluster of three and a load on it.
func newSite(t testing.TB, onWires bool, size loadSize) *site {
	s := seed(t)
	c := newCluster(t, 3, onWires)
	return &site{cluster: c, load: startLoad(c, size, s), rng: rand.New(rand.NewPCG(s, 1))}
}

// short is a load that leaves two cores time for the cluster.
var short = loadSize{facets: 12, callers: 6, pause: 20 * time.Millisecond}

// long is that of long runs.
var long = loadSize{facets: 24, callers: 6, pause: 40 * time.Millisecond}

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
	for _, f := range s.possible() {
		if f.name == "packets of an owner overtake one another" { // where there are TAP devices
			s.inflict(f)
		}
	}
	s.load.finish()
}

// TestChaosDisks does it with a disk that fails, and one that stands still.
func TestChaosDisks(t *testing.T) {
	sd := seed(t)
	c := prepare(t, 3, false, func(int) []string { return nil }, func(c *cluster) {
		var why error
		if c.disks, why = newDisks(t); why != nil {
			t.Skip(why)
		}
	})
	c.start()
	s := &site{cluster: c, load: startLoad(c, short, sd), rng: rand.New(rand.NewPCG(sd, 1))}
	for _, f := range namedFaults("an owner's disk fails", "an owner's disk stands still") {
		s.inflict(f)
	}
	s.load.finish()
}

// walk inflicts random faults on one cluster after the other, and tells in the end what
// was done.
func walk(t *testing.T, onWires bool) {
	sd := seed(t)
	now, next := build(t, "1.0.0", "facetd_faults"), build(t, "2.0.0", "facetd_faults,facetd_next")
	r := newReport()
	defer r.show(t)
	for end := r.begun.Add(*chaosTime); time.Now().Before(end); sd++ {
		left := min(*chaosEach, time.Until(end))
		ok := t.Run(fmt.Sprintf("seed-%d", sd), func(t *testing.T) { stroll(t, r, onWires, sd, left, now, next) })
		if !ok {
			t.Logf("again: go test ./internal/e2e -run '^%s$' -chaos.time=%v -chaos.seed=%d -chaos.keep=/tmp/chaos -timeout=0 -v", t.Name(), left.Round(time.Second), sd)
		}
	}
}

// stroll is one cluster of a walk.
func stroll(t *testing.T, r *report, onWires bool, sd uint64, lasts time.Duration, now, next string) {
	w := &witness{TB: t, report: r}
	run := clusterRun{Seed: sd}
	begun := time.Now()
	defer func() {
		run.Lived, run.Failed = seconds(time.Since(begun)), t.Failed()
		r.run(run)
	}()
	args := func(int) []string {
		return []string{"--idle-after", "2s", "--scrub-every", "8s", "--scrub-rate", "64MiB", "--compare-every", "10s"}
	}
	c := prepare(w, 3, onWires, args, func(c *cluster) {
		c.binary, c.skewed = now, true
		if !onWires {
			return
		}
		var err error
		if c.disks, err = newDisks(w); err != nil {
			c.disks = nil
			t.Log("no faults of disks: ", err)
		}
	})
	c.start()
	first := c.resources()
	s := &site{cluster: c, load: startLoadFor(c, long, sd, r), rng: rand.New(rand.NewPCG(sd, 1)), next: next, report: r}
	run.Facets = len(s.load.facets)
	list := s.possible()
	if len(list) == 0 {
		t.Skipf("no fault here is called %q", *chaosFault)
	}
	var bag, lasting []fault
	for _, f := range list {
		if f.lasts {
			lasting = append(lasting, f)
		}
	}
	for end := begun.Add(lasts); time.Now().Before(end) && !t.Failed(); {
		// Each once before one comes again.
		if len(bag) == 0 {
			bag = append(bag, list...)
			s.rng.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		f := bag[0]
		bag = bag[1:]
		if f.shrinks && s.remains {
			continue
		}
		together := []fault{f}
		if !f.alone && !f.lasts && len(lasting) > 0 && s.rng.IntN(3) == 0 {
			together = []fault{lasting[s.rng.IntN(len(lasting))], f}
		}
		s.inflict(together...)
	}
	run.Entries = s.load.finish()
	if !t.Failed() {
		s.atRest(first)
	}
}

// possible are the faults that can be inflicted here, and are wanted.
func (s *site) possible() (list []fault) {
	can := s.can()
	for _, f := range faults {
		wanted := *chaosFault == ""
		for _, word := range strings.Split(*chaosFault, "|") {
			wanted = wanted || word != "" && strings.Contains(f.name, word)
		}
		if wanted && f.needs&^can == 0 {
			list = append(list, f)
		}
	}
	return list
}
