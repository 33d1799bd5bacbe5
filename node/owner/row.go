package owner

import (
	"context"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/quorum"
)

// Member is one keeper of a facet: a node, its store, and the process life that is
// registered for the store now.
type Member struct {
	Node  cluster.NodeID
	Store cluster.StoreID
	Boot  cluster.BootID // zero when none is registered, or for another store
}

// Row is what an owner needs to know of a facet's row in the placement table.
type Row struct {
	Name        facet.Name
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	// Owner is whom to ask for the facet, and OwnerURL where. A facet whose owner
	// gave it back is anybody's of its set: then Owner is this node where it may be,
	// else another member.
	Owner    cluster.NodeID
	OwnerURL string
	Boot     cluster.BootID // the process life Epoch was issued to; zero for nobody
	Local    bool           // Owner is this node, in this process life or an earlier one
	Mine     bool           // Epoch was issued to this process life (rule R2)
	Active   bool           // Epoch is activated (rule R21)
	New      bool           // never activated, or only by its creation: its members may hold nothing yet (rule R47)
	First    bool           // New, and no other epoch was ever issued
	// ActiveSet was activated last, NextSet is what the owner of Epoch replicates to.
	ActiveSet, NextSet []Member
	ActiveEpoch        facet.Epoch
	Lineage            facet.Lineage
}

// Set is the replica set that counts: what was activated last, or what is to be.
func (r *Row) Set() []Member {
	if len(r.ActiveSet) > 0 {
		return r.ActiveSet
	}
	return r.NextSet
}

// served reports whether this process, whose session has just ended, is the last that
// served the facet: nobody can acknowledge anything of it any more, as long as the
// epoch stays what it is.
func (r *Row) served() bool { return r.Mine && r.Active }

// core is the row as the pure session sees it.
func (r *Row) core() quorum.Row {
	members := func(list []Member) []quorum.Member {
		out := make([]quorum.Member, len(list))
		for i, m := range list {
			out[i] = m.core()
		}
		return out
	}
	return quorum.Row{
		Epoch: r.Epoch, Owner: quorum.BootID(r.Boot), ActiveEpoch: r.ActiveEpoch,
		Active: members(r.ActiveSet), Next: members(r.NextSet),
	}
}

func (m *Member) core() quorum.Member {
	return quorum.Member{Store: quorum.StoreID(m.Store), Boot: quorum.BootID(m.Boot)}
}

// Transfer says to whom an epoch is issued and what it replicates to.
type Transfer struct {
	// Owner is the node, in the process life registered now. Empty: this process.
	Owner cluster.NodeID
	// Set is the next set; empty: the active one (rule R43).
	Set []Member
	// Released is this process's word that its own session of the facet is over
	// (rule R40): nobody has to wait for its lease.
	Released bool
}

// Placement is the placement table as owners use it. Methods may be called from
// any goroutine. Errors are *facet.Error or wrap one. Whatever changes the table
// returns when this node's own copy shows the change.
type Placement interface {
	// Lookup and ByIncarnation read this node's copy of the table. They do not
	// block.
	Lookup(name facet.Name) (Row, bool)
	ByIncarnation(id facet.Incarnation) (Row, bool)
	// Confirm is Lookup in a copy that is no older than the call: a facet that this
	// node does not know may have been created, and written to, elsewhere.
	Confirm(ctx context.Context, name facet.Name) (Row, bool, error)
	// Create makes the facet where the planner wants it, or returns the row that is
	// there already.
	Create(ctx context.Context, name facet.Name) (Row, error)
	// CreateDetached makes a facet that has no name yet, with this node as its owner. Of
	// says which other facet it begins with, if one.
	CreateDetached(ctx context.Context, name facet.Name, of facet.Lineage) (Row, error)
	// Acquire issues a new epoch; it fails if row is no longer the newest.
	Acquire(ctx context.Context, row Row, t Transfer) (Row, error)
	// Activate is the compare-and-set of rule R21. It waits out the lease of the
	// holder before.
	Activate(ctx context.Context, row Row) error
	// Bind leads the name to row instead of to old, if it still leads to old (rule
	// R49). A zero old wants the name to be free. Unserved says that this process never
	// served old in its epoch, and wants that nobody did: then the lease of old's last
	// holder is waited out (rule R25). After an error of CodeUnknownOutcome it may take
	// effect yet, or have done so; after any other it does not.
	Bind(ctx context.Context, name facet.Name, old, row Row, unserved bool) error
	// Delete raises the epoch without an owner, if it is row's still (rule R47), and
	// says that this process serves the facet no more. A facet that is being deleted
	// or retired stays so.
	Delete(ctx context.Context, row Row) error
	// Tomb takes the row away for good.
	Tomb(ctx context.Context, id facet.Incarnation) error
}

// Lease is this process's permission to answer reads without asking anybody.
type Lease interface {
	// Valid is the last test before an answer leaves (rule R33). It is called for
	// every read and must be quick.
	Valid() bool
	// Wake tells that there is a session to use it.
	Wake()
}

// noLease has every read ask a majority (rule R34).
type noLease struct{}

func (noLease) Valid() bool { return false }
func (noLease) Wake()       {}

// NotOwner sends a client to whom the row names.
func NotOwner(row *Row) error {
	return &facet.Error{
		Code: facet.CodeNotOwner, Message: "the owner is node " + string(row.Owner), Owner: row.OwnerURL, Epoch: row.Epoch,
	}
}
