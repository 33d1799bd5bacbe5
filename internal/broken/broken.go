// Package broken breaks the ownership rules on purpose, one at a time, in a binary that
// is built for that: with the build tag facetd_broken the environment variable
// FACETD_BREAK names the rule that does not hold in this process. It owns the list of
// what can be broken. Where a rule is enforced the code asks Is; what then happens is
// the mistake that the rule forbids, in the code that really runs. Package
// internal/mutation knows for each switch the test that must fail, and runs it.
//
// In every other build Is is a constant false: the compiler takes the question and the
// mistake away, and no name of a switch is in the binary (internal/mutation
// TestNoSwitchInProduct). Is reads what was decided when the process began, and may be
// called by any goroutine. Nothing else belongs here: a switch that makes something
// testable instead of wrong is no switch.
package broken

// Switch names one way to break a rule. Those that the models know have the name of
// their flag (docs/model).
type Switch string

// The comment of each switch begins with the rules it breaks and says what goes wrong
// then. internal/mutation reads it.
const (
	// R1: a facet is made under the id of one that was deleted.
	ReusedID Switch = "REUSED_ID"

	// R2: a process goes on in an epoch that was issued to an earlier life of its node.
	ResumeEpoch Switch = "RESUME_EPOCH"
	// R2: the next epoch of a facet is the one it has.
	EpochStands Switch = "EPOCH_STANDS"
	// R2: epochs do not rise with the generation of a table restored by force.
	NoGeneration Switch = "NO_GENERATION"

	// R3: who answers is taken for the member that was there before, whatever its disk
	// and its process life.
	Amnesia Switch = "AMNESIA"
	// R3: another disk may come under the name of a node.
	StoreSwap Switch = "STORE_SWAP"
	// R3: a second process life is registered while the first may hold its lease.
	TwoLives Switch = "TWO_LIVES"
	// R3: two processes may use one data directory.
	NoLock Switch = "NO_LOCK"
	// R3: an older copy of a data directory is taken for the newest one.
	OlderCopy Switch = "OLDER_COPY"
	// R3: the log of another store is read as the own one.
	AnyStore Switch = "ANY_STORE"
	// R3: a member that lost its copy makes an empty one and owns the facet with it.
	LostCopy Switch = "LOST_COPY"

	// R4: copies that the table does not know are deleted.
	DeleteUnknown Switch = "DELETE_UNKNOWN"

	// R5: an append is placed though a higher epoch was promised since it was checked.
	CheckThenAppend Switch = "CHECK_THEN_APPEND"
	// R5: a promise reports what is durable, and leaves out what was placed before it.
	PromiseForgets Switch = "PROMISE_FORGETS"

	// R6: a promise is answered before it is durable.
	NoPromiseDurable Switch = "NO_PROMISE_DURABLE"
	// R6: two process lives may act in one epoch.
	SameEpoch Switch = "SAME_EPOCH"
	// R6: whoever names an epoch may change a copy, whatever the table says.
	OpenDoor Switch = "OPEN_DOOR"

	// R7: a copy takes what a replaced owner sends.
	NoEpochCheck Switch = "NO_EPOCH_CHECK"
	// R7: an entry is placed behind one that it does not follow.
	NoPrev Switch = "NO_PREV"

	// R8: an entry that is there already cuts off what follows it.
	TruncOnDup Switch = "TRUNC_ON_DUP"
	// R8: what is known to be committed may be cut off.
	CutCommitted Switch = "CUT_COMMITTED"
	// R8, I1: two entries at one position are taken for one.
	TwoEntries Switch = "TWO_ENTRIES"

	// R9: the log reports what it has only written.
	NoFsync Switch = "NO_FSYNC"
	// R9: a copy acknowledges an entry when it is placed.
	AckPlaced Switch = "ACK_PLACED"
	// R9: an entry sent again is acknowledged while the first is on its way to the disk.
	AckDup Switch = "ACK_DUP"

	// R10: a commit hint counts for entries that the message did not match.
	CommitHintLen Switch = "CIDX_LEN"
	// R10: a commit hint counts whatever entry lies at its position.
	HintAnyEpoch Switch = "HINT_ANY_EPOCH"

	// R11: pages reach the file that are not known to be committed.
	ApplyAll Switch = "APPLY_ALL"
	// R11: the file is overwritten before the log has what will be in it.
	NoImages Switch = "NO_IMAGES"
	// R11: a checkpoint is recorded before its pages are durable.
	FileNotSynced Switch = "FILE_NOT_SYNCED"

	// R12: a segment is removed with the promises that only it holds.
	NoCarry Switch = "NO_CARRY"

	// R13: the log goes on after an error of the disk.
	DiskErrorPasses Switch = "DISK_ERROR_PASSES"
	// R13: a store goes on after an error of its files.
	FileErrorPasses Switch = "FILE_ERROR_PASSES"

	// R13: the placement log goes on after an error of its disk.
	PlacementErrorPasses Switch = "PLACEMENT_ERROR_PASSES"

	// R14: a rotten last batch is dropped as one that a crash cut short.
	RotIsTorn Switch = "ROT_IS_TORN"
	// R14: a bad batch before good ones is skipped in silence.
	SkipHole Switch = "SKIP_HOLE"

	// R15: commits use up the reserve of a full disk.
	NoReserve Switch = "NO_RESERVE"
	// R15: a node low on space lets transactions begin.
	NoLowWater Switch = "NO_LOW_WATER"

	// R16: the promises of the next set are counted.
	NewSet Switch = "NEWSET"
	// R16: one promise less than a majority is enough.
	MinorityFence Switch = "MINORITY_FENCE"

	// R17: entries leave the new owner before a majority promised.
	EarlyShip Switch = "EARLY_SHIP"
	// R17: commit hints leave the new owner before it is active.
	EarlyHint Switch = "EARLY_HINT"

	// R18: the longest log is adopted, whatever its epoch.
	LongestOnly Switch = "LONGEST_ONLY"

	// R19: the tail of a store that may have lost some of it is believed.
	RotTrust Switch = "ROT_TRUST"
	// R19: a log that cannot be fetched is given up for a shorter one.
	AdoptLess Switch = "ADOPT_LESS"

	// R20: the session serves before its barrier is committed.
	NoBarrier Switch = "NO_BARRIER"
	// R20: adopted entries become committed by counting them.
	NoOwnEpoch Switch = "NO_OWN_EPOCH"

	// R21: ACTIVATE does not compare epoch and owner.
	NoCAS Switch = "NO_CAS"
	// R21: ACTIVATE does not wait for the lease of the owner before.
	NoLeaseWait Switch = "NO_LEASE_WAIT"

	// R22: the session serves before placement has made it the owner.
	NoAct Switch = "NO_ACT"

	// R23: the file of an interrupted checkpoint is used as it is.
	StaleFile Switch = "STALE_FILE"

	// R24: a session whose epoch was replaced lives on.
	Undead Switch = "UNDEAD"
	// R24: a session does not look at the table for who owns its facet.
	DeafOwner Switch = "DEAF_OWNER"
	// R24: requests of a dead session are told that they took no effect.
	Definite Switch = "DEFINITE"

	// R25: a majority of the members that can be reached is enough.
	Shrinks Switch = "SHRINKS"
	// R25: a recovery by force does not wait for the lease of who served last.
	ForceEarly Switch = "FORCE_EARLY"

	// R26: a commit that could not be handed on is taken back, and the session goes on.
	HandOffLost Switch = "HAND_OFF_LOST"

	// R27: the own copy counts without having been asked.
	SelfBypass Switch = "SELF_BYPASS"

	// R28: a commit counts that one member less than a majority holds.
	MinorityCommit Switch = "MINORITY_COMMIT"

	// R29: answers leave before what they saw is committed.
	NoGate Switch = "NO_GATE"
	// R29: errors leave before what they saw is committed.
	ErrorsPass Switch = "ERRORS_PASS"

	// R30, I8: an answer overtakes those that wait.
	OutOfOrder Switch = "OUT_OF_ORDER"

	// R31: the number of an entry that was shipped is used again.
	RollbackReuse Switch = "ROLLBACK_REUSE"
	// R31: the epoch of a dead session is used again.
	SpentEpoch Switch = "SPENT_EPOCH"

	// R32: any number of entries may wait for a majority.
	NoWindow Switch = "NO_WINDOW"
	// R32: a node whose disk stands still keeps its lease.
	StalledKeeps Switch = "STALLED_KEEPS"

	// R33: the lease is tested when the request comes in, and not again.
	CheckBefore Switch = "CHECK_BEFORE"
	// R33: an owner answers reads without a lease.
	NoLease Switch = "NO_LEASE"

	// R34: a round of CHECK counts that began before the read.
	QReadEarly Switch = "QREAD_EARLY"
	// R34: a read that wants a majority is content with the lease.
	LeaseWillDo Switch = "LEASE_WILL_DO"

	// R35: a follower shows what is not known to be committed.
	FollowerAhead Switch = "FOLLOWER_AHEAD"
	// R35: a follower answers before it has reached the bookmark.
	NoBookmark Switch = "NO_BOOKMARK"

	// R36: a lease is granted without an entry of the placement log.
	NoVerify Switch = "NO_VERIFY"
	// R36: a renewal is granted that came in after the entry of its round.
	EarlyVerify Switch = "EARLY_VERIFY"
	// R36: a grant is answered before it is recorded.
	ReplyFirst Switch = "REPLY_FIRST"

	// R37: a lease counts from the receipt of its grant.
	FromReceipt Switch = "FROM_RECEIPT"
	// R37: a lease is counted on a clock that stands still in suspend.
	Suspend Switch = "SUSPEND"

	// R38: there is no margin for clocks that drift.
	NoMargin Switch = "NO_MARGIN"

	// R39: a new placement leader waits for no lease of its predecessors.
	NoNewWait Switch = "NO_NEW_WAIT"
	// R39: a new placement leader counts from an entry before the last of its predecessor.
	OldEntry Switch = "OLD_ENTRY"
	// R39: a deposed placement leader goes on granting.
	StaleGrant Switch = "STALE_GRANT"

	// R40: a lease is renewed though the holder has not heard of what was taken from it.
	NodeLease Switch = "NODE_LEASE"
	// R40: a new placement leader forgets the revocations before its term.
	NoTermIndex Switch = "NO_TERM_INDEX"
	// R40: a node says that it knows of entries that its sessions were not told.
	ToldEarly Switch = "TOLD_EARLY"

	// R41: clocks of one machine that do not agree are trusted.
	NoWatchdog Switch = "NO_WATCHDOG"
	// R41: a clock that runs away from the granter's is trusted.
	NoEcho Switch = "NO_ECHO"
	// R41: a write waits for a lease.
	LeaseForWrites Switch = "LEASE_FOR_WRITES"

	// R42: acknowledgements of learners are counted.
	LearnersCount Switch = "LEARNERS_COUNT"
	// R42: the set is changed before its new members are filled.
	Unfilled Switch = "UNFILLED"
	// R42: a copy is dropped before the set without it is active.
	DropEarly Switch = "DROP_EARLY"

	// R43: a takeover goes on with a change of the set that is under way.
	KeepsChange Switch = "KEEPS_CHANGE"
	// R43: a set shrinks below three members because a node leaves.
	BelowThree Switch = "BELOW_THREE"

	// R44: a snapshot takes the place of a log that holds it already.
	SnapTrunc Switch = "SNAP_TRUNC"
	// R44: a snapshot is sent of what is not committed.
	SnapUncommitted Switch = "SNAP_UNCOMMITTED"
	// R44: a snapshot is recorded before it is durable.
	SnapNotSynced Switch = "SNAP_NOT_SYNCED"
	// R44: a snapshot takes its place without a look at its checksum.
	SnapUnchecked Switch = "SNAP_UNCHECKED"

	// R45: a request that took effect runs again.
	NoDedupe Switch = "NO_DEDUPE"
	// R45: one key answers for another request.
	AnyHash Switch = "ANY_HASH"
	// R45: a key whose row is gone runs as if it were new.
	NoKeyWindow Switch = "NO_KEY_WINDOW"

	// R46: an interactive transaction holds the facet for as long as it likes.
	EndlessTx Switch = "ENDLESS_TX"
	// R46: a request of an interactive transaction that has ended runs on its own.
	GhostTx Switch = "GHOST_TX"

	// R47: a facet is taken for new that may have had another owner.
	NoFence Switch = "NO_FENCE"
	// R47: a deletion ends while its last holder may answer reads.
	TombEarly Switch = "TOMB_EARLY"
	// R47: what comes for a deleted facet makes it anew.
	NoTomb Switch = "NO_TOMB"
	// R47: a facet is deleted by a node that did not serve it last.
	DeleteUnfenced Switch = "DELETE_UNFENCED"

	// R48: a clone has the idempotency keys of its origin.
	CloneKeys Switch = "CLONE_KEYS"
	// R48: a clone begins with what is not committed.
	CloneUncommitted Switch = "CLONE_UNCOMMITTED"

	// R49: a name is led to another facet whatever it leads to now.
	BindAny Switch = "BIND_ANY"

	// R50: on a node alone everything placed is committed.
	SingleEarly Switch = "SINGLE_EARLY"

	// R51: an entry is applied whatever its checksum says.
	NoSum Switch = "NO_SUM"
	// R51: a checkpoint does not verify its file.
	FileUnchecked Switch = "FILE_UNCHECKED"
	// R51: where copies differ the first one is right.
	NoVote Switch = "NO_VOTE"

	// R52: the scrub reads and does not compare.
	BlindScrub Switch = "BLIND_SCRUB"
	// R52: the scrub of the log reads and does not compare.
	BlindLogScrub Switch = "BLIND_LOG_SCRUB"
	// R52: copies that differ are taken for equal.
	BlindAudit Switch = "BLIND_AUDIT"

	// R53: tenants may set what durability rests on.
	AnyPragma Switch = "ANY_PRAGMA"
)
