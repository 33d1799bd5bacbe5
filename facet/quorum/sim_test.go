package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
)

// simFlaw breaks rules that are kept outside this package: by the shell around
// the core, by replicas, or by placement.
type simFlaw uint32

const (
	simNoBarrier        simFlaw = 1 << iota // serve right after adoption
	simNoOwnEpoch                           // commit adopted entries by counting
	simNoCAS                                // ACTIVATE does not compare the epoch
	simSameEpoch                            // a restarted owner recovers in its old epoch
	simRollbackReuse                        // drop the tail, use its numbers again
	simCheckBefore                          // test the lease, then take the snapshot
	simAmnesia                              // a wiped store answers as if it were the old one
	simEarlyHeal                            // an uncertain store is sound after any entry
	simSnapHeals                            // a broken store is sound after any snapshot
	simNoEpochCheck                         // replicas take appends below their promise
	simNoPrev                               // replicas do not compare the entry before
	simTruncOnDup                           // a repeated append cuts what follows it
	simNoFsync                              // replicas acknowledge before they sync
	simNoPromiseDurable                     // promises are lost in a crash
)

type msgKind uint8

const (
	mPrepare msgKind = iota
	mPromise
	mNack
	mFetch
	mFetched
	mAppend
	mAck
	mSnap
	mHint
	mCheck
	mYes
	mActivate
	mRenew
	mGrant
)

var msgNames = [...]string{"PREPARE", "PROMISE", "NACK", "FETCH", "FETCHED", "APPEND", "ACK", "SNAP", "HINT", "CHECK", "YES", "ACTIVATE", "RENEW", "GRANT"}

type msg struct {
	kind      msgKind
	from, to  int // nodes
	slot      int
	epoch     facet.Epoch
	ownerBoot BootID
	store     StoreID // addressed, or answering
	boot      BootID  // answering

	seq     facet.Seq
	prev    facet.Epoch
	entries []entry
	commit  facet.Seq
	round   uint64
	promise Promise
	nack    Nack
	pos     facet.Position
	base    facet.Seq
	ok      bool

	renewal Renewal
	answer  Answer
}

func (m msg) String() string {
	return fmt.Sprintf("%s %d->%d e%d seq %d+%d commit %d round %d %v", msgNames[m.kind], m.from, m.to, m.epoch, m.seq, len(m.entries), m.commit, m.round, m.nack.Kind)
}

// simRow is the placement row, with the process life that was activated last and
// may still serve.
type simRow struct {
	index       uint64
	epoch       facet.Epoch
	owner       int
	ownerBoot   BootID
	next        []StoreID
	active      []StoreID
	activeEpoch facet.Epoch
	serving     BootID
	recovering  bool
	boots       [8]BootID // registered, by node
	stores      [8]StoreID
	took        bool // this entry took the facet from serving
	settled     bool // this entry activated it
}

type simNode struct {
	id      int
	up      bool
	paused  int // until this step
	cut     int // until this step no message of replicas comes or goes
	blind   int // until this step its placement table stands still
	boot    BootID
	replica simReplica
	applied uint64
	lease   Lease
	g       *Granter
	round   uint64 // placement round proposed and not yet noticed, 0 for none
	roundOK uint64 // index it was committed at, 0 for not
	ended   bool   // the round's fate is decided
	wantAct []msg
	sess    *simSession
	begun   facet.Epoch // latest epoch acted in; none is begun twice (R31)
	w       *world

	off  Instant
	rate int64 // per mille of real time
}

func (n *simNode) now() Instant { return n.off + n.w.at*Instant(n.rate)/1000 }

func (n *simNode) row() *simRow { return &n.w.rows[n.applied] }

func (n *simNode) runs() bool { return n.up && n.paused <= n.w.step }

// simSession is the shell around a Session.
type simSession struct {
	core    *Session
	n       *simNode
	epoch   facet.Epoch
	row     *simRow
	log     []entry
	staged  []entry
	stageB  facet.Seq
	base    facet.Seq
	waiting []facet.Seq // writes not answered
	reads   []simRead
	tested  bool // CHECK_BEFORE: the lease was found valid
	frozen  bool
	hi      facet.Seq // commit index seen so far
}

type simRead struct {
	gate   ReadGate
	needed facet.Seq // acknowledged when it was asked
	free   bool      // CHECK_BEFORE: its lease was tested before
}

type profile struct {
	nodes, set   int
	crash, pause int // per mille of steps
	acquire      int
	elect        int
	drop, dup    int // per mille of messages
	rot, wipe    bool
	reconf       bool
	drift        int64
	maxLog       int
	steps        int
	writes       int
	reads        int
	compact      int
	syncs        int
	renew        bool
	qreads       bool // no lease reads: leases are never granted
	sync1        bool // a crash mostly hits the owner
	cut          int  // per mille: the owner loses sight of the others, who get another one
	slow         bool // little time passes with each step
	ttl, margin  time.Duration
}

type world struct {
	rng   *rand.Rand
	p     profile
	core  flaw
	sim   simFlaw
	nodes []*simNode
	rows  []simRow // placement, by index
	lead  int
	at    Instant
	step  int
	soup  []msg
	vals  uint32
	boots uint32
	acts  [MaxActions]Action
	out   []Answer

	decided []entry
	acked   facet.Seq // highest acknowledged
	err     error
	trace   *strings.Builder

	activations, acks, readsDone, rots, wipes, snaps, fetches, qreads int
	calm                                                              bool
	reconfs                                                           int
}

