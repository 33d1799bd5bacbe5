package consensus

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// LogID names one Raft log. It is drawn with the empty log and kept in it, so
// that a node whose disk was wiped is not taken for the voter it was: it has
// forgotten its votes and what it acknowledged (rule R3, for Raft itself).
type LogID [16]byte

func newLogID() (id LogID) {
	rand.Read(id[:]) // never fails: the runtime stops the process instead
	return id
}

func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names no log.
func (id LogID) IsZero() bool { return id == LogID{} }

// place is where a member is and which log it must have there: an address of
// Raft's configuration. In text it is "host:port#log id"; a member from before
// it had peers has no log id, and none is asked of it.
type place struct {
	address string
	log     LogID
}

func (p place) String() string {
	if p.log.IsZero() {
		return p.address
	}
	return p.address + "#" + p.log.String()
}

func parsePlace(s raft.ServerAddress) place {
	address, text, ok := strings.Cut(string(s), "#")
	p := place{address: address}
	if ok && len(text) == 2*len(p.log) {
		if _, err := hex.Decode(p.log[:], []byte(text)); err != nil {
			p.log = LogID{}
		}
	}
	return p
}

// identity is what a directory says of itself. All of it is on disk; once the
// cluster is known, nothing of it changes.
type identity struct {
	mu         sync.Mutex
	node       cluster.NodeID // of the directory
	log        LogID
	cluster    cluster.ID // guarded by mu; zero until the node belongs to one
	generation uint32     // guarded by mu; how often the cluster was recovered by force
}

func (i *identity) get() (cluster.ID, uint32) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cluster, i.generation
}

var (
	keyCluster    = []byte("facetd cluster id")
	keyNode       = []byte("facetd node id")
	keyLog        = []byte("facetd log id")
	keyGeneration = []byte("facetd recovery generation")
	keyPledge     = []byte("facetd founding pledge")
)

// identify makes sure that the stores belong to this node and cluster, and
// marks them so when they are new. Only a node that begins a cluster alone
// learns its cluster here; the others by founding one together, or by joining.
func (s *stores) identify(cfg *Config) (*identity, error) {
	node, err := s.get(keyNode)
	if err != nil {
		return nil, err
	}
	if node != nil && string(node) != string(cfg.ID) {
		return nil, fmt.Errorf("%w: it is of node %.64q, this is %s", ErrOtherCluster, node, cfg.ID)
	}
	id := &identity{node: cfg.ID}
	if _, err := s.getID(keyCluster, (*[16]byte)(&id.cluster)); err != nil {
		return nil, err
	}
	if !id.cluster.IsZero() && !cfg.Cluster.IsZero() && cfg.Cluster != id.cluster {
		return nil, fmt.Errorf("%w: it is of cluster %v, this is %v", ErrOtherCluster, id.cluster, cfg.Cluster)
	}
	if id.cluster.IsZero() && cfg.alone() {
		if id.cluster = cfg.Cluster; id.cluster.IsZero() && cfg.Bootstrap {
			id.cluster = cluster.NewID()
		}
		if !id.cluster.IsZero() {
			if err := s.set(keyCluster, id.cluster[:]); err != nil {
				return nil, err
			}
		}
	}
	if has, err := s.getID(keyLog, (*[16]byte)(&id.log)); err != nil {
		return nil, err
	} else if !has {
		id.log = newLogID()
		if err := s.set(keyLog, id.log[:]); err != nil {
			return nil, err
		}
	}
	if id.generation, err = s.generation(); err != nil {
		return nil, err
	}
	if node == nil {
		return id, s.set(keyNode, []byte(cfg.ID))
	}
	return id, nil
}

// generation reads how often the cluster was recovered by force.
func (s *stores) generation() (uint32, error) {
	b, err := s.get(keyGeneration)
	switch {
	case err != nil || b == nil:
		return 0, err
	case len(b) != 4:
		return 0, fmt.Errorf("read %s: %d bytes, want 4", keyGeneration, len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}

// belong makes the node a member of a cluster for good.
func (s *stores) belong(i *identity, c cluster.ID, generation uint32) error {
	// The generation first: a cluster id without it would be a member of the
	// past.
	if generation != 0 {
		if err := s.set(keyGeneration, binary.BigEndian.AppendUint32(nil, generation)); err != nil {
			return err
		}
	}
	if err := s.set(keyCluster, c[:]); err != nil {
		return err
	}
	i.mu.Lock()
	i.cluster, i.generation = c, generation
	i.mu.Unlock()
	return nil
}

// getID reads a key that holds an id.
func (s *stores) getID(key []byte, into *[16]byte) (bool, error) {
	b, err := s.get(key)
	switch {
	case err != nil || b == nil:
		return false, err
	case len(b) != len(into):
		return false, fmt.Errorf("read %s: %d bytes, want %d", key, len(b), len(into))
	}
	copy(into[:], b)
	return true, nil
}

// get reads a key, nil when it is not there. Both stores say "not found" in
// words only.
func (s *stores) get(key []byte) ([]byte, error) {
	b, err := s.stable.Get(key)
	if err != nil && err.Error() == errNoKey.Error() {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

func (s *stores) set(key, value []byte) error {
	if err := s.stable.Set(key, value); err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return nil
}
