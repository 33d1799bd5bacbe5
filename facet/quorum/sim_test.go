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
	simNoFence                              // every epoch begins as if it were the first
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
	born         bool // the facet was made active (R47)
	early        bool // and serves before its barrier is committed
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
	firsts                                                            int // sessions without recovery
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
		n.lease.flaws |= core
		n.g = NewGranter(p.ttl, p.margin)
		n.g.flaws |= core
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
