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
)

// logFile is the name of the log within a node's directory.
const logFile = "raft.bolt"

// stores is what Raft keeps, wherever it is.
type stores struct {
	log    raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	close  func() error
}

func openStores(cfg *Config, logger hclog.Logger, disk *stopwatch, heard *heard, fatal func(error)) (*stores, error) {
	if m := cfg.Memory; m != nil {
		return &stores{log: &watchedLog{LogStore: m.log, disk: disk, heard: heard, fatal: fatal}, stable: m.disk, snaps: m.disk, close: func() error { return nil }}, nil
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	path := filepath.Join(cfg.Dir, logFile)
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
	return &stores{log: &watchedLog{LogStore: bolt, disk: disk, heard: heard, fatal: fatal}, stable: bolt, snaps: snaps, close: bolt.Close}, nil
}

// watchedLog notes when entries came, and reports every failed write: after one, nobody knows what the disk
// holds, and the process must not go on (rule R13).
type watchedLog struct {
	raft.LogStore
	disk  *stopwatch // of the write under way
	heard *heard
	fatal func(error)
}

func (l *watchedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *watchedLog) StoreLogs(e []*raft.Log) error {
	l.heard.entries(e)
	l.disk.start()
	err := l.LogStore.StoreLogs(e)
	l.disk.stop()
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

// newest is the size and the index of the newest snapshot, zero when there is
// none.
func (s *stores) newest() (size int64, index uint64, err error) {
	list, err := s.snaps.List()
	if err != nil || len(list) == 0 {
		return 0, 0, err
	}
	return list[0].Size, list[0].Index, nil
}
