package quorum

import (
	"time"
)

// Lease is the holder's side of a node's permission to answer reads without
// asking anybody. One belongs to a process life and covers all its facets.
//
// Invariant: a lease ends at the send stamp of a renewal plus the time granted to
// it; whatever happened to the grant on its way only makes it shorter (R37).
type Lease struct {
	ttl   time.Duration // longest grant that is believed
	every time.Duration

	deadline Instant
	sent     Instant // stamp of the latest renewal
	stopped  Instant // grants for renewals up to here are void
	paused   bool

	flaws flaw
}

// NewLease makes a lease that has not been granted. Zero durations are the
// defaults.
func NewLease(ttl, every time.Duration) Lease {
	if ttl <= 0 {
		ttl = LeaseTTL
	}
	if every <= 0 {
		every = RenewEvery
	}
	return Lease{ttl: ttl, every: every, sent: -Never, flaws: builtIn()}
}

// Renew reports whether RENEW is to be sent now, stamped with now. The message
// carries the index of the last placement entry of which every session here was
// told: the placement leader takes it as the word that what was revoked up to
// there is not served any more (R40).
func (l *Lease) Renew(now Instant) bool {
	if l.paused || l.sent != -Never && now < l.sent.Add(l.every) {
		return false
	}
	l.sent = now
	return true
}

// Due is when Renew will say yes.
func (l *Lease) Due() Instant {
	switch {
	case l.paused:
		return Never
	case l.sent == -Never:
		return 0
	}
	return l.sent.Add(l.every)
}

// Granted takes in the grant for the renewal with the given stamp.
func (l *Lease) Granted(stamp, now Instant, ttl time.Duration) {
	if stamp > l.sent || stamp <= l.stopped || ttl <= 0 {
		return // not ours, or for a lease given up since
	}
	from := stamp // R37
	if l.flaws&flawFromReceipt != 0 {
		from = now
	}
	l.deadline = max(l.deadline, from.Add(min(ttl, l.ttl)))
}

// Refused takes in that the placement leader wants this node to apply more of the
// table first: the next renewal goes out as soon as that is done.
func (l *Lease) Refused() { l.sent = min(l.sent, l.sent-Instant(l.every)) }

// Valid is the second half of R33's test; the first is Session.Read.
func (l *Lease) Valid(now Instant) bool { return now < l.deadline }

// Deadline is when the lease ends, zero if there is none.
func (l *Lease) Deadline() Instant { return l.deadline }

// Pause stops renewing; what was granted stays (R32: the disk of this node stalls).
func (l *Lease) Pause() { l.paused = true }

// Unpause renews again.
func (l *Lease) Unpause() { l.paused = false }

// Rewind takes in that the clock went back: there is no lease, a renewal is due, and no
// stamp from before counts.
func (l *Lease) Rewind() { l.sent, l.deadline, l.stopped = -Never, 0, -Never }

// Stop gives the lease up at once, for a RELEASE or because clocks cannot be
// trusted (R41). Grants still on their way are void. Unpause begins a new one.
func (l *Lease) Stop(now Instant) {
	l.paused, l.deadline, l.stopped = true, 0, max(now, l.sent)
}
