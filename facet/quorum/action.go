package quorum

import (
	"fmt"

	"github.com/facetd/facetd/facet"
)

// ActionKind says what an Action asks for.
type ActionKind uint8

const (
	// ActPrepare: send PREPARE to Slot; the answer comes in by Promised or Nacked.
	ActPrepare ActionKind = iota + 1
	// ActFetch: get the log that ends at Position from Slot, entries from Seq on,
	// or a snapshot where they are no longer in its log, and verify checksums to
	// the end (R19). Entries below Seq are those of the own copy. Keep it aside:
	// nothing may reach the own copy before ActAdopt (R17). End with Fetched or
	// FetchFailed.
	ActFetch
	// ActAdopt: the log that ends at Position is the session's, frozen (R18). Slot
	// is the one it was fetched from, or the own one, whose copy is that log as it
	// stands. Build the pages from it (R23), make the barrier, call Barrier.
	ActAdopt
	// ActShip: send the entries Seq to To to Slot, with Commit as the commit hint.
	// The own copy is a slot like others: append to it (R27).
	ActShip
	// ActSnapshot: send Slot a snapshot at a position from Seq up to To (R44). That it
	// arrived comes in by Filled, what it makes durable by Acked, trouble by
	// SnapshotFailed.
	ActSnapshot
	// ActHint: tell Slot that everything up to Commit is committed.
	ActHint
	// ActActivate: propose ACTIVATE to the placement leader (R21). It has been done
	// when Applied says so.
	ActActivate
	// ActServe: the session is ACTIVE from now on (R22).
	ActServe
	// ActCommitted: the commit index is Commit; open the gate up to it.
	ActCommitted
	// ActCheck: send CHECK for Round to Slot (R34); the answer comes in by Checked
	// or Nacked.
	ActCheck
	// ActConfirmed: quorum reads with tickets up to Round may be answered.
	ActConfirmed
	// ActDie: the session is dead, Err says why. It is the last action.
	ActDie
)

var actionNames = [...]string{"none", "prepare", "fetch", "adopt", "ship", "snapshot", "hint",
	"activate", "serve", "committed", "check", "confirmed", "die"}

func (k ActionKind) String() string {
	if int(k) < len(actionNames) {
		return actionNames[k]
	}
	return fmt.Sprintf("action_%d", uint8(k))
}

// Action is something a Session wants done.
type Action struct {
	Kind     ActionKind
	Slot     int
	Seq, To  facet.Seq
	Commit   facet.Seq
	Round    uint64
	Position facet.Position
}

func (a Action) String() string {
	switch a.Kind {
	case ActPrepare:
		return fmt.Sprintf("prepare %d", a.Slot)
	case ActFetch:
		return fmt.Sprintf("fetch %v from %d, entries from %v", a.Position, a.Slot, a.Seq)
	case ActAdopt:
		return fmt.Sprintf("adopt %v of %d", a.Position, a.Slot)
	case ActShip:
		return fmt.Sprintf("ship %v-%v to %d, commit %v", a.Seq, a.To, a.Slot, a.Commit)
	case ActSnapshot:
		return fmt.Sprintf("snapshot %v-%v to %d", a.Seq, a.To, a.Slot)
	case ActHint:
		return fmt.Sprintf("hint commit %v to %d", a.Commit, a.Slot)
	case ActCommitted:
		return fmt.Sprintf("committed %v", a.Commit)
	case ActCheck:
		return fmt.Sprintf("check round %d at %d", a.Round, a.Slot)
	case ActConfirmed:
		return fmt.Sprintf("confirmed round %d", a.Round)
	}
	return a.Kind.String()
}
