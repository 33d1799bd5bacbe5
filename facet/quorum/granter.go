package quorum

import (
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
)

// Renewal is a RENEW as the placement leader got it.
type Renewal struct {
	Boot    BootID
	Applied uint64  // placement index that all sessions of Boot know of
	Stamp   Instant // on the clock of the holder, only echoed
}

// Answer is the reply to a Renewal: a grant, or the index to apply first.
type Answer struct {
	Boot    BootID
	Stamp   Instant
	TTL     time.Duration // zero: refused
	Applied uint64        // when refused: apply up to here
}

// Granter is the placement leader's side of leases, for one term. It grants, and
// it says when a lease that was granted is over, which is what ACTIVATE waits for
// (R21). The clock is the leader's own.
//
// A grant is a promise of the *cluster*, so it must come from the one leader there
// is: renewals are gathered, one entry of the placement log is committed that was
// proposed after they came in, and only then are they granted (R36). A leader that
// was deposed without noticing never gets its entry committed. What grants its
// predecessors gave a new leader cannot know, and waits them out (R39). It counts from
// when its own log took the last entry of an earlier term, not from when it won: a
// grant rests on an entry that was proposed after the renewal came in and committed,
// and whoever wins a term later holds that entry. So no renewal that a predecessor
// granted, or will grant when it wakes up, was sent after that (docs/model).
//
// Taking a facet from a node that lives is another matter: its lease will not end.
// There the entry that takes the facet is the revocation, and the node's renewals
// are refused until they say that it was applied (R40). Everything revoked before
// the term counts as revoked by the term's own first entry.
//
// Invariant: holder.granted is not before the time any grant to that boot left,
// and no grant leaves whose renewal does not cover holder.revoked.
type Granter struct {
	ttl, margin time.Duration

	leading bool
	won     Instant // no grant of an earlier term answers a renewal sent after this
	index   uint64  // of that entry

	holders map[BootID]*holder
	taken   map[facet.Incarnation]revocation

	waiting []Renewal // for the next round
	round   []Renewal // in the round that runs
	rounds  uint64    // number of the latest round
	running bool

	flaws flaw
}

type holder struct {
	granted Instant // last grant; won if there was none
	revoked uint64  // renewals must have applied this
	applied uint64  // highest index a renewal of this term reported
	over    bool    // released, or its process is proved gone
}

// revocation says that a facet was taken from boot by the entry at index.
type revocation struct {
	boot  BootID
	index uint64
}

// NewGranter makes the granter of a node; it grants nothing before Elected. Zero
// durations are the defaults.
func NewGranter(ttl, margin time.Duration) *Granter {
	if ttl <= 0 {
		ttl = LeaseTTL
	}
	if margin <= 0 {
		margin = Margin(ttl)
	}
	return &Granter{ttl: ttl, margin: margin, holders: map[BootID]*holder{}, taken: map[facet.Incarnation]revocation{}, flaws: builtIn()}
}

// Elected begins a term: the node has applied its own first entry, at index. At from
// its log took the last entry of an earlier term, or it was later.
func (g *Granter) Elected(from Instant, index uint64) {
	g.leading, g.won, g.index = true, from, index
	clear(g.holders)
	clear(g.taken)
	g.waiting, g.round, g.running = g.waiting[:0], g.round[:0], false
}

// Deposed ends the term. Renewals that wait are dropped: their senders repeat them.
func (g *Granter) Deposed() {
	if broken.Is(broken.StaleGrant) {
		return
	}
	g.leading, g.running = false, false
}

func (g *Granter) holder(boot BootID) (*holder, error) {
	if h := g.holders[boot]; h != nil {
		return h, nil
	}
	if len(g.holders) >= MaxHolders {
		return nil, fmt.Errorf("remember another lease holder: %w", ErrFull)
	}
	h := &holder{granted: g.won, revoked: g.index}
	if g.flaws&flawNoTermIndex != 0 {
		h.revoked = 0
	}
	if g.flaws&flawNoNewWait != 0 {
		h.granted = -Never / 2
	}
	g.holders[boot] = h
	return h, nil
}

// Renew takes in a renewal, for the next round. Of several of one boot the latest
// counts.
func (g *Granter) Renew(r Renewal) error {
	if !g.leading {
		return ErrNotLeading
	}
	to := &g.waiting
	if g.flaws&flawEarlyVerify != 0 && g.running {
		to = &g.round
	}
	for i := range *to {
		if w := &(*to)[i]; w.Boot == r.Boot {
			if r.Stamp > w.Stamp {
				*w = r
			}
			return nil
		}
	}
	if len(*to) >= MaxRenewals {
		return fmt.Errorf("renew the lease of %v: %w", r.Boot, ErrFull)
	}
	*to = append(*to, r)
	return nil
}

// Tick begins a round: the caller commits one entry to the placement log now, and
// reports to Committed or Failed with the round's number. ok is false when there
// is nothing to do, or a round runs already.
func (g *Granter) Tick() (round uint64, ok bool) {
	if !g.leading || g.running || len(g.waiting) == 0 && g.flaws&flawEarlyVerify == 0 {
		return 0, false
	}
	// R36: what comes in from here on waits for the next round.
	g.waiting, g.round = g.round[:0], g.waiting
	g.running = true
	g.rounds++
	return g.rounds, true
}

