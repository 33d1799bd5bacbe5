package quorum

import "time"

// Every bound of the package, with its reason.
const (
	// MaxMembers is the largest replica set.
	MaxMembers = 5

	// MaxLearners bounds the stores a session fills before they join (R42): one
	// whole new set.
	MaxLearners = MaxMembers

	// MaxSlots bounds the stores one session talks to: the active set, a next set
	// without a common member, and learners.
	MaxSlots = 2*MaxMembers + MaxLearners

	// MaxActions bounds what one call of Ready adds: one action and one check per
	// slot, and the few of the session itself.
	MaxActions = 2*MaxSlots + 4

	// MaxWindow and MaxWindowBytes bound what is appended and not yet committed
	// (R32).
	MaxWindow      = 1024
	MaxWindowBytes = 16 << 20

	// MaxShip bounds the entries of one ship action, so that a member that catches
	// up does not hold the connection for long.
	MaxShip = 256

	// MaxInFlight bounds the entries on their way to one member. It is the window
	// again: a member that lags further is fed as fast as it acknowledges.
	MaxInFlight = MaxWindow

	// MaxHolders bounds the process lives a Granter remembers: the nodes of the
	// largest cluster, each with one boot that ends and one that begins.
	MaxHolders = 4096

	// MaxRenewals bounds the renewals of one tick: one per holder.
	MaxRenewals = MaxHolders
)

// Defaults of time. A session that asks too early wastes a message, one that asks
// too late wastes that time; nothing else depends on them but what is said.
const (
	// askAgain is when a PREPARE or an ACTIVATE without an answer is sent again.
	askAgain = 250 * time.Millisecond

	// resendAfter is how long a member may be silent with entries in flight
	// before the session probes where it is. Above any sane fsync.
	resendAfter = time.Second

	// busyAfter is how long a member that said BUSY, FULL or UNKNOWN is left alone.
	busyAfter = 50 * time.Millisecond

	// StallAfter is how long a session may commit nothing with work pending before
	// its node should stop renewing its lease (R32).
	StallAfter = 2 * time.Second

	// LeaseTTL, RenewEvery and LeaseMargin are the defaults of leases. The margin
	// must be at least twice the drift of two clocks over one TTL: 100 ms allow
	// 3.3 %, far above the 1 % at which a watchdog turns lease reads off (R41).
	LeaseTTL    = 1500 * time.Millisecond
	RenewEvery  = 400 * time.Millisecond
	LeaseMargin = 100 * time.Millisecond
)

// Margin is the safety margin for leases of the given length: the larger of
// LeaseMargin and 2 % of it.
func Margin(ttl time.Duration) time.Duration { return max(LeaseMargin, ttl/50) }