var simFacet = facet.Incarnation{1}

func storeID(node int, life uint32) StoreID { return StoreID{byte(node + 1), byte(life)} }
func storeNode(id StoreID) int              { return int(id[0]) - 1 }

func newWorld(seed uint64, p profile, core flaw, sim simFlaw) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 77)), p: p, core: core, sim: sim}
	row := simRow{owner: -1}
	for i := range p.nodes {
		n := &simNode{id: i, up: true, w: w, rate: 1000, off: Instant(w.rng.IntN(1e9))}
		if p.drift > 0 {
			n.rate += w.rng.Int64N(2*p.drift+1) - p.drift
		}
		n.boot = w.newBoot(i)
		n.replica.store = storeID(i, 0)
		n.lease = NewLease(p.ttl, 0)
		n.lease.flaws = core
		n.g = NewGranter(p.ttl, p.margin)
		n.g.flaws = core
		row.boots[i], row.stores[i] = n.boot, n.replica.store
		w.nodes = append(w.nodes, n)
	}
	for i := range p.set {
		row.next = append(row.next, storeID(i, 0))
	}
	w.rows = []simRow{row}
	w.elect(0)
	w.acquire(w.rng.IntN(p.set), nil)
	return w
}

func (w *world) newBoot(node int) BootID {
	w.boots++
	return BootID{byte(node + 1), byte(w.boots >> 8), byte(w.boots)}
}

func (w *world) logf(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%4d %6dms  "+format+"\n", append([]any{w.step, int64(w.at) / 1e6}, args...)...)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.logf("FAILED   %v", w.err)
	}
}

func (w *world) chance(perMille int) bool { return w.rng.IntN(1000) < perMille }

// ---- placement

func (w *world) last() *simRow { return &w.rows[len(w.rows)-1] }

func (w *world) commit(change func(r *simRow)) uint64 {
	r := *w.last()
	r.index, r.took, r.settled = uint64(len(w.rows)), false, false
	change(&r)
	w.rows = append(w.rows, r)
	return r.index
}

func (w *world) elect(node int) {
	n := w.nodes[node]
	w.lead = node
	i := w.commit(func(*simRow) {})
	w.apply(n, i)
	n.round, n.wantAct = 0, nil
	n.g.Elected(n.now(), i)
	w.logf("ELECTED  node %d, index %d", node, i)
}

// acquire gives the facet to a node, with a new set or the active one.
func (w *world) acquire(node int, set []StoreID) {
	n := w.nodes[node]
	i := w.commit(func(r *simRow) {
		again := w.sim&simSameEpoch != 0 && r.owner == node && r.ownerBoot != n.boot
		r.took = r.activeEpoch == r.epoch && r.epoch != 0 && !r.recovering
		r.owner, r.ownerBoot, r.recovering = node, n.boot, true
		if set == nil {
			if set = r.active; set == nil {
				set = r.next
			}
		}
		r.next = set
		if again {
			r.activeEpoch = 0
		} else {
			r.epoch++
		}
	})
	w.logf("ACQUIRE  epoch %d -> node %d, next %v active %v", w.last().epoch, node, setString(set), setString(w.last().active))
	_ = i
	w.apply(w.nodes[w.lead], i) // it committed the entry
}

func setString(set []StoreID) string {
	s := ""
	for _, id := range set {
		s += fmt.Sprintf("%d.%d ", id[0]-1, id[1])
	}
	return s
}

// apply lets a node's placement table catch up to an index.
func (w *world) apply(n *simNode, to uint64) {
	for n.applied < to && w.err == nil {
		n.applied++
		r := n.row()
		if r.took {
			if err := n.g.Taken(simFacet, w.rows[n.applied-1].serving, r.index); err != nil {
				w.fail("taken: %v", err)
			}
		}
		if r.settled {
			n.g.Settled(simFacet)
		}
		if s := n.sess; s != nil {
			for i := range w.p.nodes {
				s.core.Registered(Member{Store: r.stores[i], Boot: r.boots[i]})
			}
			s.core.Applied(s.coreRow(r))
			s.run()
		}
		if r.owner == n.id && r.ownerBoot == n.boot && n.up && r.recovering && r.epoch > n.begun {
			w.begin(n, r)
		}
	}
}

func (w *world) begin(n *simNode, r *simRow) {
	if !slices.Contains(r.next, n.replica.store) {
		return
	}
	s := &simSession{n: n, epoch: r.epoch, row: r}
	core, err := NewSession(s.coreRow(r), n.replica.store, n.boot)
	if err != nil {
		w.fail("%v", err)
		return
	}
	core.flaws = w.core
	s.core = core
	n.sess, n.begun = s, r.epoch
	s.run()
}

func (s *simSession) coreRow(r *simRow) Row {
	row := Row{Epoch: r.epoch, Owner: r.ownerBoot, ActiveEpoch: r.activeEpoch}
	for _, id := range r.active {
		row.Active = append(row.Active, Member{Store: id, Boot: bootOf(r, id)})
	}
	for _, id := range r.next {
		row.Next = append(row.Next, Member{Store: id, Boot: bootOf(r, id)})
	}
	return row
}

