package placement

import (
	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// Kind is the number of a command in the log. The list is append-only.
type Kind uint8

const (
	KindRegisterNode    Kind = 1
	KindCreate          Kind = 2
	KindAcquire         Kind = 3
	KindActivate        Kind = 4
	KindRelease         Kind = 5
	KindDelete          Kind = 6
	KindTomb            Kind = 7
	KindBind            Kind = 8
	KindSetClusterID    Kind = 9
	KindSetTenantLimits Kind = 10
	KindRaiseGeneration Kind = 11
	KindRenew           Kind = 12
	KindSetNode         Kind = 13
	KindRemoveNode      Kind = 14
	KindPin             Kind = 15
	KindChangeTenant    Kind = 16
)

// Command is one change of the table. What it expects of the table is part of
// it: a command that meets something else is refused and changes nothing. All
// commands may be proposed twice; the second answer is Done, or Existed for
// Create, whenever the first one did what was asked.
type Command interface {
	Kind() Kind
	appendPayload(dst []byte) []byte
	apply(s *state, index uint64) Result
}

// RegisterNode announces a process life of a node. A new boot of the same
// store supersedes the old one; whatever the old one owned must be acquired
// anew (rule R2). A node that comes back with another store is refused, unless
// ReplaceStore says that the operator or a repair knows its old one is lost.
// The node's state stays what SetNode made it.
type RegisterNode struct {
	Node    cluster.NodeID
	Store   cluster.StoreID
	Boot    cluster.BootID
	Machine cluster.MachineID
	API     string
	Peer    string
	Zone    string
	Version string // of the program, for people and for rolling upgrades
	// LeaseOver is the proposer's word that the lease of the boot registered
	// now is over, or that none was ever given (rule R38). Without it a new
	// boot must come from the same machine, whose directory lock proves that
	// the old process is gone (rule R3).
	LeaseOver    bool
	ReplaceStore bool
}

// Create makes a facet: a row in its first epoch, bound to the owner given. When the
// name leads to a facet already, that row is the answer (Existed) and nothing changes.
//
// Active also lets the owner serve, as an Activate in the same entry would: nobody held
// the facet before, so there is no lease to wait for and nothing to recover (rules R21,
// R47). It still acknowledges nothing before its barrier is on a majority. Without
// Active the state is Creating, and Activate follows: for a facet that begins with
// data, which a majority must hold first. It has no effect on a detached row, nor once
// the generation was raised, for the first epoch can then be told from a later one no
// more.
type Create struct {
	Name        facet.Name
	Incarnation facet.Incarnation
	Owner       Owner
	Set         Set
	// Detached makes the row without giving it the name; Bind does that once
	// it holds its data (import, restore).
	Detached bool
	Active   bool
	Lineage  facet.Lineage
}

// Acquire issues the next epoch to a process life. Expected is the epoch the
// proposer saw: of two that race, one is refused. An active facet becomes
// Recovering; one that was never activated stays Creating.
type Acquire struct {
	Incarnation facet.Incarnation
	Owner       Owner
	Expected    facet.Epoch
	// Released is the word of the process life of that id that it serves this
	// facet no more: if it is the holder, no lease need be waited out. Zero:
	// nobody's word. Only that process may give it, once its session is over.
	Released cluster.BootID
	// Set is the next set. When empty it is the active set, so that a
	// failover during a change of the set takes the change back (rule R43).
	Set Set
}

// Activate lets the owner of an epoch serve: the compare-and-set of rule R21.
// Whoever proposes it has waited out the lease of the row's holder, which the
// owner becomes now.
type Activate struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Boot        cluster.BootID
}

// Release gives an epoch back: the row stays without owner until the next
// Acquire, and without holder if the owner was it. The session of the releasing
// owner is over before it is proposed. One that comes when a newer epoch was
// issued only ends the holder of the epoch it gives back.
type Release struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
	Boot        cluster.BootID
}

