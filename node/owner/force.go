package owner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
)

// Recovery by force (rule R25): a facet that lost most of its copies for good goes on
// from the one of this node. What only the lost ones had is lost, so this is an
// operator's word and never the node's own. Nothing of the old facet is changed into
// something else: its content becomes a new facet, with a new id and a lineage that says
// Lossy, and the name is led to that in one step. The old id is retired, so a copy of it
// that turns up later counts for nothing.

// Copy is what a member keeps of a facet, as it says itself.
type Copy struct {
	Member
	Promise replica.Promise // what it has; nothing is promised
	Err     error           // why nothing is known of it
}

// Survey is what there is of a facet, and whether this node's copy may take its place.
type Survey struct {
	Copies      []Copy // of the active set, in the order of the row
	Own         replica.Meta
	Pages       uint32 // size of the database at the end of the own log
	Recoverable bool   // what answers is enough to go on without loss
	Refused     error  // why it may not; nil: it may
}

// errForced ends a session whose facet goes on from its copy here.
var errForced = errors.New("the facet is recovered from one copy")

// Survey asks every member of a facet what it keeps. It changes nothing.
func (m *Manager) Survey(ctx context.Context, row *Row) Survey {
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	sv := Survey{Copies: make([]Copy, len(row.ActiveSet))}
	var g sync.WaitGroup
	for i, x := range row.ActiveSet {
		sv.Copies[i].Member = x
		if x.Store == m.opts.Self.Store {
			continue
		}
		g.Go(func() { sv.Copies[i].Promise, sv.Copies[i].Err = m.inspect(ctx, row, &x) })
	}
	var own *Copy
	for i := range sv.Copies {
		if own = &sv.Copies[i]; own.Store != m.opts.Self.Store {
			own = nil
			continue
		}
		r, err := m.opts.Store.Replica(row.Incarnation)
		if own.Err = err; err == nil {
			sv.Own = r.Meta()
			own.Promise = sv.Own.AsPromise()
			sv.Pages = pagesAt(r, &sv.Own)
		}
		break
	}
	g.Wait()
	sv.Refused = m.mayForce(row, &sv, own)
	return sv
}

// pagesAt is the size of the database at the end of a copy's log.
func pagesAt(r replica.Replica, m *replica.Meta) uint32 {
	if m.Durable > m.Base.Seq {
		for c, err := range r.Entries(m.Durable) {
			if err == nil {
				return c.DBPages
			}
			break // it was checkpointed just now, or cannot be read: then that is said elsewhere
		}
	}
	return m.BasePages
}

// inspect asks one member. A node that has never heard of the facet keeps nothing of it,
// and would promise that (R19); one with another disk is no member (R3).
func (m *Manager) inspect(ctx context.Context, row *Row, x *Member) (replica.Promise, error) {
	if m.opts.Peers == nil {
		return replica.Promise{}, errors.New("this node is alone")
	}
	res, err := m.opts.Peers.Peer(x.Node).Inspect(ctx, []peer.Session{{Incarnation: row.Incarnation, Epoch: row.Epoch}})
	switch {
	case err != nil:
		m.log.Info("a member of a facet does not answer", "facet", row.Name.String(), "node", string(x.Node), "error", err)
		return replica.Promise{}, errSilent
	case res[0].From.Store != x.Store:
		return replica.Promise{}, errOtherDisk
	case errors.Is(res[0].Err, replica.ErrUnknown):
		return replica.Promise{}, nil
	}
	return res[0].Promise, res[0].Err
}

var (
	errSilent    = errors.New("does not answer")
	errOtherDisk = errors.New("its disk was replaced: the copy is lost")
)

