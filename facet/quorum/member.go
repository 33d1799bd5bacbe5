package quorum

import (
	"encoding/hex"
	"fmt"

	"github.com/facetd/facetd/facet"
)

// StoreID is the id of a data directory. Members are counted by it, not by node:
// a wiped or replaced disk is another store and no member (R3).
type StoreID [16]byte

func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// BootID is the id of one process life of a node (R2).
type BootID [16]byte

func (id BootID) String() string { return hex.EncodeToString(id[:]) }

// Member is one store of a replica set and the process life that is registered
// for it; the zero BootID says that none is.
type Member struct {
	Store StoreID
	Boot  BootID
}

// Row is what a session needs of the facet's row in the placement table.
type Row struct {
	Epoch facet.Epoch
	Owner BootID // the process life that Epoch was issued to
	// Active is the set that was activated last, empty before the first time. Next
	// is the set Epoch replicates to. They differ while the set is being changed
	// (R42).
	Active, Next []Member
	ActiveEpoch  facet.Epoch
}

// Health says how far a store's copy can be believed.
type Health uint8

const (
	// Sound: nothing is known against it.
	Sound Health = iota
	// Uncertain: its log is intact, but something acknowledged may have been lost
	// behind its end.
	Uncertain
	// Broken: parts of its log or file are lost or wrong (HOLED of OWNERSHIP.md, or
	// quarantined by R51). It fences, and takes nothing but a snapshot.
	Broken
)

var healthNames = [...]string{"sound", "uncertain", "broken"}

func (h Health) String() string {
	if int(h) < len(healthNames) {
		return healthNames[h]
	}
	return fmt.Sprintf("health_%d", uint8(h))
}

// From says who sent a message: the slot of the session it answers, and the store
// and process life that speak.
type From struct {
	Slot  int
	Store StoreID
	Boot  BootID
}

// Promise is the answer to PREPARE.
type Promise struct {
	Epoch  facet.Epoch
	Last   facet.Position // end of the log when the promise was placed (R5)
	Base   facet.Seq      // everything up to here is in the database file only
	Known  facet.Seq      // everything up to here is known to be committed
	Health Health
}

// NackKind says why a member refused.
type NackKind uint8

const (
	// NackEpoch: a higher epoch was promised.
	NackEpoch NackKind = iota + 1
	// NackTwoLives: the epoch was promised to another boot.
	NackTwoLives
	// NackGap: the entry does not follow the member's log.
	NackGap
	// NackDiverged: the member holds something else there.
	NackDiverged
	// NackDamaged: the member's copy is broken; only a snapshot helps.
	NackDamaged
	// NackBusy: not now. It also stands for FULL and UNKNOWN.
	NackBusy
	// NackDeleted: the member holds a tombstone.
	NackDeleted
)

var nackNames = [...]string{"none", "epoch", "two-lives", "gap", "diverged", "damaged", "busy", "deleted"}

func (k NackKind) String() string {
	if int(k) < len(nackNames) {
		return nackNames[k]
	}
	return fmt.Sprintf("nack_%d", uint8(k))
}

// Nack is a refusal of PREPARE, APPEND or SNAP.
type Nack struct {
	Kind     NackKind
	Epoch    facet.Epoch    // of the session that was refused
	Promised facet.Epoch    // with NackEpoch
	Seq      facet.Seq      // with NackGap: of the entry refused
	Last     facet.Position // with NackGap: end of the member's log
}

// role is what a store is to a session, as bits.
type role uint8

const (
	roleActive role = 1 << iota
	roleNext
	roleLearner
)

// progress is how a session ships to one member.
type progress uint8

const (
	// probing: it is not known where the member's log meets the session's. One
	// entry is in flight at a time.
	probing progress = iota
	// streaming: the logs meet below next; entries are sent without waiting.
	streaming
	// filling: the member needs a snapshot.
	filling
)

var progressNames = [...]string{"probing", "streaming", "filling"}

func (p progress) String() string { return progressNames[p] }

// member is what a session knows of one store.
//
// Invariant: acked <= match < next while streaming; entries match+1 to next-1 are
// then in flight. Next never exceeds the session's last entry by more than one.
type member struct {
	Member
	role role
	vote int8 // index in the tracker, -1 for none
	down bool

	promised bool
	promise  Promise
	fetchAt  Instant // not asked for its log before this

	progress progress
	next     facet.Seq
	match    facet.Seq // up to here its log is believed to be ours
	acked    facet.Seq // up to here it said so, durably: what is counted
	step     facet.Seq // how far the next GAP makes probing step back
	unsure   bool      // filling, but only because there was no entry left to ask with
	waiting  bool      // a probe, a snapshot, or a PREPARE is on its way
	retryAt  Instant   // when to act though nothing was heard
	hinted   facet.Seq // commit index it was told last

	checked uint64 // latest round of CHECK it said YES to
	asked   uint64 // latest round it was sent
	askedAt Instant
}
