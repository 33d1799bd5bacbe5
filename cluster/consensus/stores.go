package consensus

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/facetd/facetd/cluster"
)

// Memory keeps the log, the votes and the newest snapshot of one node in
// memory. It outlives the Node, so a test or a simulator can restart one.
type Memory struct {
	log   raft.LogStore // store, or what a test puts before it
	store *raft.InmemStore
	snaps *raft.InmemSnapshotStore
}

// NewMemory is an empty Memory.
func NewMemory() *Memory {
	store := raft.NewInmemStore()
	return &Memory{log: store, store: store, snaps: raft.NewInmemSnapshotStore()}
}

// stores is what Raft keeps, wherever it is.
type stores struct {
	log    raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	close  func() error
}

func openStores(cfg *Config, logger hclog.Logger, fatal func(error)) (*stores, error) {
	if m := cfg.Memory; m != nil {
		return &stores{log: &watchedLog{LogStore: m.log, fatal: fatal}, stable: m.store, snaps: m.snaps, close: func() error { return nil }}, nil
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	path := filepath.Join(cfg.Dir, "raft.bolt")
	// The free list is rebuilt at start rather than written with every entry:
	// the file is small, and each entry saves writing it.
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
		Timeout: openTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
	}})
	if err != nil {
		if errors.Is(err, bolterrors.ErrTimeout) {
			err = errors.New("another process uses it")
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, retainSnapshots, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots in %s: %w", cfg.Dir, err), bolt.Close())
	}
	return &stores{log: &watchedLog{LogStore: bolt, fatal: fatal}, stable: bolt, snaps: snaps, close: bolt.Close}, nil
}

// watchedLog reports every failed write: after one, nobody knows what the disk
// holds, and the process must not go on (rule R13).
type watchedLog struct {
	raft.LogStore
	fatal func(error)
}

func (l *watchedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *watchedLog) StoreLogs(e []*raft.Log) error {
	err := l.LogStore.StoreLogs(e)
	if err != nil {
		l.fatal(fmt.Errorf("write placement log: %w", err))
	}
	return err
}

func (l *watchedLog) DeleteRange(from, to uint64) error {
	err := l.LogStore.DeleteRange(from, to)
	if err != nil {
		l.fatal(fmt.Errorf("cut placement log: %w", err))
	}
	return err
}

var (
	keyCluster = []byte("facetd cluster id")
	keyNode    = []byte("facetd node id")
)

// identify makes sure that the stores belong to this node and cluster, and
// marks them so when they are new.
func (s *stores) identify(cfg *Config) (cluster.ID, error) {
	node, err := s.get(keyNode)
	if err != nil {
		return cluster.ID{}, err
	}
	if node != nil && string(node) != string(cfg.ID) {
		return cluster.ID{}, fmt.Errorf("%w: it is of node %.64q, this is %s", ErrOtherCluster, node, cfg.ID)
	}
	stored, err := s.get(keyCluster)
	if err != nil {
		return cluster.ID{}, err
	}
	var id cluster.ID
	switch {
	case stored != nil && len(stored) != len(id):
		return id, fmt.Errorf("read cluster id: %d bytes, want %d", len(stored), len(id))
	case stored != nil:
		copy(id[:], stored)
		if !cfg.Cluster.IsZero() && cfg.Cluster != id {
			return id, fmt.Errorf("%w: it is of cluster %v, this is %v", ErrOtherCluster, id, cfg.Cluster)
		}
	default:
		if id = cfg.Cluster; id.IsZero() && cfg.Bootstrap {
			id = cluster.NewID()
		}
		if !id.IsZero() {
			if err := s.stable.Set(keyCluster, id[:]); err != nil {
				return id, fmt.Errorf("write cluster id: %w", err)
			}
		}
	}
	if node == nil {
		if err := s.stable.Set(keyNode, []byte(cfg.ID)); err != nil {
			return id, fmt.Errorf("write node id: %w", err)
		}
	}
	return id, nil
}

// get reads a key, nil when it is not there. Both stores say "not found" in
// words only.
func (s *stores) get(key []byte) ([]byte, error) {
	b, err := s.stable.Get(key)
	if err != nil && err.Error() == "not found" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", key, err)
	}
	return b, nil
}

// newest is the size and the index of the newest snapshot, zero when there is
// none.
func (s *stores) newest() (size int64, index uint64, err error) {
	list, err := s.snaps.List()
	if err != nil || len(list) == 0 {
		return 0, 0, err
	}
	return list[0].Size, list[0].Index, nil
}
