package peer

import (
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/wire"
)

// Frame types of a peer stream and of a snapshot stream. The list is append-only;
// numbers below 32 belong to package wire, whose ping and pong are used.
const (
	typeAppend  wire.Type = 32 // dialler: a batch of entries and of what is known committed
	typeAck     wire.Type = 33 // acceptor: a batch of acknowledgements and refusals
	typePrepare wire.Type = 34
	typePromise wire.Type = 35
	typeFetch   wire.Type = 36
	typeEntries wire.Type = 37
	typeCheck   wire.Type = 38
	typeChecked wire.Type = 39
	typeRenew   wire.Type = 40
	typeGrant   wire.Type = 41
	typePropose wire.Type = 42
	typeResult  wire.Type = 43
	typeOrder   wire.Type = 44
	typeDone    wire.Type = 45
	typeInspect wire.Type = 46
	typeCopy    wire.Type = 47

	typeOffer     wire.Type = 48
	typeResume    wire.Type = 49
	typePages     wire.Type = 50
	typeInstalled wire.Type = 51

	typeCompare  wire.Type = 52
	typeCompared wire.Type = 53
	typeUse      wire.Type = 54
	typeUsed     wire.Type = 55
)

// flagLast marks the last frame of an answer.
const flagLast wire.Flags = 1

// Remote is the other end of one connection: a process life of a node. An owner
// counts an acknowledgement only from the boot that is registered (rule R3).
type Remote struct {
	Node  cluster.NodeID
	Boot  cluster.BootID
	Store cluster.StoreID
}

func (r Remote) String() string { return fmt.Sprintf("%s (boot %.8s)", r.Node, r.Boot) }

// AppendItem is APPEND of one entry. The boot of the session is that of the
// sending process.
type AppendItem struct {
	Epoch  facet.Epoch // of the session
	Commit facet.Seq   // what the session has committed
	Entry  *facet.Commit
}

// KnownItem tells a replica that the session has committed everything up to At,
// without an entry: for a facet that goes to rest. Its checksum does not travel.
type KnownItem struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch // of the session
	At          facet.Position
}

// Ack is the answer to one APPEND: Err is nil, or why the entry was refused, in
// the words of package replica (*replica.EpochError, *replica.GapError,
// ErrDiverged, ErrFull, ErrUnknown, …). A positive one says that everything up to
// Seq is durable there (rule R9).
type Ack struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch // of the session
	Seq         facet.Seq
	Err         error
}

// Session names a facet and an epoch of it: what PREPARE and CHECK ask about.
type Session struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch
}

// PrepareResult is the answer to one PREPARE, and who gave it (rule R3).
type PrepareResult struct {
	From    Remote
	Promise replica.Promise
	Err     error
}

// InspectResult is what a node keeps of a facet, and who told it. Epoch and what was
// promised are not told.
type InspectResult = PrepareResult

// FetchRequest asks for entries of a facet's log, from From to To, or to the end
// when To is zero.
type FetchRequest struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch // of the session that asks
	From, To    facet.Seq
	MaxBytes    uint32 // bound on the answer, DefaultFetch when zero; one entry is always sent
}

// FetchResult is what a FETCH brought: entries in order, from the first one asked
// for.
type FetchResult struct {
	Entries []facet.Commit
	More    bool // the bound was reached; ask again from after the last one
}

// RenewRequest asks for the lease of the sending process (rule R40).
type RenewRequest struct {
	Applied uint64        // placement index this node has applied
	Stamp   time.Duration // of the sender's clock; comes back as it is
}

// Grant is the answer to RENEW.
type Grant struct {
	Stamp time.Duration
	TTL   time.Duration
	// Apply is the placement index to be applied before the lease is granted; set
	// with ErrRefused.
	Apply uint64
	// Got and Answered are when the renewal was received and answered by the clock of
	// the granter, which the holder compares with its own (rule R41). Zero if it was
	// not granted.
	Got, Answered time.Duration
	// Granter is the process life that was asked. It is not sent: the connection knows.
	// Zero is this process.
	Granter cluster.BootID
}

// ProposeResult is the answer to one forwarded command: its result, or
// *NotLeaderError, ErrUnknownOutcome, ErrInvalid, ErrBusy, ErrRefused.
type ProposeResult struct {
	Result []byte
	Err    error
}

// SnapshotOffer says what snapshot is to be sent.
type SnapshotOffer struct {
	Incarnation facet.Incarnation
	Epoch       facet.Epoch // of the session that sends it
	Position    facet.Position
	Pages       uint32
}

// Who is what a node tells anyone who asks.
type Who struct {
	Remote
	Cluster    cluster.ID // zero when it belongs to none yet
	VersionMin uint8
	VersionMax uint8
}
