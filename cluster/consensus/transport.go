package consensus

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// transport carries Raft's messages. Beside that it sees how far each follower
// is, which Raft keeps to itself, and says to followers what Raft says late.
//
// Raft tells a follower that an entry is committed with the next entry, or up
// to two commitTimeouts later when there is none. A node that proposed through
// the leader waits for just that. So after a commit the transport repeats the
// last append message without entries and with the new commit index (nudge):
// the message a leader may send at any moment, safe by the term it carries.
type transport struct {
	*raft.NetworkTransport
	streams   *streams
	addressOf func(cluster.NodeID) (string, bool)
	committed func() uint64

	muted atomic.Bool // nothing is appended: this leader steps aside

	mu    sync.Mutex
	peers map[raft.ServerID]*peer // guarded by mu
	late  *time.Timer             // guarded by mu; the nudge of all that is put off
	paid  time.Time               // guarded by mu; up to when nudges of all have used their share up

	closing chan struct{}
	once    sync.Once
	wg      sync.WaitGroup // nudges
}

// peer is what is known of one follower. All fields are guarded by
// transport.mu.
type peer struct {
	target   raft.ServerAddress
	contact  time.Time                 // of the last answer
	last     raft.AppendEntriesRequest // repeats the last success, without entries
	match    uint64                    // newest entry it is known to have, in last.Term
	told     uint64                    // commit index it was told
	install  bool                      // a snapshot is under way, or what came since
	nudging  bool
	nudgeDue bool
}

var (
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)

	errMuted = errors.New("this leader's disk is stalled; it steps aside")
)

// where finds a member: its place in the configuration, its address as it is
// now.
func (t *transport) where(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	at := parsePlace(target)
	if t.addressOf != nil {
		if a, ok := t.addressOf(cluster.NodeID(id)); ok {
			at.address = a
		}
	}
	return route(cluster.NodeID(id), at)
}

// peer is called with mu held.
func (t *transport) peer(id raft.ServerID, target raft.ServerAddress) *peer {
	p := t.peers[id]
	if p == nil || p.target != target {
		p = &peer{target: target}
		t.peers[id] = p
	}
	return p
}

// EncodePeer keeps the place as it is.
func (t *transport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }

// AppendEntries sends entries, or a heartbeat.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.muted.Load() {
		return errMuted
	}
	if err := t.NetworkTransport.AppendEntries(id, t.where(id, target), args, resp); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peer(id, target)
	p.contact = time.Now()
	heartbeat := args.PrevLogEntry == 0 && len(args.Entries) == 0
	if heartbeat || !resp.Success || resp.Term > args.Term || args.Term < p.last.Term {
		return nil
	}
	if args.Term > p.last.Term {
		p.match, p.told = 0, 0
	}
	index, term := args.PrevLogEntry, args.PrevLogTerm
	if n := len(args.Entries); n > 0 {
		index, term = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	if index >= p.match {
		p.match = index
		p.last = *args
		p.last.Entries, p.last.PrevLogEntry, p.last.PrevLogTerm = nil, index, term
	}
	p.told = max(p.told, min(args.LeaderCommitIndex, index))
	if p.nudgeDue && !p.nudging {
		p.nudgeDue = false
		t.nudge(id, p)
	}
	if p.install && p.match+installSlack >= t.committed() {
		p.install = false
	}
	return nil
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, t.where(id, target), args, resp) })
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, t.where(id, target), args, resp) })
}

// TimeoutNow tells a voter to stand for election at once.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return again(func() error { return t.NetworkTransport.TimeoutNow(id, t.where(id, target), args, resp) })
}

// InstallSnapshot sends a snapshot.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	t.mu.Lock()
	t.peer(id, target).install = true
	t.mu.Unlock()
	err := t.NetworkTransport.InstallSnapshot(id, t.where(id, target), args, resp, data)
	t.mu.Lock()
	p := t.peer(id, target)
	if err == nil {
		p.contact = time.Now()
	}
	p.install = err == nil && resp.Success // until what came since is there too
	t.mu.Unlock()
	return err
}