// bootOf is the process life registered for a store, none if the node has another
// store now.
func bootOf(r *simRow, id StoreID) BootID {
	if node := storeNode(id); r.stores[node] == id {
		return r.boots[node]
	}
	return BootID{}
}

// activate is the placement leader's part of R21.
func (w *world) activate(n *simNode) {
	if len(n.wantAct) == 0 {
		return
	}
	w.apply(n, uint64(len(w.rows)-1))
	if n.id != w.lead {
		n.wantAct = nil // what it proposes is not committed
		return
	}
	keep := n.wantAct[:0]
	for _, m := range n.wantAct {
		r := n.row()
		current := r.epoch == m.epoch && r.ownerBoot == m.ownerBoot && r.recovering
		if !current && w.sim&simNoCAS == 0 {
			continue
		}
		if !n.g.MayActivate(simFacet, r.serving != BootID{}, n.now()) {
			keep = append(keep, m)
			continue
		}
		var set []StoreID
		for _, row := range w.rows {
			if row.epoch == m.epoch {
				set = row.next
			}
		}
		i := w.commit(func(r *simRow) {
			r.active, r.activeEpoch, r.serving, r.settled = set, m.epoch, m.ownerBoot, true
			if current {
				r.recovering = false
			}
		})
		w.logf("ACTIVATE epoch %d at index %d", m.epoch, i)
		w.activations++
		if s := w.nodes[m.from].sess; s != nil && s.epoch == m.epoch && s.core.Committed() < w.acked {
			w.fail("DURABLE: epoch %d is activated with %d entries, %d are acknowledged", s.epoch, s.core.Committed(), w.acked)
		}
		w.apply(n, i)
		if !current {
			if s := w.nodes[m.from].sess; s != nil && s.epoch == m.epoch {
				row := s.coreRow(s.row)
				row.ActiveEpoch = m.epoch
				s.core.Applied(row)
				s.run()
			}
		}
	}
	n.wantAct = keep
}

// ---- the shell of a session

func (s *simSession) send(m msg) {
	m.from, m.epoch, m.ownerBoot = s.n.id, s.epoch, s.n.boot
	m.store = s.core.Store(m.slot)
	m.to = storeNode(m.store)
	s.n.w.post(m)
}

// run carries actions out until there are none.
func (s *simSession) run() {
	w := s.n.w
	for range 1000 {
		if w.err != nil || s.n.sess != s {
			return
		}
		acts := s.core.Ready(s.n.now(), w.acts[:0])
		if len(acts) == 0 {
			s.check()
			s.answer()
			return
		}
		if len(acts) > MaxActions {
			w.fail("%d actions at once", len(acts))
		}
		for _, a := range append([]Action(nil), acts...) {
			w.logf("  e%d %v", s.epoch, a)
			s.do(a)
		}
	}
	w.fail("session %d never stops asking", s.epoch)
}

// check holds the core to its own invariants.
func (s *simSession) check() {
	c := s.core
	if c.barrier == 0 || s.n.w.core|flaw(s.n.w.sim) != 0 {
		return
	}
	ok := c.committed <= c.last && c.barrier > c.adopted.Seq && c.window.n == int(c.last-max(c.committed, c.barrier-1)) &&
		c.rounds.confirmed <= c.rounds.running && c.rounds.running <= c.rounds.wanted
	for i := range c.n {
		m := &c.slots[i]
		ok = ok && (m.role&(roleNext|roleLearner) == 0 || m.next <= c.last+1 && m.next > 0 && m.acked <= c.last) &&
			(m.progress != streaming || m.match < m.next)
	}
	if !ok {
		s.n.w.fail("invariant of epoch %d: %+v", s.epoch, *c)
	}
}

func (s *simSession) do(a Action) {
	w := s.n.w
	switch a.Kind {
	case ActPrepare:
		s.send(msg{kind: mPrepare, slot: a.Slot})
	case ActFetch:
		w.fetches++
		s.send(msg{kind: mFetch, slot: a.Slot, pos: a.Position, seq: a.Seq})
	case ActAdopt:
		if s.frozen {
			w.fail("epoch %d adopts twice", s.epoch)
		}
		s.frozen = true
		if a.Slot == s.core.Self() {
			s.log, s.base = slices.Clone(s.n.replica.mem.log), s.n.replica.mem.base
		} else {
			s.log, s.base = s.staged, s.stageB
		}
		if position(s.log) != a.Position {
			w.fail("epoch %d adopts %v and got %v", s.epoch, a.Position, position(s.log))
			return
		}
		if w.sim&(simNoBarrier|simNoOwnEpoch) != 0 && len(s.log) > 0 {
			s.core.skipBarrier(s.base+1, w.sim&simNoBarrier != 0)
			return
		}
		w.vals++
		s.log = append(s.log, entry{s.epoch, w.vals, true})
		if err := s.core.Barrier(s.n.now(), s.base+1, facet.Seq(len(s.log)), 1); err != nil {
			w.fail("barrier of epoch %d: %v", s.epoch, err)
		}
	case ActShip:
		s.ship(a)
	case ActSnapshot:
		w.snaps++
		at := max(a.Seq, s.base)
		if at > a.To {
			w.fail("no snapshot from %d to %d with base %d", a.Seq, a.To, s.base)
			return
		}
		s.send(msg{kind: mSnap, slot: a.Slot, entries: slices.Clone(s.log[:at])})
	case ActHint:
		s.send(msg{kind: mHint, slot: a.Slot, commit: a.Commit})
	case ActActivate:
		w.post(msg{kind: mActivate, from: s.n.id, to: w.lead, epoch: s.epoch, ownerBoot: s.n.boot})
	case ActServe:
		c := s.core.Committed()
		w.logf("SERVES   epoch %d from %d", s.epoch, c)
		w.decide(s, c)
	case ActCommitted:
		if a.Commit < s.hi {
			w.fail("I4: commit index of epoch %d fell from %d to %d", s.epoch, s.hi, a.Commit)
		}
		s.hi = a.Commit
	case ActCheck:
		s.send(msg{kind: mCheck, slot: a.Slot, round: a.Round})
	case ActDie:
		err := s.core.Err()
		w.logf("DIES     epoch %d: %v", s.epoch, err)
		s.answer()
		s.n.sess = nil
		if errors.Is(err, ErrImpossible) || errors.Is(err, ErrTwoLives) || errors.Is(err, ErrDiverged) {
			w.fail("epoch %d: %v", s.epoch, err)
		}
	}
}

