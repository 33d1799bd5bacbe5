package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrNoClusterYet says that of two nodes one has not found its cluster yet: what is
// refused for that works a moment later, and is nothing to warn of.
var ErrNoClusterYet = errors.New("it has not found its cluster yet")

// NodeID names one facetd process across restarts. The operator chooses it; its
// form is [a-z0-9][a-z0-9-]{0,62}.
type NodeID string

// ParseNodeID checks s against the form of a node id.
func ParseNodeID(s string) (NodeID, error) {
	if len(s) == 0 || len(s) > MaxNodeIDLen || !lowerAlnum(s[0]) {
		return "", badNodeID(s)
	}
	for i := 1; i < len(s); i++ {
		if !lowerAlnum(s[i]) && s[i] != '-' {
			return "", badNodeID(s)
		}
	}
	return NodeID(s), nil
}

func (id NodeID) String() string { return string(id) }

// IsZero reports whether id names no node.
func (id NodeID) IsZero() bool { return id == "" }

func badNodeID(s string) error {
	return fmt.Errorf("parse node id %.80q: use 1 to %d of a-z 0-9 - and begin with a letter or digit", s, MaxNodeIDLen)
}

func lowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

// StoreID names one data directory. It is drawn when the empty directory is
// created and lives in every log segment, so a wiped, replaced or cloned disk
// is seen to be another store (rule R3).
type StoreID [16]byte

// NewStoreID draws a fresh id.
func NewStoreID() StoreID { return StoreID(draw()) }

// ParseStoreID reads the 32 hexadecimal digits that String prints.
func ParseStoreID(s string) (StoreID, error) {
	id, err := parse("store id", s)
	return StoreID(id), err
}

func (id StoreID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names no store.
func (id StoreID) IsZero() bool { return id == StoreID{} }

// BootID names one process life of a node. Epochs are bound to it: a restarted
// owner never goes on in its old epoch (rule R2).
type BootID [16]byte

// NewBootID draws a fresh id.
func NewBootID() BootID { return BootID(draw()) }

// ParseBootID reads the 32 hexadecimal digits that String prints.
func ParseBootID(s string) (BootID, error) {
	id, err := parse("boot id", s)
	return BootID(id), err
}

func (id BootID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names no process life.
func (id BootID) IsZero() bool { return id == BootID{} }

// MachineID names the machine (or container host) a process runs on. Zero means
// that it is not known. A second boot of one store on the same machine needs no
// wait: the lock on its directory proves the first process gone (rule R3).
type MachineID [16]byte

// ParseMachineID reads the 32 hexadecimal digits that String prints.
func ParseMachineID(s string) (MachineID, error) {
	id, err := parse("machine id", s)
	return MachineID(id), err
}

func (id MachineID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the machine is not known.
func (id MachineID) IsZero() bool { return id == MachineID{} }

// ID names a cluster. It is drawn once, when the cluster is bootstrapped; a
// node with state of one cluster refuses to join another.
type ID [16]byte

// NewID draws a fresh id.
func NewID() ID { return ID(draw()) }

// ParseID reads the 32 hexadecimal digits that String prints.
func ParseID(s string) (ID, error) {
	id, err := parse("cluster id", s)
	return ID(id), err
}

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names no cluster.
func (id ID) IsZero() bool { return id == ID{} }

func draw() (id [16]byte) {
	rand.Read(id[:]) // never fails: the runtime stops the process instead
	return id
}

func parse(what, s string) (id [16]byte, err error) {
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("parse %s %.40q: want 32 hexadecimal digits", what, s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return [16]byte{}, fmt.Errorf("parse %s %q: %w", what, s, err)
	}
	return id, nil
}
