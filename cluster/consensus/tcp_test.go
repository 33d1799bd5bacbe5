package consensus

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestTCP runs three nodes with logs on disk over real connections, kills the
// leader a few times and measures how long until the next command is committed.
func TestTCP(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	f := newFleet(t, nil)
	f.net = nil
	defer f.stopAll()
	dir := t.TempDir()
	for _, id := range names(3) {
		f.box(id).dir = filepath.Join(dir, string(id))
	}
	start := time.Now()
	f.form(3)
	t.Logf("three nodes have a leader after %v", time.Since(start).Round(time.Millisecond))
	var took []time.Duration
	for round := range rounds {
		victim, other := f.leader(10*time.Second), f.follower()
		if err := f.propose(other, fmt.Sprintf("before %d", round), 5*time.Second); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		victim.dead.Store(true)
		victim.node.peers.streams.Close() // as the kernel does for a dead process
		for i := 0; ; i++ {
			if err := f.propose(other, fmt.Sprintf("after %d.%d", round, i), 10*time.Second); err == nil {
				break
			}
		}
		took = append(took, time.Since(start))
		f.crash(victim.id)
		f.start(victim.id)
		f.see()
		f.until(10*time.Second, "the victim follows", func() bool {
			b := f.boxes[victim.id]
			return b.node.Applied() >= f.leader(10*time.Second).node.Applied()
		})
	}
	slices.Sort(took)
	t.Logf("from the leader's death to the next commit: p50 %v, worst %v of %d", took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took))
	f.check()

	// Throughput and latency of commands, at the leader and through a follower.
	for _, where := range []*box{f.leader(time.Second), f.follower()} {
		for _, callers := range []int{1, 64} {
			each := 1500 / callers
			if testing.Short() {
				each /= 5
			}
			var wg sync.WaitGroup
			start := time.Now()
			for c := range callers {
				wg.Go(func() {
					for i := range each + 1 {
						if err := f.propose(where, fmt.Sprintf("%s %d %d %d", where.id, callers, c, i), 10*time.Second); err != nil && !errors.Is(err, ErrUnknownOutcome) {
							// On a machine that is short of processors leadership may change
							// meanwhile; check finds out what became of the command.
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			all := callers * (each + 1)
			role := "leader"
			if where.id != f.leader(time.Second).id {
				role = "follower"
			}
			t.Logf("%d callers at the %s: %.0f commands/s, %v each", callers, role, float64(all)/time.Since(start).Seconds(),
				(time.Since(start) * time.Duration(callers) / time.Duration(all)).Round(time.Microsecond))
		}
	}
	f.check()
}
