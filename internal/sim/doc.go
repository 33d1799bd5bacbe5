// Package sim runs whole clusters of facetd in one process, in virtual time, and
// breaks them: real nodes on disks that lose what was not synced, on a network that
// drops, delays and parts, on clocks that drift. Sessions write and read meanwhile,
// and checkers that know nothing of the code under test judge what they were
// answered. It has no code that runs outside of tests, and nobody imports it.
//
// A run follows from a seed: size of the cluster, workload, faults and when they
// come. A failing run prints its seed and the command to run it again:
//
//	go test ./internal/sim -run TestSeeds -sim.first=17 -sim.seeds=1 -v
//
// A long run is the same with more seeds (-sim.seeds=1000 -timeout=0).
//
// What a seed does not decide is the order in which the scheduler of Go runs
// goroutines that are ready at the same virtual moment, and what crypto/rand draws.
// Two runs of one seed therefore take the same faults at the same virtual times and
// may still differ: a seed that failed once may need some runs to fail again
// (-count=20). Nothing depends on how fast the machine is.
//
// Each run is one testing/synctest bubble. It ends only when every goroutine of
// every process life has ended, so a leak fails the run.
package sim
