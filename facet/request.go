package facet

import (
	"crypto/rand"
	"fmt"
	"time"
)

// TxID names an open interactive transaction. It is random, so that holding it
// is the right to use it. Zero means none.
type TxID [16]byte

// NewTxID draws a fresh id.
func NewTxID() TxID {
	var id TxID
	rand.Read(id[:])
	return id
}

// IsZero reports whether id names no transaction.
func (id TxID) IsZero() bool { return id == TxID{} }

// Key makes a request idempotent: a request with the same key takes effect once,
// across retries, crashes and changes of owner (rule R45). Client is drawn once
// per client life, N counts up within it. Zero means no key.
type Key struct {
	Client [16]byte
	N      uint64
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k == Key{} }

// ReadMode says what an answer must be confirmed by before it may leave.
type ReadMode uint8

const (
	// ReadOwner: by the owner, under its lease or, without one, by its replicas.
	ReadOwner ReadMode = iota
	// ReadQuorum: by a majority of the replica set that was asked after the read had
	// run, lease or no lease: no clock is trusted (rule R34).
	ReadQuorum
	// ReadFollower: by nobody. Any member of the replica set answers from what it knows
	// to be committed, which may be old (rule R35).
	ReadFollower
)

// String is the name of the mode in JSON and docs.
func (m ReadMode) String() string {
	switch m {
	case ReadOwner:
		return "owner"
	case ReadQuorum:
		return "quorum"
	case ReadFollower:
		return "follower"
	}
	return fmt.Sprintf("mode_%d", uint8(m))
}

// ParseReadMode reads what String prints.
func ParseReadMode(s string) (ReadMode, error) {
	for _, m := range [...]ReadMode{ReadOwner, ReadQuorum, ReadFollower} {
		if s == m.String() {
			return m, nil
		}
	}
	return ReadOwner, Errorf(CodeBadRequest, "read is owner, quorum or follower, not %.40q", s)
}

// Request is one unit of work for one facet: its steps run in order, at the
// owner, with no other transaction in between.
//
// Without Tx and KeepTx a request leaves no transaction open: one that its own
// SQL began and did not end is rolled back and the request fails. With KeepTx an
// open transaction stays, holds the facet, and is named in the Response; later
// requests carry that name in Tx.
type Request struct {
	Name     Name
	Tx       TxID          // continue this interactive transaction
	KeepTx   bool          // an open transaction may outlive the request
	Atomic   bool          // run all steps in one transaction, all or nothing
	ReadOnly bool          // refuse statements that write
	Read     ReadMode      // what confirms an answer that changed nothing
	After    Bookmark      // run on a state that holds everything up to this, or not at all
	Bookmark bool          // name what the answer reflects, in Response.Bookmark
	Key      Key           // idempotency key; only with Atomic or a single step, never with Tx
	Timeout  time.Duration // bound on running time, zero for the server's limit
	Trace    Trace         // names the request in logs; changes nothing
	Steps    []Step
}

// Step is one statement, or one script of statements, of a request. Its byte
// slices are read only until the response is given.
type Step struct {
	SQL       []byte
	Args      Values     // positional arguments, or the values of Names
	NArgs     int        // number of values in Args
	Names     []string   // parameter names (with or without their sigil), parallel to Args; nil means positional
	Kind      StepKind   // what to do with the SQL
	NoRows    bool       // the caller wants counts only
	Condition *Condition // run only if it holds; nil means always
}

// StepKind says how a step's SQL is treated.
type StepKind uint8

const (
	// StepExecute runs exactly one statement.
	StepExecute StepKind = 0
	// StepScript runs any number of statements, without arguments and rows.
	StepScript StepKind = 1
	// StepDescribe prepares one statement and tells its shape without running it.
	StepDescribe StepKind = 2
)

// CondOp is the operator of a Condition.
type CondOp uint8

const (
	CondOK         CondOp = 1 // step Step ran without error
	CondError      CondOp = 2 // step Step ran and failed
	CondNot        CondOp = 3 // Conds[0] does not hold
	CondAnd        CondOp = 4 // all of Conds hold
	CondOr         CondOp = 5 // one of Conds holds
	CondAutocommit CondOp = 6 // no transaction is open
)

// Condition decides whether a step runs, from the outcome of earlier steps. At
// most MaxConditionDepth deep.
type Condition struct {
	Op    CondOp
	Step  int
	Conds []Condition
}

// Response is the answer to a request that was run. A request that was not run,
// or whose transaction as a whole failed, is answered by an Error instead.
type Response struct {
	Result   Result   // one or more items per step, in order
	Tx       TxID     // the transaction that stays open, zero if none
	Position Position // what the answer reflects; zero for a facet that does not exist
	Bookmark Bookmark // of Position, where the request asked for it, or reads as a follower
}
