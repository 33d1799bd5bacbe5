package mutation

import "github.com/facetd/facetd/internal/broken"

// mutant is a way to break a rule and the test that must fail then: the smallest one
// whose failure says what went wrong. pkg may be a package far from the mistake, where
// only the whole shows it.
type mutant struct {
	s    broken.Switch
	pkg  string
	test string
	says string // part of what the failed test says, where it could fail for another reason
}

// mutants has every switch at least once. Some have two: the pure core is simulated
// whole, and the code around it has to be right as well.
var mutants = []mutant{
	{broken.ReusedID, "placement", "TestModel", ""},

	{broken.ResumeEpoch, "facet/quorum", "TestEpochOfAnotherLife", ""},
	{broken.EpochStands, "placement", "TestModel", ""},
	{broken.NoGeneration, "placement", "TestModel", ""},

	{broken.Amnesia, "facet/quorum", "TestStrangersDoNotCount", "by strangers"},
	{broken.StoreSwap, "placement", "TestModel", ""},
	{broken.TwoLives, "node/lease", "TestRegister", ""},
	{broken.NoLock, "node", "TestSecondProcessIsKeptOut", ""},
	{broken.OlderCopy, "node", "TestOlderCopyIsRefused", "older copy"},
	{broken.AnyStore, "facet/commitlog", "TestOpenRefuses", ""},
	{broken.LostCopy, "node/owner", "TestLostCopyIsNotMadeAnew", "made anew"},

	{broken.DeleteUnknown, "node/keeper", "TestSweepTombs", ""},

	{broken.CheckThenAppend, "facet/replica", "TestFenceWhileComparing", "behind a promise"},
	{broken.PromiseForgets, "facet/replica", "TestPromiseTellsWhatIsPlaced", "the promise reports"},

	{broken.NoPromiseDurable, "facet/replica", "TestAcknowledgedOnlyWhenDurable", "promises before the sync"},
	{broken.SameEpoch, "facet/replica", "TestFence", "another boot"},
	{broken.OpenDoor, "node/keeper", "TestDoor", ""},

	{broken.NoEpochCheck, "facet/replica", "TestFence", "a lower epoch"},
	{broken.NoPrev, "facet/replica", "TestAppendRefuses", "behind_an_entry_of_another_epoch"},

	{broken.TruncOnDup, "facet/replica", "TestDuplicatesGapsAndCuts", ""},
	{broken.CutCommitted, "facet/replica", "TestAppendRefuses", "in_place_of_what_is_committed"},
	{broken.TwoEntries, "facet/replica", "TestDivergence", "two entries at one position"},

	{broken.NoFsync, "facet/commitlog", "TestReportedSurvivesAPowerCut", "1 was reported"},
	{broken.AckPlaced, "facet/replica", "TestAcknowledgedOnlyWhenDurable", "before the sync"},
	{broken.AckDup, "facet/replica", "TestAcknowledgedOnlyWhenDurable", "before the sync"},

	{broken.CommitHintLen, "facet/replica", "TestHintEndsAtTheMatch", "by a message about"},
	{broken.HintAnyEpoch, "facet/replica", "TestHintNamesAnEntry", "a hint for"},

	{broken.ApplyAll, "facet/replica", "TestCheckpointNeedsKnown", ""},
	{broken.NoImages, "facet/replica", "TestCrashSweep", ""},
	{broken.FileNotSynced, "facet/replica", "TestCrashSweep", ""},

	{broken.NoCarry, "facet/replica", "TestCollectCarries", ""},

	{broken.DiskErrorPasses, "facet/commitlog", "TestFatalOnce", ""},
	{broken.FileErrorPasses, "facet/replica", "TestDiskFailureEndsTheStore", "goes on"},
	{broken.PlacementErrorPasses, "cluster/consensus", "TestWriteErrorIsFatal", ""},

	{broken.RotIsTorn, "facet/commitlog", "TestTornTail", ""},
	{broken.SkipHole, "facet/commitlog", "TestFlippedBit", ""},

	{broken.NoReserve, "facet/commitlog", "TestFullDisk", ""},
	{broken.NoLowWater, "facet/commitlog", "TestAdmitRefusesFirst", "was not refused before"},

	{broken.NewSet, "facet/quorum", "TestSimulation/reconf", "seed "},
	{broken.MinorityFence, "facet/quorum", "TestSimulation/plain", "seed "},
	{broken.EarlyShip, "facet/quorum", "TestSimulation/plain", "seed "},
	{broken.EarlyHint, "facet/quorum", "TestSimulation/reconf", "seed "},
	{broken.LongestOnly, "facet/quorum", "TestSimulation/plain", "seed "},
	{broken.RotTrust, "facet/quorum", "TestSimulation/rot", "seed "},
	{broken.AdoptLess, "facet/quorum", "TestSimulation/wipe", "seed "},
	{broken.NoBarrier, "facet/quorum", "TestSimulation/plain", "seed "},
	{broken.NoOwnEpoch, "facet/quorum", "TestAdoptedEntriesAreNotCounted", ""},

	{broken.NoCAS, "placement", "TestModel", ""},
	{broken.NoLeaseWait, "facet/quorum", "TestLeaseModel", ""},
	{broken.NoAct, "facet/quorum", "TestSimulation/small", "seed "},

	{broken.StaleFile, "facet/replica", "TestCrashSweep", ""},

	{broken.Undead, "facet/quorum", "TestFencedForGood", "a fenced session"},
	{broken.Undead, "node/owner", "TestReplaced", ""},
	{broken.DeafOwner, "node/owner", "TestTableEndsASession", "goes on"},
	{broken.Definite, "node/owner", "TestReplaced", "write at the old owner"},

	{broken.Shrinks, "node/owner", "TestCloseWithoutMajority", ""},
	{broken.ForceEarly, "node/lease", "TestBindWaits", ""},

	{broken.HandOffLost, "facet/engine", "TestHandOffFails", ""},

	{broken.SelfBypass, "facet/quorum", "TestSimulation/small", "seed "},

	{broken.MinorityCommit, "facet/quorum", "TestAgainstNaive", ""},

	{broken.NoGate, "facet/quorum", "TestSimulation/plain", "seed "},
	{broken.NoGate, "node/owner", "TestAnswersInOrder", "without a majority"},
	{broken.ErrorsPass, "node/owner", "TestAnswersInOrder", "without a majority"},

	{broken.OutOfOrder, "node/owner", "TestAnswersInOrder", "in the order"},

	{broken.RollbackReuse, "facet/quorum", "TestNumbersAreNotReused", "behind entry 3"},
	{broken.SpentEpoch, "node/owner", "TestSpentEpoch", "after its session died"},

	{broken.NoWindow, "facet/quorum", "TestWindow", ""},
	{broken.NoWindow, "node/owner", "TestOwnDiskStalls", "entries are kept"},
	{broken.StalledKeeps, "node/owner", "TestOwnDiskStalls", "stalled: false"},

	{broken.CheckBefore, "node/owner", "TestLeaseIsTestedLast", "a lease that was over"},
	{broken.NoLease, "node/owner", "TestQuorumReads", ""},

	{broken.QReadEarly, "facet/quorum", "TestSimulation/qreads", "seed "},
	{broken.LeaseWillDo, "node/owner", "TestQuorumReadByWish", ""},

	{broken.FollowerAhead, "facet/replica", "TestView", ""},
	{broken.NoBookmark, "node/follower", "TestWaits", ""},

	{broken.NoVerify, "node/lease", "TestGrantWaitsForItsEntry", "before the entry"},
	{broken.EarlyVerify, "facet/quorum", "TestLeaseModel", ""},
	{broken.ReplyFirst, "node/lease", "TestGrantWaitsForItsEntry", "before the entry"},

	{broken.FromReceipt, "facet/quorum", "TestLeaseHolder", ""},
	{broken.Suspend, "node/lease", "TestBootTimeCountsSuspend", "after an hour of suspend"},

	{broken.NoMargin, "facet/quorum", "TestLeaseModel", ""},

	{broken.NoNewWait, "facet/quorum", "TestLeaseModel", ""},
	{broken.NoNewWait, "node/lease", "TestNewLeaderWaits", ""},
	{broken.OldEntry, "cluster/consensus", "TestHeardBefore", ""},
	{broken.StaleGrant, "facet/quorum", "TestOverAt", ""},

	{broken.NodeLease, "node/lease", "TestRevoked", ""},
	{broken.NoTermIndex, "facet/quorum", "TestLeaseModel", ""},
	{broken.ToldEarly, "node", "TestToldWaitsForTheSessions", "have not heard"},

	{broken.NoWatchdog, "node/lease", "TestDistrust", ""},
	{broken.NoEcho, "node/lease", "TestOddHolder", ""},
	{broken.LeaseForWrites, "node/owner", "TestQuorumReads", "CREATE TABLE"},

	{broken.LearnersCount, "facet/quorum", "TestLearnersDoNotCount", "with a learner"},
	{broken.Unfilled, "node/owner", "TestGrow", "before its members are filled"},
	{broken.DropEarly, "node/keeper", "TestSweepDrops", ""},

	{broken.KeepsChange, "placement", "TestTakeoverTakesAChangeBack", "the takeover goes on"},
	{broken.BelowThree, "node/steward", "TestVacatePlans", ""},

	{broken.SnapTrunc, "facet/replica", "TestInstallRacesAppends", ""},
	{broken.SnapUncommitted, "node/owner", "TestNothingUncommittedLeaves", "a snapshot at"},
	{broken.SnapNotSynced, "facet/replica", "TestCrashSweep", ""},
	{broken.SnapUnchecked, "facet/replica", "TestInstallRefusals", ""},

	{broken.NoDedupe, "facet/engine", "TestKeys", ""},
	{broken.AnyHash, "facet/engine", "TestKeys", ""},
	{broken.NoKeyWindow, "facet/engine", "TestKeyWindow", ""},

	{broken.EndlessTx, "node/owner", "TestInteractiveTransaction", ""},
	{broken.GhostTx, "node/owner", "TestInteractiveTransaction", ""},

	{broken.NoFence, "facet/quorum", "TestOnlyTheFirstEpochBeginsUnasked", "without asking"},
	{broken.TombEarly, "node/lease", "TestTombWaits", ""},
	{broken.NoTomb, "facet/replica", "TestLifeOfAFacet", ""},
	{broken.DeleteUnfenced, "node/owner", "TestDeleteOfWhatIsElsewhere", "delete: "},

	{broken.CloneKeys, "facet/engine", "TestExportImport", ""},
	{broken.CloneUncommitted, "node/owner", "TestNothingUncommittedLeaves", "an export at"},

	{broken.BindAny, "placement", "TestModel", ""},

	{broken.SingleEarly, "facet/replica", "TestCrashSweep", ""},

	{broken.NoSum, "facet/pages", "TestRefusals", ""},
	{broken.FileUnchecked, "facet/pages", "TestRot", ""},
	{broken.NoVote, "facet/quorum", "TestStories", ""},

	{broken.BlindScrub, "facet/replica", "TestScrubFindsRot", ""},
	{broken.BlindLogScrub, "facet/commitlog", "TestVerify", ""},
	{broken.BlindAudit, "node/audit", "TestJudge", ""},

	{broken.AnyPragma, "facet/engine", "TestPragmas", ""},
}

// unbroken says why a rule has no switch. It is no excuse for a rule without a test.
var unbroken = map[string]string{}
