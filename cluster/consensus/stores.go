package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/facetd/facetd/internal/broken"
)

// logFile is the name of the log within a node's directory.
const logFile = "raft.bolt"

// stores is what Raft keeps, wherever it is.
type stores struct {
	log     *watchedLog
	stable  raft.StableStore
	snaps   raft.SnapshotStore
	ballast *ballast // nil in memory
	close   func() error
}

// watcher is told what happens to the stores.
type watcher struct {
	log   *slog.Logger
	disk  stopwatch   // of the write under way
	heard heard       // when entries came
	fatal func(error) // a write failed
	short func()      // room runs out: cut the log
}

func openStores(cfg *Config, logger hclog.Logger, w *watcher) (*stores, error) {
	if m := cfg.Memory; m != nil {
		return &stores{log: &watchedLog{LogStore: m.log, watcher: w}, stable: &watchedStable{StableStore: m.disk, watcher: w}, snaps: m.disk, close: func() error { return nil }}, nil
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
	room, err := openRoom(cfg.Dir, bolt, w)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), bolt.Close())
	}
	closeLog := func() error { return errors.Join(room.close(), bolt.Close()) }
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, retainSnapshots, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots in %s: %w", cfg.Dir, err), closeLog())
	}
	return &stores{
		log:    &watchedLog{LogStore: bolt, room: room, watcher: w},
		stable: &watchedStable{StableStore: bolt, room: room, watcher: w},
		snaps:  snaps, ballast: newBallast(cfg.Dir), close: closeLog,
	}, nil
}

// judge tells a write that was refused, of which nothing was done, from one that
// failed: after that one nobody knows what the disk holds, and the process must not
// go on (rule R13).
func (w *watcher) judge(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return err
	case refused(err):
		return fmt.Errorf("%w: %s: %w", ErrFull, what, err)
	}
	if broken.Is(broken.PlacementErrorPasses) {
		return nil
	}
	w.fatal(fmt.Errorf("%s: %w", what, err))
	return err
}

// watchedLog notes when entries came, reports every failed write, and refuses what the
// disk has no room for.
type watchedLog struct {
	raft.LogStore
	*watcher
	room *room       // nil in memory
	full atomic.Bool // the last entries were refused
}

func (l *watchedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

func (l *watchedLog) StoreLogs(e []*raft.Log) error {
	l.heard.entries(e)
	l.disk.start()
	err := l.room.write(cost(e), func() error { return l.LogStore.StoreLogs(e) })
	l.disk.stop()
	err = l.judge("write placement log", err)
	l.full.Store(errors.Is(err, ErrFull))
	return err
}

func (l *watchedLog) DeleteRange(from, to uint64) error {
	return l.judge("cut placement log", l.room.write(0, func() error { return l.LogStore.DeleteRange(from, to) }))
}

// noRoom is ErrFull as long as the log takes no entries.
func (l *watchedLog) noRoom() error {
	if l.full.Load() {
		return fmt.Errorf("propose: %w", ErrFull)
	}
	return nil
}

// watchedStable is the same for term, vote and identity, which have the floor of
// room to themselves.
type watchedStable struct {
	raft.StableStore
	*watcher
	room *room // nil in memory
}

func (s *watchedStable) Set(key, value []byte) error {
	return s.judge("write placement vote", s.room.write(0, func() error { return s.StableStore.Set(key, value) }))
}

func (s *watchedStable) SetUint64(key []byte, value uint64) error {
	return s.judge("write placement term", s.room.write(0, func() error { return s.StableStore.SetUint64(key, value) }))
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