func (s *simSession) ship(a Action) {
	log := s.log
	if s.core.flaws&flawEarlyShip != 0 && !s.frozen {
		log = s.n.replica.mem.log
	} else if !s.frozen {
		s.n.w.fail("R17: epoch %d ships before it adopted", s.epoch)
		return
	}
	m := msg{kind: mAppend, slot: a.Slot, seq: a.Seq, commit: a.Commit, entries: slices.Clone(log[a.Seq-1 : a.To])}
	if a.Seq >= 2 {
		m.prev = log[a.Seq-2].epoch
	}
	if a.Seq <= s.base && s.frozen {
		s.n.w.fail("epoch %d ships %d, entries begin behind %d", s.epoch, a.Seq, s.base)
		return
	}
	if a.Slot == s.core.Self() && s.n.w.rng.IntN(4) > 0 {
		m.from, m.to, m.epoch, m.ownerBoot, m.store = s.n.id, s.n.id, s.epoch, s.n.boot, s.n.replica.store
		s.n.w.deliver(m) // the own copy is asked without a detour, mostly
		return
	}
	if !s.n.w.calm && s.n.w.rng.IntN(2) == 0 { // entries may travel apart
		for i := range m.entries {
			one := m
			one.seq, one.entries = m.seq+facet.Seq(i), m.entries[i:i+1]
			if i > 0 {
				one.prev = m.entries[i-1].epoch
			}
			s.send(one)
		}
		return
	}
	s.send(m)
}

// answer lets out what may leave.
func (s *simSession) answer() {
	w := s.n.w
	keep := s.waiting[:0]
	for _, seq := range s.waiting {
		switch s.core.Write(seq) {
		case Send:
			w.acks++
			w.decide(s, seq)
			w.acked = max(w.acked, seq)
			w.logf("ACKED    %d by epoch %d", seq, s.epoch)
		case Hold:
			keep = append(keep, seq)
		}
	}
	s.waiting = keep
	reads := s.reads[:0]
	for _, r := range s.reads {
		v := s.core.Read(r.gate, s.n.now(), s.n.lease.Deadline())
		if r.free && s.core.State() == Active && r.gate.Seen <= s.core.Committed() {
			v = Send
		}
		switch v {
		case Send:
			w.readsDone++
			if r.gate.Ticket != 0 {
				w.qreads++
			}
			w.logf("READ     by epoch %d saw %d, ticket %d", s.epoch, r.gate.Seen, r.gate.Ticket)
			if r.gate.Seen < r.needed {
				w.fail("FRESH: a read by epoch %d saw %d entries, %d were acknowledged before it was asked", s.epoch, r.gate.Seen, r.needed)
			}
			w.decide(s, r.gate.Seen)
		case Confirm:
			r.gate.Ticket = s.core.Join()
			reads = append(reads, r)
		case Hold:
			reads = append(reads, r)
		}
	}
	s.reads = reads
}

// decide is the checker of AGREE: what one owner showed, every other one shows.
func (w *world) decide(s *simSession, to facet.Seq) {
	for i := range to {
		if int(i) >= len(s.log) {
			w.fail("epoch %d shows %d entries of %d", s.epoch, to, len(s.log))
			return
		}
		if int(i) == len(w.decided) {
			w.decided = append(w.decided, s.log[i])
		}
		if w.decided[i] != s.log[i] {
			w.fail("AGREE: index %d was entry %d of epoch %d, epoch %d shows entry %d of epoch %d",
				i+1, w.decided[i].val, w.decided[i].epoch, s.epoch, s.log[i].val, s.log[i].epoch)
			return
		}
	}
}

func (s *simSession) write() {
	w := s.n.w
	if !s.core.Room() || len(s.log) >= w.p.maxLog {
		return
	}
	w.vals++
	s.log = append(s.log, entry{s.epoch, w.vals, false})
	seq := facet.Seq(len(s.log))
	w.logf("EXECUTE  entry %d by epoch %d at %d", w.vals, s.epoch, seq)
	if err := s.core.Appended(s.n.now(), seq, 1); err != nil {
		w.fail("append %d: %v", seq, err)
	}
	s.waiting = append(s.waiting, seq)
	s.run()
}

