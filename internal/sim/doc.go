// Package sim runs whole clusters of facetd in one process, in virtual time, and
// breaks them: real nodes on disks that lose what was not synced and rot, on a network
// that drops, delays, repeats and parts, on clocks that drift, run away and jump.
// Sessions write and read meanwhile, and checkers that know nothing of the code under
// test judge what they were answered. It has no code that runs outside of tests, and
// nobody imports it. docs/design/0010-proof.md says what is drawn and checked, and what
// is not.
//
// A run follows from a seed: size of the cluster, workload, faults and when they
// come. A failing run prints its seed and the command to run it again:
//
//	go test ./internal/sim -run TestSeeds -sim.first=17 -sim.seeds=1 -count=10 -v
//
// with -sim.log for what the nodes logged, -sim.pictures=DIR for a picture of a history
// that cannot be. A long run is one command:
//
//	go test ./internal/sim -run TestSeeds -sim.first=100000 -sim.seeds=5000 -sim.parallel=2 -timeout=0 -v
//
// (-sim.with=rot,clock gives every run these faults beside its own.)
//
// It goes on behind a seed that fails, and ends with a summary: what sessions did and
// were answered, which faults there were, which situations they led to and in how many
// seeds, what nodes logged, and the seeds that failed. A situation that is in no seed is
// one the run says nothing about.
//
// What a seed does not decide is the order in which the scheduler of Go runs
// goroutines that are ready at the same virtual moment. (What crypto/rand draws it
// decides where one seed runs at a time.) Two runs of one seed therefore take the same
// faults at the same virtual times and may still differ: a seed that failed once may
// need some runs to fail again. Nothing depends on how fast the machine is.
//
// Each run is one testing/synctest bubble. It ends only when every goroutine of
// every process life has ended, so a leak fails the run. Histories are judged behind it,
// in real time.
package sim
