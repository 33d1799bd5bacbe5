package sim

import (
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/gossip"
)

var (
	seeds    = flag.Int("sim.seeds", 8, "how many seeds TestSeeds runs")
	first    = flag.Uint64("sim.first", 1, "the first of them")
	noisy    = flag.Bool("sim.log", false, "print what the nodes log")
	patience = flag.Duration("sim.patience", 5*time.Minute, "real time after which a run is taken to hang")
	parallel = flag.Int("sim.parallel", 1, "how many seeds run at a time")
	with     = flag.String("sim.with", "", "names of faults, with commas, that every run has beside its own")
	pictures = flag.String("sim.pictures", "", "directory for pictures of histories that cannot be")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *parallel > 1 {
		if err := flag.Set("test.parallel", fmt.Sprint(*parallel)); err != nil {
			panic(err)
		}
	}
	// One processor for each bubble. A seed then decides more of what happens, and the
	// race detector is not hit by a defect of Go 1.26: timers that are due at once run
	// where they are set, and in a bubble all of them with one context of the detector,
	// from several processors at a time (runtime.timer.unlockAndRun). It ended in SIGSEGV.
	runtime.GOMAXPROCS(*parallel)
	os.Exit(m.Run())
}

// bubble runs f with a world of its own, and judges how it ended.
func bubble(t *testing.T, p plan, f func(w *world)) *world {
	t.Helper()
	wall := time.Now()
	if *parallel <= 1 {
		cryptotest.SetGlobalRandom(t, p.seed)
	}
	var world atomic.Pointer[world]
	// A run that turns round and round never ends by itself.
	watchdog := time.AfterFunc(*patience, func() {
		if w := world.Load(); w != nil {
			w.mu.Lock()
			fmt.Fprintf(os.Stderr, "%v\nstill running after %v of real time; so far:\n%s\n", p, *patience, strings.Join(w.story, "\n"))
		}
		debug.SetTraceback("all")
		panic("run out of patience")
	})
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		if *noisy {
			log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}
		w := newWorld(p, log)
		w.names = p.specs()
		world.Store(w)
		f(w)
		w.end()
		w.lasted = time.Since(w.began)
	})
	w := world.Load()
	w.judgeAll()
	if len(w.problems) > 0 {
		t.Errorf("%d problems:\n%s\nthe run:\n%s", len(w.problems), strings.Join(w.problems, "\n"), strings.Join(w.story, "\n"))
		t.Errorf("%v\nrun it again: %s", p, replay(p.seed))
	}
	var counts []string
	for what, n := range w.counts {
		counts = append(counts, fmt.Sprintf("%s %d", what, n))
	}
	slices.Sort(counts)
	t.Logf("%v\n%v of virtual time, %v of real time: %s", p, w.lasted.Round(time.Second), time.Since(wall).Round(time.Millisecond), strings.Join(counts, ", "))
	return w
}

// end stops all that runs.
func (w *world) end() {
	var wg sync.WaitGroup
	for _, m := range w.all() {
		if l := m.current(); l != nil {
			wg.Go(func() { l.stop(15 * time.Second) })
		}
	}
	wg.Wait()
	w.wg.Wait()
	time.Sleep(10 * time.Second) // for the last probes of gossip; see gossiptest
}

// form starts the machines a cluster begins with and waits until they answer.
func (w *world) form() {
	var join []string
	for i := range w.plan.nodes {
		join = append(join, fmt.Sprintf("10.0.0.%d:7402", i+1))
	}
	if w.plan.nodes == 1 {
		w.add(1, nil).start()
	} else {
		for range w.plan.nodes {
			w.add(w.plan.nodes, join).start()
		}
	}
	if !w.until(time.Minute, func() bool { return len(w.running()) == w.plan.nodes }) {
		w.problem("the cluster does not form")
	}
	w.tell("the cluster is there")
}

// work runs sessions until the function it returns is called.
func (w *world) work() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range w.plan.sessions {
		s := w.session(i)
		wg.Go(func() { s.run(done) })
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// scenario is a whole run: form, work, break, mend, judge.
func scenario(w *world) {
	w.form()
	stopLimits := w.limits()
	stopWork := w.work()
	watched := make(chan struct{})
	w.wg.Go(func() { w.supervise(watched) })
	time.Sleep(time.Second)
	n := &nemesis{w: w, rng: rand.New(rand.NewPCG(w.plan.seed, 3)), stop: make(chan struct{})}
	n.run(w.plan.length)
	close(watched)
	time.Sleep(3 * time.Second) // some work in a cluster that comes back
	stopWork()
	stopLimits()
	w.settle()
	w.verify()
}

// TestCluster has a cluster form, work and end without any fault.
func TestCluster(t *testing.T) {
	p := plan{seed: 1, nodes: 3, replicas: 3, sessions: 4, facets: 3, fleeting: 1, think: 30 * time.Millisecond, length: 10 * time.Second, idleAfter: 5 * time.Second, repairAfter: 20 * time.Second, segment: 256 << 10, logBudget: 1 << 20}
	bubble(t, p, func(w *world) {
		w.form()
		stop := w.work()
		time.Sleep(p.length)
		stop()
		w.settle()
		w.verify()
	})
}

// TestSeeds breaks clusters in the ways their seeds say.
func TestSeeds(t *testing.T) {
	var sum totals
	began := time.Now()
	t.Cleanup(func() { // behind all seeds, those that run at the same time too
		t.Logf("%v of real time: %v", time.Since(began).Round(time.Second), &sum)
	})
	for i := range *seeds {
		p := draw(*first + uint64(i))
		t.Run(fmt.Sprint(p.seed), func(t *testing.T) {
			if *parallel > 1 {
				t.Parallel()
			}
			sum.add(bubble(t, p, scenario))
		})
	}
}

func none(_, _ cluster.NodeID) bool { return false }

var _ gossip.Network = (*port)(nil)