func (s *simSession) read() {
	w := s.n.w
	if s.core.State() != Active || len(s.reads) > 8 {
		return
	}
	free := false
	if w.sim&simCheckBefore != 0 {
		if !s.tested { // the test comes first, the snapshot some time later
			s.tested = s.n.lease.Valid(s.n.now())
			return
		}
		if w.rng.IntN(8) > 0 {
			return
		}
		s.tested, free = false, true
	}
	s.reads = append(s.reads, simRead{gate: ReadGate{Seen: facet.Seq(len(s.log))}, needed: w.acked, free: free})
	s.run()
}

// skipBarrier is R20 broken.
func (s *Session) skipBarrier(first facet.Seq, serve bool) {
	t, _ := NewTracker(s.nextN, 1)
	s.first, s.barrier, s.tracker = first, s.adopted.Seq, t
	for i := range s.n {
		s.start(&s.slots[i])
	}
	if serve {
		s.tracker.barrier = s.adopted.Seq + 1
		s.tracker.committed, s.committed = s.adopted.Seq, s.adopted.Seq
	}
	// Nobody is asked again for what he has, so what he promised counts.
	for i := range s.n {
		if m := &s.slots[i]; m.match > 0 && m.progress == streaming {
			m.acked = m.match
			s.count(m, m.match)
		}
	}
}

// rollback is R31 broken.
func (s *simSession) rollback() {
	c := s.core
	if c.state != Active || c.last == c.committed {
		return
	}
	s.n.w.logf("ROLLBACK epoch %d from %d to %d", s.epoch, c.last, c.committed)
	s.log, s.waiting = s.log[:c.committed:c.committed], nil
	c.last = c.committed
	c.window = window{}
	for i := range c.n {
		m := &c.slots[i]
		m.next, m.match, m.acked = min(m.next, c.last+1), min(m.match, c.last), min(m.acked, c.last)
	}
}

// ---- time and messages

func (w *world) post(m msg) {
	if len(w.soup) < 200 {
		w.soup = append(w.soup, m)
	}
}

func (n *simNode) reply(to *msg, m msg) {
	m.from, m.to, m.slot, m.epoch = n.id, to.from, to.slot, to.epoch
	m.store, m.boot, m.ownerBoot = n.replica.store, n.boot, to.ownerBoot
	if n.w.sim&simNoFsync != 0 && m.kind == mAck || m.kind == mNack || m.kind == mFetched || m.kind == mYes || !n.replica.dirty {
		n.w.post(m)
		return
	}
	n.replica.replies = append(n.replica.replies, m)
}

// flush sends the replies that waited for the disk.
func (n *simNode) flush() {
	for _, m := range n.replica.replies {
		n.w.post(m)
	}
	n.replica.replies = n.replica.replies[:0]
}

func (w *world) refuse(n *simNode, m *msg, k NackKind) {
	c := &n.replica.mem
	n.reply(m, msg{kind: mNack, nack: Nack{Kind: k, Epoch: m.epoch, Promised: c.promised, Seq: m.seq, Last: position(c.log)}})
}

func (w *world) deliver(m msg) {
	n := w.nodes[m.to]
	if w.trace != nil {
		w.logf("%v", m)
	}
	switch m.kind {
	case mActivate:
		if !slices.ContainsFunc(n.wantAct, func(o msg) bool { return o.epoch == m.epoch }) {
			n.wantAct = append(n.wantAct, m)
		}
		w.activate(n)
		return
	case mRenew:
		if err := n.g.Renew(m.renewal); err != nil && !errors.Is(err, ErrNotLeading) {
			w.fail("%v", err)
		}
		return
	case mGrant:
		if m.answer.Boot != n.boot {
			return
		}
		if m.answer.TTL == 0 {
			n.lease.Refused()
		} else if !w.p.qreads {
			n.lease.Granted(m.answer.Stamp, n.now(), m.answer.TTL)
		}
		return
	case mPrepare, mAppend, mSnap, mFetch, mCheck, mHint:
		if m.store != n.replica.store && w.core&flawAmnesia == 0 {
			return // R3
		}
		w.serve(n, &m)
		return
	}
	s := n.sess
	if s == nil || s.epoch != m.epoch || m.ownerBoot != n.boot && w.sim&simSameEpoch == 0 {
		return
	}
	from := From{Slot: m.slot, Store: m.store, Boot: m.boot}
	switch m.kind {
	case mPromise:
		s.core.Promised(from, m.promise)
	case mNack:
		s.core.Nacked(from, n.now(), m.nack)
	case mAck:
		s.core.Acked(from, n.now(), m.epoch, m.seq)
	case mYes:
		s.core.Checked(from, m.epoch, m.round)
	case mFetched:
		if !m.ok {
			s.core.FetchFailed(m.slot, n.now())
			break
		}
		if s.frozen {
			break
		}
		own := &n.replica.mem
		base, log := m.base, m.entries
		if base == 0 && m.seq > 1 { // only the entries asked for
			base, log = own.base, slices.Concat(own.log[:m.seq-1], m.entries)
		}
		s.staged, s.stageB = log, base
		s.core.Fetched(m.slot, m.pos)
	}
	s.run()
}

