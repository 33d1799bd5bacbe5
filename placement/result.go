package placement

import (
	"context"
	"fmt"
)

// Outcome is what became of a command. The list is append-only.
type Outcome uint8

const (
	Done    Outcome = 1 // the table is as the command asked
	Existed Outcome = 2 // Create: the name leads to the row given already

	// Refused: nothing changed. The row, where there is one, says why.
	RefusedNoFacet     Outcome = 16 // no row of that incarnation
	RefusedTombstoned  Outcome = 17 // the incarnation is gone for good
	RefusedEpoch       Outcome = 18 // the row is in another epoch than expected
	RefusedBoot        Outcome = 19 // another process life holds the epoch, or is registered
	RefusedState       Outcome = 20 // the row's state does not allow it
	RefusedNode        Outcome = 21 // a node is not registered
	RefusedStore       Outcome = 22 // a node is registered with another store, or the store with another node
	RefusedSet         Outcome = 23 // the owner is not in the set
	RefusedName        Outcome = 24 // the name leads elsewhere, or belongs to another tenant
	RefusedIncarnation Outcome = 25 // the incarnation is in use for another name
	RefusedTenantLimit Outcome = 26 // the tenant has as many facets as it may
	RefusedFull        Outcome = 27 // the table has as many rows as it may
	RefusedLease       Outcome = 28 // the registered boot may still hold its lease
	RefusedCluster     Outcome = 29 // the table is of another cluster
	RefusedGeneration  Outcome = 30 // the generation is below the one there is
	RefusedInUse       Outcome = 31 // the node is active, or a row names it
	RefusedFrozen      Outcome = 32 // the tenant is frozen and gets no facets
)

var outcomeNames = map[Outcome]string{
	Done: "done", Existed: "existed",
	RefusedNoFacet: "no such facet", RefusedTombstoned: "facet is deleted for good",
	RefusedEpoch: "facet is in another epoch", RefusedBoot: "another process life holds it",
	RefusedState: "state does not allow it", RefusedNode: "node is not registered",
	RefusedStore: "node has another store", RefusedSet: "owner is not in the replica set",
	RefusedName: "name leads elsewhere", RefusedIncarnation: "incarnation is in use",
	RefusedTenantLimit: "tenant has as many facets as it may", RefusedFull: "placement table is full",
	RefusedLease: "the node's last process may still hold its lease", RefusedCluster: "another cluster",
	RefusedGeneration: "generation is below the current one", RefusedInUse: "node is in use",
	RefusedFrozen: "tenant is frozen",
}

// String is the outcome in words, empty for one that is not known.
func (o Outcome) String() string { return outcomeNames[o] }

// Error makes an outcome usable with errors.Is.
func (o Outcome) Error() string { return "placement: " + o.String() }

// Refused reports whether the command changed nothing because of what it met.
func (o Outcome) Refused() bool { return o >= RefusedNoFacet }

// Result is the answer to one command: its outcome, the log index it was
// applied at and the row as it is after it, if there is one.
type Result struct {
	Outcome Outcome
	Index   uint64
	Facet   Facet
}

// Err is nil unless the command was refused.
func (r *Result) Err() error {
	if !r.Outcome.Refused() {
		return nil
	}
	return &Refusal{Outcome: r.Outcome, Facet: r.Facet}
}

// Refusal is a refused command as an error; errors.Is finds its Outcome.
type Refusal struct {
	Outcome Outcome
	Facet   Facet // the row that was met, if any
}

func (e *Refusal) Error() string {
	if e.Facet.Incarnation.IsZero() {
		return e.Outcome.Error()
	}
	return fmt.Sprintf("%s: %v in epoch %v, %v", e.Outcome.Error(), e.Facet.Name, e.Facet.Epoch, e.Facet.State)
}

// Unwrap gives the Outcome.
func (e *Refusal) Unwrap() error { return e.Outcome }

// Proposer proposes commands by whatever replicates them.
type Proposer struct {
	// Propose brings one encoded command into the log and returns its encoded
	// result. It may be called by any number of goroutines, and keeps cmd.
	Propose func(ctx context.Context, cmd []byte) ([]byte, error)
}

// Do proposes c. The error is a *Refusal when the table refused it, else what
// Propose gave.
func (p Proposer) Do(ctx context.Context, c Command) (Result, error) {
	out, err := p.Propose(ctx, AppendCommand(make([]byte, 0, 192), c))
	if err != nil {
		return Result{}, err
	}
	r, err := DecodeResult(out)
	if err != nil {
		return Result{}, err
	}
	return r, r.Err()
}