// again repeats a call that failed at once: the pool may hold connections to a
// process of the past, one failure each, and an election must not wait for
// them.
func again(call func() error) error {
	for attempt := 1; ; attempt++ {
		start := time.Now()
		err := call()
		var refused *refusedError
		if err == nil || attempt > peerPool || time.Since(start) > staleConn || errors.As(err, &refused) {
			return err
		}
	}
}

// installing reports whether a follower is receiving a snapshot, or what was
// logged since: a new snapshot now would cut the log it needs next.
func (t *transport) installing() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.peers {
		if p.install && time.Since(p.contact) < installPatience {
			return true
		}
	}
	return false
}

// progress tells how far a follower is: its newest entry known to match, in
// which term, and when it answered last.
func (t *transport) progress(id raft.ServerID, target raft.ServerAddress) (match, term uint64, contact time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	if p == nil || p.target != target {
		return 0, 0, time.Time{}
	}
	return p.match, p.last.Term, p.contact
}

// answered reports whether a follower has answered since a time.
func (t *transport) answered(id raft.ServerID, since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[id]
	return p != nil && p.contact.After(since)
}

// tell lets a follower know the commit index at once, and all of them at once too
// unless they were told of too many commits just now: then soon.
func (t *transport) tell(first cluster.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.peers[raft.ServerID(first)]; p != nil {
		t.nudge(raft.ServerID(first), p)
	}
	if t.late != nil || len(t.peers) == 0 {
		return
	}
	now, each := time.Now(), max(nudgeAll, time.Duration(len(t.peers))*nudgeEach)
	if t.paid.Before(now) {
		t.paid = now
	}
	wait := t.paid.Sub(now) - (nudgeBurst-1)*each
	t.paid = t.paid.Add(each)
	if wait <= 0 {
		t.nudgeAll()
		return
	}
	t.late = time.AfterFunc(wait, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.late = nil
		t.nudgeAll()
	})
}

// nudgeAll is called with mu held.
func (t *transport) nudgeAll() {
	for id, p := range t.peers {
		t.nudge(id, p)
	}
}

// nudge is called with mu held. Each peer has at most one on its way.
func (t *transport) nudge(id raft.ServerID, p *peer) {
	if p.nudging {
		p.nudgeDue = true
		return
	}
	commit := t.committed()
	if p.match == 0 || p.told >= commit || time.Since(p.contact) > peerTimeout {
		return
	}
	if p.match < commit {
		p.nudgeDue = true // the entries are still under way: when they have arrived
		return
	}
	select {
	case <-t.closing:
		return
	default:
	}
	p.nudging = true
	args := p.last
	args.LeaderCommitIndex = commit
	t.wg.Go(func() {
		var resp raft.AppendEntriesResponse
		err := t.AppendEntries(id, p.target, &args, &resp)
		t.mu.Lock()
		defer t.mu.Unlock()
		p.nudging = false
		if due := p.nudgeDue; due && err == nil && resp.Success {
			p.nudgeDue = false
			t.nudge(id, p)
		}
	})
}

// Close ends all connections and waits for what used them.
func (t *transport) Close() error {
	err := t.NetworkTransport.Close()
	t.once.Do(func() {
		t.mu.Lock()
		close(t.closing)
		if t.late != nil {
			t.late.Stop()
		}
		t.mu.Unlock()
	})
	err = errors.Join(err, t.streams.Close())
	t.wg.Wait()
	return err
}

// furthestFirst sorts servers by how far their log is known to be.
func (t *transport) furthestFirst(servers []raft.Server) {
	t.mu.Lock()
	defer t.mu.Unlock()
	match := func(s raft.Server) uint64 {
		if p := t.peers[s.ID]; p != nil {
			return p.match
		}
		return 0
	}
	slices.SortStableFunc(servers, func(a, b raft.Server) int { return cmp.Compare(match(b), match(a)) })
}