// serve is a replica answering an owner.
func (w *world) serve(n *simNode, m *msg) {
	r := &n.replica
	c := &r.mem
	switch m.kind {
	case mPrepare:
		if k := r.fence(n, m, w.sim); k != 0 {
			w.refuse(n, m, k)
			return
		}
		p := Promise{Epoch: m.epoch, Last: position(c.log), Base: c.base, Known: max(c.known, c.base), Health: c.health}
		if c.health == Broken {
			p.Last = position(c.log[:c.base])
		}
		n.reply(m, msg{kind: mPromise, promise: p})
	case mAppend:
		seq, k := r.append(n, m, w)
		if w.sim&simNoPromiseDurable != 0 {
			r.disk.promised = 0
		}
		if k != 0 {
			w.refuse(n, m, k)
			return
		}
		n.reply(m, msg{kind: mAck, seq: seq})
	case mSnap:
		if k := r.install(n, m, w); k != 0 {
			w.refuse(n, m, k)
			return
		}
		n.reply(m, msg{kind: mAck, seq: facet.Seq(len(m.entries))})
	case mHint:
		if c.promised == m.epoch && c.boot == m.ownerBoot && c.health != Broken &&
			facet.Seq(len(c.log)) >= m.commit && c.log[m.commit-1].epoch == m.epoch {
			c.known = max(c.known, m.commit)
		}
	case mCheck:
		if c.promised == m.epoch && c.boot == m.ownerBoot {
			n.reply(m, msg{kind: mYes, round: m.round})
		} else {
			w.refuse(n, m, NackEpoch)
		}
	case mFetch:
		ok := c.promised == m.epoch && c.boot == m.ownerBoot && c.health != Broken && position(c.log) == m.pos
		a := msg{kind: mFetched, ok: ok, pos: m.pos, seq: m.seq}
		if ok && m.seq > c.base {
			a.entries = slices.Clone(c.log[m.seq-1:])
		} else if ok {
			a.entries, a.base = slices.Clone(c.log), c.base
		}
		n.reply(m, a)
	}
}

// syncReplica makes what a replica wrote durable and lets its replies go.
func (w *world) syncReplica(n *simNode) {
	n.replica.sync()
	if w.sim&simNoPromiseDurable != 0 {
		n.replica.disk.promised = 0
	}
	n.flush()
}

func (w *world) crash(n *simNode) {
	w.logf("CRASH    node %d", n.id)
	if s := n.sess; s != nil {
		n.sess = nil
	}
	if w.rng.IntN(2) == 0 {
		n.replica.sync() // durable, but nobody was told
	}
	r := &n.replica
	r.crash()
	n.up = false
	n.lease = NewLease(w.p.ttl, 0)
	n.lease.flaws = w.core
	n.g.Deposed()
	n.round, n.wantAct = 0, nil
	w.damage(n)
}

// damage rots or wipes the disk of a crashed node, one store at a time.
func (w *world) damage(n *simNode) {
	c := &n.replica.disk
	sound := true
	for _, o := range w.nodes {
		sound = sound && o.replica.disk.health == Sound && o.replica.mem.health == Sound
	}
	switch {
	case w.calm:
	case w.p.rot && sound && facet.Seq(len(c.log)) > c.base && w.rng.IntN(2) == 0:
		w.rots++
		c.since = c.promised
		if w.rng.IntN(3) == 0 {
			w.logf("ROT      node %d is broken", n.id)
			c.health = Broken
			n.replica.mem = c.clone()
			return
		}
		keep := max(int(c.base), len(c.log)-1-w.rng.IntN(3)) // a batch
		w.logf("ROT      node %d loses %d entries behind %d and knows it", n.id, len(c.log)-keep, keep)
		c.log = c.log[:keep]
		c.known, c.health = min(c.known, facet.Seq(len(c.log))), Uncertain
		n.replica.mem = c.clone()
	case w.p.wipe && w.wipes == 0 && w.rng.IntN(2) == 0:
		w.wipes++
		w.logf("WIPE     node %d", n.id)
		n.replica = simReplica{store: n.replica.store}
		if w.sim&simAmnesia == 0 {
			n.replica.store = storeID(n.id, uint32(w.wipes))
		}
	}
}

func (w *world) restart(n *simNode) {
	n.up = true
	n.boot = w.newBoot(n.id)
	if w.sim&simSameEpoch != 0 {
		n.begun = 0
	}
	i := w.commit(func(r *simRow) { r.boots[n.id], r.stores[n.id] = n.boot, n.replica.store })
	w.logf("RESTART  node %d, index %d", n.id, i)
	if w.rng.IntN(2) == 0 || w.calm {
		w.apply(n, i)
	}
}

// rounds moves the placement leader's rounds of renewals on.
func (w *world) rounds(n *simNode) {
	switch {
	case n.round == 0:
		if round, ok := n.g.Tick(); ok {
			n.round, n.roundOK, n.ended = round, 0, false
			if w.core&flawReplyFirst != 0 {
				w.grant(n, n.g.early(w.out[:0]))
			}
		}
	case !n.ended:
		n.ended = true
		if n.id == w.lead {
			n.roundOK = w.commit(func(*simRow) {})
		}
	default:
		round := n.round
		n.round = 0
		if n.roundOK == 0 {
			n.g.Failed(round)
			n.g.Deposed() // that is how it notices
			return
		}
		w.apply(n, n.roundOK)
		w.grant(n, n.g.Committed(round, n.now(), w.out[:0]))
	}
}