// Committed says that the entry of a round was committed, and that every entry
// before it was applied here. It records the grants and appends the answers, in
// this order; the caller sends them.
func (g *Granter) Committed(round uint64, now Instant, dst []Answer) []Answer {
	if !g.leading || !g.running || round != g.rounds {
		return dst
	}
	for _, r := range g.round {
		dst = g.grant(r, now, dst)
	}
	g.round, g.running = g.round[:0], false
	return dst
}

func (g *Granter) grant(r Renewal, now Instant, dst []Answer) []Answer {
	h, err := g.holder(r.Boot)
	if err != nil || h.over {
		return dst // it asks again, or is gone
	}
	h.applied = max(h.applied, r.Applied)
	if r.Applied < h.revoked && g.flaws&flawNodeLease == 0 { // R40
		return append(dst, Answer{Boot: r.Boot, Stamp: r.Stamp, Applied: h.revoked})
	}
	if r.Applied >= h.revoked {
		h.granted = max(h.granted, now)
	}
	return append(dst, Answer{Boot: r.Boot, Stamp: r.Stamp, TTL: g.ttl})
}

// Early is rule R36 broken: the answers of a round that has only begun.
func (g *Granter) early(dst []Answer) []Answer {
	for _, r := range g.round {
		if h, err := g.holder(r.Boot); err == nil && !h.over && r.Applied >= h.revoked {
			dst = append(dst, Answer{Boot: r.Boot, Stamp: r.Stamp, TTL: g.ttl})
		}
	}
	return dst
}

// Failed says that the entry of a round was not committed, or that nobody knows.
// Nothing is granted.
func (g *Granter) Failed(round uint64) {
	if g.running && round == g.rounds {
		g.round, g.running = g.round[:0], false
	}
}

// Taken says that the entry at index was applied and took the facet from boot, the
// process life that was activated for it last. A facet taken again before anybody
// was activated keeps its first revocation: the owners between served nobody.
func (g *Granter) Taken(id facet.Incarnation, boot BootID, index uint64) error {
	if !g.leading {
		return nil // the next leader's term begins behind this entry
	}
	h, err := g.holder(boot)
	if err != nil {
		return err
	}
	h.revoked = max(h.revoked, index)
	if _, ok := g.taken[id]; !ok {
		g.taken[id] = revocation{boot, index}
	}
	return nil
}

// Settled says that an ACTIVATE of the facet was applied, or that its row is gone.
func (g *Granter) Settled(id facet.Incarnation) { delete(g.taken, id) }

// Gone says that a process life serves nothing any more: it released its lease, or
// a new boot of its store registered from the same machine, which holds the lock
// of the directory (R38).
func (g *Granter) Gone(boot BootID) error {
	if !g.leading {
		return nil
	}
	h, err := g.holder(boot)
	if err != nil {
		return err
	}
	h.over = true
	return nil
}

// Forget drops what is known of a process life whose lease ran out: one that a
// new boot has replaced. It reports false while the lease may hold.
func (g *Granter) Forget(boot BootID, now Instant) bool {
	h := g.holders[boot]
	if h == nil {
		return true
	}
	if !h.over && now < h.granted.Add(g.ttl+g.margin) {
		return false
	}
	for _, r := range g.taken {
		if r.boot == boot {
			return false
		}
	}
	// If it comes back after all it must know at least what was revoked.
	g.index = max(g.index, h.revoked)
	delete(g.holders, boot)
	return true
}

// OverAt is when the lease of a process life is over at the latest, unless it is
// granted again (R38). One that was not granted in this term may hold a grant of
// an earlier one (R39). ok is false while this node does not lead.
func (g *Granter) OverAt(boot BootID) (at Instant, ok bool) {
	if !g.leading {
		return Never, false
	}
	h := g.holders[boot]
	switch {
	case h == nil:
		return g.won.Add(g.ttl + g.margin), true
	case h.over:
		return g.won, true
	}
	return h.granted.Add(g.ttl + g.margin), true
}

// MayActivate reports whether ACTIVATE of the facet may be proposed now (R21): the
// holder that was activated last does not serve it any more. Serving says that
// there was one; it is false for a facet never activated and for one whose holder
// released it.
func (g *Granter) MayActivate(id facet.Incarnation, serving bool, now Instant) bool {
	at, ok := g.ActivateAt(id, serving)
	return ok && now >= at
}

// ActivateAt is when MayActivate will say yes at the latest, if this node still
// leads then.
func (g *Granter) ActivateAt(id facet.Incarnation, serving bool) (at Instant, ok bool) {
	wait := g.ttl + g.margin
	if g.flaws&flawNoMargin != 0 {
		wait = g.ttl
	}
	switch {
	case !g.leading:
		return Never, false
	case !serving || g.flaws&flawNoLeaseWait != 0:
		return g.won, true
	}
	r, ok := g.taken[id]
	if !ok {
		// Taken before this term. Grants of this term cover that revocation, see
		// holder.revoked; those before it are over then (R39).
		if g.flaws&flawNoNewWait != 0 {
			return g.won, true
		}
		return g.won.Add(wait), true
	}
	h := g.holders[r.boot]
	switch {
	case h == nil || h.over || h.applied >= r.index: // R38, R40
		return g.won, true
	}
	// R38. Nothing was granted since the revocation but what covers it.
	return h.granted.Add(wait), true
}