// Delete raises the epoch without an owner (rule R47). The name stays taken
// until Tomb.
type Delete struct {
	Incarnation facet.Incarnation
	// Expected is the epoch the proposer saw; zero deletes whatever it is now.
	Expected facet.Epoch
}

// Tomb takes a deleted or retired row away for good and remembers its id. It
// is proposed after the fence of rule R47.
type Tomb struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
}

// Bind leads a name to another incarnation by compare-and-set (rule R49). The
// one it led to is retired: its epoch is raised without an owner. Where the
// old one may have a live owner elsewhere, the proposer fences it first by
// acquiring it; OldEpoch then proves that the fence still holds. The new row
// loses any name it had, so Bind renames as well.
type Bind struct {
	Name     facet.Name
	Old      facet.Incarnation // zero: the name must lead nowhere
	OldEpoch facet.Epoch
	New      facet.Incarnation
	// Unserved is for an old one that its proposer never served: the command is refused
	// with RefusedState if anybody was activated in OldEpoch, and whoever proposes it has
	// waited out the lease of the old row's holder, as for Activate (rules R21, R25).
	Unserved bool
}

// SetClusterID names the cluster, once.
type SetClusterID struct{ ID cluster.ID }

// SetTenantLimits replaces the limits of a tenant; zero limits remove them. It leaves a
// freeze as it is. Its successor is ChangeTenant; it stays for logs that have it.
type SetTenantLimits struct {
	Tenant facet.Tenant
	Limits facet.TenantLimits
}

// ChangeTenant changes some settings of a tenant and leaves the others as they are, so
// that two who change different ones do not undo each other. Without a Tenant it changes
// the defaults of all tenants. It is refused with RefusedFull where it would be the
// settings of one tenant more than MaxTenants.
type ChangeTenant struct {
	Tenant facet.Tenant       // empty: the defaults
	Fields facet.TenantFields // which of Settings count; the others are zero
	// Settings has for each of Fields its new value; zero takes the setting back.
	Settings facet.TenantSettings
}

// RaiseGeneration lifts all epochs issued from now on above every epoch of
// earlier generations, after the table was restored from a backup (rule R2).
type RaiseGeneration struct{ Generation uint16 }

// Renew changes nothing: its place in the log is what counts. A leader that
// grants leases brings one in after the requests arrived and before it counts
// the time of the grant, so that a deposed leader grants nothing (rule R36).
type Renew struct{}

// SetNode says what a registered node is there for.
type SetNode struct {
	Node  cluster.NodeID
	State NodeState
}

// RemoveNode forgets a node. It is refused with RefusedInUse while the node is
// active, or while a row names it as owner or in a set: what it keeps must have
// moved first. Its name and its store may be registered again afterwards.
//
// It looks at every row under the write lock: readers wait some ten
// milliseconds in a table of a million facets. Nothing else does that.
type RemoveNode struct{ Node cluster.NodeID }

// Pin sets or takes the operator's pin of a live facet.
type Pin struct {
	Incarnation facet.Incarnation
	Pinned      bool
}

func (RegisterNode) Kind() Kind    { return KindRegisterNode }
func (Create) Kind() Kind          { return KindCreate }
func (Acquire) Kind() Kind         { return KindAcquire }
func (Activate) Kind() Kind        { return KindActivate }
func (Release) Kind() Kind         { return KindRelease }
func (Delete) Kind() Kind          { return KindDelete }
func (Tomb) Kind() Kind            { return KindTomb }
func (Bind) Kind() Kind            { return KindBind }
func (SetClusterID) Kind() Kind    { return KindSetClusterID }
func (SetTenantLimits) Kind() Kind { return KindSetTenantLimits }
func (RaiseGeneration) Kind() Kind { return KindRaiseGeneration }
func (Renew) Kind() Kind           { return KindRenew }
func (SetNode) Kind() Kind         { return KindSetNode }
func (RemoveNode) Kind() Kind      { return KindRemoveNode }
func (Pin) Kind() Kind             { return KindPin }
func (ChangeTenant) Kind() Kind    { return KindChangeTenant }