func (w *world) grant(n *simNode, answers []Answer) {
	for _, a := range answers {
		w.logf("GRANT    by %d to boot %x stamp %d ttl %v need %d", n.id, a.Boot[:3], int64(a.Stamp)/1e6, a.TTL, a.Applied)
		w.post(msg{kind: mGrant, from: n.id, to: int(a.Boot[0]) - 1, answer: a})
	}
	w.out = answers[:0]
}

func (w *world) tick(n *simNode) {
	if n.applied+1 < uint64(len(w.rows)) && n.blind <= w.step && (w.calm || w.rng.IntN(2) == 0) {
		to := n.applied + 1
		if w.calm || w.rng.IntN(2) == 0 {
			to = uint64(len(w.rows) - 1)
		}
		w.apply(n, to)
	}
	if w.p.renew && n.lease.Renew(n.now()) {
		to := w.lead
		if w.rng.IntN(3) == 0 && !w.calm {
			to = w.rng.IntN(w.p.nodes)
		}
		w.post(msg{kind: mRenew, from: n.id, to: to, renewal: Renewal{Boot: n.boot, Applied: n.applied, Stamp: n.now()}})
	}
	w.rounds(n)
	w.activate(n)
	if s := n.sess; s != nil {
		// Wake has to be right, or nothing comes of it in peace.
		if n.now() >= s.core.Wake() {
			s.run()
		} else {
			s.answer()
		}
	}
}

func (w *world) pass() {
	switch x := w.rng.IntN(1000) / 10; {
	case w.p.slow && !w.calm:
		switch {
		case x < 90:
			w.at += Instant(w.rng.Int64N(int64(4 * time.Millisecond)))
		case x < 99 || w.rng.IntN(2) == 0:
			w.at += Instant(w.rng.Int64N(int64(30 * time.Millisecond)))
		default:
			w.at += Instant(w.rng.Int64N(int64(600 * time.Millisecond)))
		}
	case w.calm:
		w.at += Instant(w.rng.Int64N(int64(20 * time.Millisecond)))
	case x < 70:
		w.at += Instant(w.rng.Int64N(int64(2 * time.Millisecond)))
	case x < 95:
		w.at += Instant(w.rng.Int64N(int64(60 * time.Millisecond)))
	default:
		w.at += Instant(w.rng.Int64N(int64(800 * time.Millisecond)))
	}
}

// stepOnce does one thing.
func (w *world) stepOnce() {
	w.step++
	w.pass()
	if !w.calm {
		w.trouble()
	}
	x := w.rng.IntN(100)
	switch {
	case x < 50 && w.deliverOne():
	case x < 50+w.p.syncs && w.syncOne():
	case x < 85:
		if n := w.nodes[w.rng.IntN(w.p.nodes)]; n.runs() {
			w.tick(n)
		}
	default:
		w.clientOne()
	}
}

// syncOne syncs a replica that has something to sync.
func (w *world) syncOne() bool {
	at := w.rng.IntN(w.p.nodes)
	for i := range w.p.nodes {
		if n := w.nodes[(at+i)%w.p.nodes]; n.runs() && (n.replica.dirty || len(n.replica.replies) > 0) {
			w.syncReplica(n)
			return true
		}
	}
	return false
}

// clientOne has a client come to an owner; to one that is cut off more often.
func (w *world) clientOne() {
	at := w.rng.IntN(w.p.nodes)
	var to *simSession
	for i := range w.p.nodes {
		n := w.nodes[(at+i)%w.p.nodes]
		if n.runs() && n.sess != nil && n.sess.core.State() == Active && (to == nil || n.cut > w.step && w.rng.IntN(2) == 0) {
			to = n.sess
		}
	}
	if to != nil {
		w.client(to)
	}
}

func (w *world) client(s *simSession) {
	x := w.rng.IntN(100)
	if s.n.cut > w.step && x < w.p.writes && w.rng.IntN(8) > 0 {
		x = w.p.writes // what it cannot commit would only hold up its reads
	}
	switch {
	case x < w.p.writes:
		s.write()
	case x < w.p.writes+w.p.reads:
		s.read()
	case x < w.p.writes+w.p.reads+w.p.compact:
		s.compact()
	case w.rng.IntN(2) == 0:
		s.core.FlushCommit()
		s.run()
	case w.sim&simRollbackReuse != 0:
		s.rollback()
	}
}

// compact moves the base of the own copy up to what it knows committed, and of
// another one.
func (s *simSession) compact() {
	w := s.n.w
	for _, n := range []*simNode{s.n, w.nodes[w.rng.IntN(w.p.nodes)]} {
		c := &n.replica.mem
		if c.health != Broken && c.known > c.base && n.up {
			c.base, n.replica.dirty = c.known, true
			n.replica.sync()
			n.flush()
		}
	}
	if b := s.n.replica.mem.base; s.core.State() == Active && b > s.base && b <= s.core.Committed() {
		s.base = b
		s.core.Compacted(b + 1)
	}
}