// mayForce says why the own copy may not take the place of the facet, or nil.
func (m *Manager) mayForce(row *Row, sv *Survey, own *Copy) error {
	self := m.opts.Self.Node
	if len(row.ActiveSet) == 0 {
		return facet.Errorf(facet.CodeBadRequest, "%s was never activated, so nothing of it can be lost; it begins when it is used", row.Name)
	}
	if own == nil || own.Err != nil {
		var members []string
		for _, x := range row.ActiveSet {
			members = append(members, string(x.Node))
		}
		return facet.Errorf(facet.CodeBadRequest, "node %s keeps no copy of %s that counts; the nodes that did are %s", self, row.Name, strings.Join(members, ", "))
	}
	if own.Promise.Health > replica.Uncertain {
		return facet.Errorf(facet.CodeCorrupt, "the copy of %s at node %s is damaged; name another node, or import an export", row.Name, self)
	}
	var known []quorum.Promise
	better, unheard := own, cluster.NodeID("")
	for i := range sv.Copies {
		c := &sv.Copies[i]
		if c.Err != nil {
			if c.Err == errSilent && m.opts.Seen != nil && m.opts.Seen(c.Node) {
				unheard = c.Node
			}
			continue
		}
		known = append(known, corePromise(&c.Promise))
		if c.Promise.Health <= replica.Uncertain && c.Promise.Last.Compare(better.Promise.Last) > 0 {
			better = c
		}
	}
	sv.Recoverable = quorum.Recoverable(len(row.ActiveSet), known)
	switch {
	case sv.Recoverable:
		return facet.Errorf(facet.CodeBadRequest, "%d of the %d copies of %s answer, which is enough to go on without loss: nothing is to be forced; look at the facet again, it serves when it is used", len(known), len(row.ActiveSet), row.Name)
	case unheard != "":
		// It may be one of a majority that serves the facet at this moment.
		return facet.Errorf(facet.CodeBadRequest, "node %s keeps a copy of %s, seems to live and does not answer node %s; mend the network between them, or stop it and wait some seconds", unheard, row.Name, self)
	case better != own:
		return facet.Errorf(facet.CodeBadRequest, "node %s has a newer copy of %s, at %v where node %s is at %v; recover from that one", better.Node, row.Name, better.Promise.Last, self, own.Promise.Last)
	}
	return nil
}

// ForceRecover makes a new facet of this node's copy of row's and leads the name to it.
// Two at a time are kept apart by the copy, which only one can have open.
//
// Old is fenced first, as far as that is possible without its majority: its epoch is
// issued to this process, so that its last owner is revoked, and this copy promises it,
// so that it stays what it is. The name is led to the new facet only if nobody was
// activated for the old one since, and when the lease of its last holder is over. Any
// step may fail, and the old facet is then what it was, in another epoch.
func (m *Manager) ForceRecover(ctx context.Context, old Row) (Row, error) {
	row, err := m.forceRecover(ctx, &old)
	if err != nil {
		return row, fmt.Errorf("recover %s: %w", old.Name, err)
	}
	m.created.Add(1)
	if err := m.Wake(ctx, old.Name); err != nil {
		m.log.Warn("open the recovered facet", "facet", old.Name.String(), "error", err)
	}
	return row, nil
}

func (m *Manager) forceRecover(ctx context.Context, old *Row) (row Row, err error) {
	if err := m.Survey(ctx, old).Refused; err != nil {
		return Row{}, err
	}
	own, err := m.seize(ctx, old)
	if err != nil {
		return Row{}, err
	}
	row, at, err := m.cloneOwn(ctx, old, own)
	if err == nil {
		// Before the name leads there a majority must hold the data, as for an import.
		err = m.activateDetached(&row)
	}
	if err == nil {
		// Others may have come back meanwhile, and with them what they had.
		err = m.Survey(ctx, old).Refused
	}
	if err != nil {
		if !row.Incarnation.IsZero() {
			m.discard(ctx, row)
		}
		return Row{}, err
	}
	return row, m.succeed(ctx, old, &row, at)
}

// seize ends the session of the facet here, issues the next epoch to this process and
// has this node's copy promise it.
func (m *Manager) seize(ctx context.Context, old *Row) (own replica.Replica, err error) {
	err = m.do(ctx, old.Name, job{closed: true, forced: true}, func(*session) error {
		now, ok := m.opts.Placement.Lookup(old.Name)
		if !ok || now.Incarnation != old.Incarnation {
			return errChanged(old)
		}
		// The session here is over: nobody waits for this process's lease.
		now, err := m.opts.Placement.Acquire(ctx, now, Transfer{Released: true})
		if err != nil {
			return err
		}
		if own, err = m.opts.Store.Replica(old.Incarnation); err == nil {
			_, err = m.opts.Store.Prepare(ctx, old.Incarnation, now.Epoch, replica.Boot(m.opts.Self.Boot))
		}
		return copyError(err)
	})
	if err != nil {
		return replica.Replica{}, err // the job may still be running
	}
	return own, nil
}

func errChanged(old *Row) error {
	return facet.Errorf(facet.CodeExists, "%s was changed meanwhile; look at it before trying again", old.Name)
}

// cloneOwn makes a detached facet of all that the own copy holds, and tells what that
// is. What is in its log counts too, known to be committed or not: it may have been
// acknowledged.
func (m *Manager) cloneOwn(ctx context.Context, old *Row, own replica.Replica) (row Row, at facet.Position, err error) {
	store, err := own.Open(ctx, true)
	if err != nil {
		return Row{}, at, copyError(err)
	}
	defer func() { err = errors.Join(err, own.Close(store)) }()
	at = store.Position()
	sn, err := store.Snapshot()
	if err != nil {
		return Row{}, at, copyError(err)
	}
	defer sn.Close()
	row, err = m.opts.Placement.CreateDetached(ctx, old.Name, facet.Lineage{Source: old.Incarnation, At: at, Lossy: true})
	if err != nil {
		return Row{}, at, err
	}
	base := pages.Base{Position: facet.Position{Epoch: row.Epoch, Seq: 1, Sum: at.Sum}, Pages: sn.Pages()}
	return row, at, m.installOwn(ctx, &row, base, &snapshotReader{sn: sn})
}

// snapshotReader reads the database file a snapshot shows.
type snapshotReader struct {
	sn   *pages.Snapshot
	read uint32 // pages
	page [pages.Size]byte
	rest []byte // of page
}

// Read implements io.Reader.
func (r *snapshotReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.read == r.sn.Pages() {
			return 0, io.EOF
		}
		if err := r.sn.ReadPage(r.read+1, r.page[:]); err != nil {
			return 0, err
		}
		r.read++
		r.rest = r.page[:]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// succeed leads the name from the old facet to the new one, and retires the old one.
func (m *Manager) succeed(ctx context.Context, old, row *Row, at facet.Position) error {
	return m.do(ctx, old.Name, job{closed: true, forced: true}, func(*session) error {
		// What was served since it was looked at must not be lost. A session of this
		// node would have to be activated first; the desk, which opens them, is held.
		now, ok := m.opts.Placement.Lookup(old.Name)
		own, err := m.opts.Store.Replica(old.Incarnation)
		switch {
		case !ok || now.Incarnation != old.Incarnation:
			m.discard(ctx, *row)
			return errChanged(old)
		case !now.Mine || now.Active || now.ActiveEpoch != old.ActiveEpoch:
			m.discard(ctx, *row)
			return facet.Errorf(facet.CodeExists, "%s was opened by node %s meanwhile; look at it before trying again", old.Name, now.Owner)
		case err != nil || own.Position() != at:
			m.discard(ctx, *row)
			return facet.Errorf(facet.CodeUnavailable, "the copy of %s here was changed meanwhile; try again", old.Name)
		}
		bind, cancel := context.WithTimeout(ctx, succeedTimeout)
		defer cancel()
		if err := m.bind(bind, old.Name, now, *row, true); err != nil {
			if !errors.Is(err, facet.ErrUnknownOutcome) {
				m.discard(ctx, *row)
			}
			return fmt.Errorf("lead the name to the recovered facet (the lease of the node that owned it last may still be valid; if that node lives, stop it): %w", err)
		}
		m.fenceMembers(ctx, &now)
		m.forget(ctx, now)
		return nil
	})
}

// fenceMembers has every member that answers promise the epoch in which a facet was
// retired, to nobody (R47): an owner that is cut off from the placement table and not
// from them can have nothing acknowledged. Those that do not answer learn of it from the
// table.
func (m *Manager) fenceMembers(ctx context.Context, old *Row) {
	now, ok := m.opts.Placement.ByIncarnation(old.Incarnation)
	if !ok || m.opts.Peers == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	var g sync.WaitGroup
	for _, x := range fenced(old, m.opts.Self.Node) {
		g.Go(func() {
			res, err := m.opts.Peers.Peer(x).Prepare(ctx, []peer.Session{{Incarnation: now.Incarnation, Epoch: now.Epoch}})
			if err == nil {
				err = res[0].Err
			}
			if err != nil {
				m.log.Info("a member of a retired facet was not fenced", "incarnation", now.Incarnation.String(), "node", string(x), "error", err)
			}
		})
	}
	g.Wait()
}

// fenced lists the nodes of both sets of a facet but this one.
func fenced(row *Row, self cluster.NodeID) (nodes []cluster.NodeID) {
	for _, set := range [][]Member{row.ActiveSet, row.NextSet} {
		for _, x := range set {
			if x.Node != self && !slices.Contains(nodes, x.Node) {
				nodes = append(nodes, x.Node)
			}
		}
	}
	return nodes
}

// discard takes a new facet away that got no name, also when the caller has gone.
func (m *Manager) discard(ctx context.Context, row Row) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	m.forget(ctx, row)
}