// deliverOne delivers, repeats or loses a message, if one can move.
func (w *world) deliverOne() bool {
	for range 8 {
		if len(w.soup) == 0 {
			return false
		}
		i := 0
		if !w.calm && w.rng.IntN(3) == 0 {
			i = w.rng.IntN(len(w.soup))
		} else if w.rng.IntN(2) == 0 && !w.calm {
			i = len(w.soup) - 1
		}
		m := w.soup[i]
		from, to := w.nodes[m.from], w.nodes[m.to]
		if m.from != m.to && m.kind < mActivate && (to.cut > w.step || from.cut > w.step) || to.up && !to.runs() {
			if w.soup = slices.Delete(w.soup, i, i+1); w.rng.IntN(8) > 0 || m.from == m.to {
				w.soup = append(w.soup, m) // it is held up somewhere
			} else {
				w.lost(m)
			}
			continue
		}
		if !to.up {
			w.soup = slices.Delete(w.soup, i, i+1)
			w.lost(m)
			continue
		}
		if w.calm || !w.chance(w.p.dup) {
			w.soup = slices.Delete(w.soup, i, i+1)
		}
		if !w.calm && w.chance(w.p.drop) && m.from != m.to {
			w.lost(m)
			return true
		}
		w.deliver(m)
		return true
	}
	return false
}

// lost drops a message; the owner may hear that a connection broke. He does when
// a long transfer is lost.
func (w *world) lost(m msg) {
	owner := m.to
	long := m.kind == mFetched
	switch m.kind {
	case mPrepare, mAppend, mSnap, mFetch, mCheck, mHint:
		owner, long = m.from, m.kind == mSnap || m.kind == mFetch
	case mActivate, mRenew, mGrant:
		return
	}
	if s := w.nodes[owner].sess; s != nil && s.epoch == m.epoch && (long || w.rng.IntN(2) == 0) {
		s.core.Down(m.slot)
		s.core.Up(m.slot)
		s.run()
	}
}

// trouble crashes, pauses and replaces.
func (w *world) trouble() {
	n := w.nodes[w.rng.IntN(w.p.nodes)]
	if w.chance(w.p.crash) {
		if w.p.sync1 {
			n = w.nodes[max(0, w.last().owner)]
		}
		if n.up {
			w.crash(n)
		}
	}
	if !n.up && w.chance(100) {
		w.restart(n)
	}
	if w.chance(w.p.pause) {
		n.paused = w.step + w.rng.IntN(120)
	}
	if w.chance(w.p.elect) && n.runs() && (n.id != w.lead || !n.g.leading) {
		w.elect(n.id)
	}
	split := slices.ContainsFunc(w.nodes, func(n *simNode) bool { return n.cut > w.step })
	if w.chance(w.p.acquire) && (!split || w.rng.IntN(4) == 0) {
		w.replace(n)
	}
	if !split && w.chance(w.p.cut) {
		o := w.nodes[max(0, w.last().owner)]
		if n == o {
			n = w.nodes[(o.id+1)%w.p.nodes]
		}
		o.cut = w.step + 150 + w.rng.IntN(450)
		if w.rng.IntN(3) > 0 {
			o.blind = o.cut + w.rng.IntN(100)
		}
		if o.id == w.lead && n != o && n.runs() {
			w.elect(n.id)
		}
		if o != n {
			w.replace(n)
		}
		w.logf("CUT OFF  node %d until %d, blind until %d", o.id, o.cut, o.blind)
	}
}

// replace has placement choose another owner, or the same again, and sometimes
// another set.
func (w *world) replace(n *simNode) {
	if !w.nodes[w.lead].up {
		return
	}
	r := w.last()
	set := r.active
	if set == nil {
		set = r.next
	}
	if w.p.reconf && w.rng.IntN(2) == 0 && !w.calm {
		set = []StoreID{n.replica.store}
		for _, i := range w.rng.Perm(w.p.nodes) {
			if o := w.nodes[i]; len(set) < w.p.set && o != n {
				set = append(set, o.replica.store)
			}
		}
		w.reconfs++
	}
	if !n.up || !slices.Contains(set, n.replica.store) || r.boots[n.id] != n.boot {
		return
	}
	w.acquire(n.id, set)
}

// run is one run of the simulation: trouble, then peace, in which somebody must
// come to serve and acknowledge a write.
func (w *world) run() error {
	for w.step < w.p.steps && w.err == nil {
		w.stepOnce()
	}
	if w.err != nil || w.core|flaw(w.sim) != 0 {
		return w.err
	}
	w.calm = true
	w.p.maxLog = 1 << 20
	for _, n := range w.nodes {
		n.paused, n.cut, n.blind = 0, 0, 0
		if !n.up {
			w.restart(n)
		}
	}
	if !w.nodes[w.lead].g.leading {
		w.elect(w.lead)
	}
	w.soup = slices.DeleteFunc(w.soup, func(m msg) bool { return m.from != m.to })
	for _, n := range w.nodes {
		if n.sess != nil {
			for i := range n.sess.core.Slots() {
				n.sess.core.Down(i)
				n.sess.core.Up(i)
			}
			n.sess.run()
		}
	}
	acks := w.acks
	for i := range 6000 {
		if w.err != nil || w.acks > acks && i > 200 {
			return w.err
		}
		if r := w.last(); i%100 == 0 {
			if n := w.nodes[r.owner]; n.sess == nil && (n.begun >= r.epoch || r.ownerBoot != n.boot) {
				w.replace(w.nodes[w.rng.IntN(w.p.nodes)])
			}
		}
		w.stepOnce()
	}
	w.fail("LIVE: nothing was acknowledged in peace")
	return w.err
}
