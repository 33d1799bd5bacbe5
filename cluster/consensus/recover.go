package consensus

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/cluster"
)

// Recovery by force is for a cluster that lost most of its voters for good. One
// survivor is made the only voter of a new generation of the cluster, with all
// its log holds; the other survivors set their logs aside and join it anew.
//
// Why one: an entry may be in one survivor's log and not in another's, and
// nobody can tell any more which of them was committed. Two recovered side by
// side would go on from different tables.
//
// Why a generation: a node that was thought lost and comes back still has the
// old voters in its log. Without the new number it would meet others like it
// and lead the cluster of the past beside the new one.

// RecoverConfig says what to recover. The node's process must not run.
type RecoverConfig struct {
	ID           cluster.NodeID
	Dir          string  // as in Config
	Memory       *Memory // as in Config
	StateMachine StateMachine
	// Address is where this node will be reached; what its log says if empty.
	Address string
	// DryRun only looks.
	DryRun bool
}

// Recovery is what Recover found, and did or would do.
type Recovery struct {
	DryRun     bool
	Node       cluster.NodeID
	Cluster    cluster.ID
	Generation uint32 // of the cluster when it is done
	Snapshot   uint64 // index of the newest snapshot
	LastIndex  uint64 // newest entry: all up to it will count as committed
	LastTerm   uint64
	Members    []Member // of the newest configuration
}

// Newer reports whether r's log holds more than o's: the survivor to recover is
// the one whose log holds most.
func (r *Recovery) Newer(o *Recovery) bool {
	return r.LastTerm > o.LastTerm || r.LastTerm == o.LastTerm && r.LastIndex > o.LastIndex
}

// String tells it to an operator.
func (r *Recovery) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "node %s of cluster %v\n", r.Node, r.Cluster)
	fmt.Fprintf(&b, "log: term %d, entry %d (newest snapshot: entry %d)\n", r.LastTerm, r.LastIndex, r.Snapshot)
	fmt.Fprintf(&b, "members in it:")
	for _, m := range r.Members {
		role := "follows"
		if m.Votes {
			role = "votes"
		}
		fmt.Fprintf(&b, " %s (%s, %s)", m.ID, role, m.Address)
	}
	will := "was made"
	if r.DryRun {
		will = "would become"
	}
	fmt.Fprintf(&b, "\nthis node %s the only voter of generation %d; every other survivor has to set its log aside and join anew\n", will, r.Generation)
	return b.String()
}

// Recover makes the node of a directory the only voter of its cluster, with
// everything its log holds. What was acknowledged and is in no survivor's log
// is lost; what is in this log and was never acknowledged takes effect. It may
// be repeated if it failed.
func Recover(cfg RecoverConfig) (r Recovery, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("recover node %s: %w", cfg.ID, err)
		}
	}()
	if cfg.Dir != "" {
		if _, err := os.Stat(filepath.Join(cfg.Dir, logFile)); err != nil {
			return r, err // rather than making an empty one
		}
	}
	full := Config{ID: cfg.ID, Dir: cfg.Dir, Memory: cfg.Memory, StateMachine: cfg.StateMachine}
	if err := full.validate(); err != nil {
		return r, err
	}
	logger := &raftLogger{to: slog.New(slog.DiscardHandler), name: "raft"}
	var failed error
	s, err := openStores(&full, logger, &watcher{log: full.Logger, fatal: func(err error) { failed = err }, short: func() {}})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if r, err = s.survey(); err != nil {
		return r, err
	}
	r.DryRun = cfg.DryRun
	if r.Node != cfg.ID {
		return r, fmt.Errorf("%w: it is of node %s", ErrOtherCluster, r.Node)
	}
	if cfg.DryRun {
		return r, nil
	}
	id, err := s.identify(&full)
	if err != nil {
		return r, err
	}
	here := place{address: cfg.Address, log: id.log}
	for _, m := range r.Members {
		if m.ID == cfg.ID && here.address == "" {
			here.address = m.Address
		}
	}
	if here.address == "" {
		here.address = string(cfg.ID)
	}
	// The generation first: the new voters without it could meet the old ones.
	if err := s.belong(id, r.Cluster, r.Generation); err != nil {
		return r, err
	}
	_, t := raft.NewInmemTransport(raft.ServerAddress(cfg.ID)) // encodes addresses, nothing else
	defer t.Close()
	m := &machine{sm: cfg.StateMachine, fatal: func(err error) { failed = err }, due: make(chan struct{}, 1), restored: func() {}}
	m.limit.Store(1 << 62)
	err = raft.RecoverCluster(raftConfig(cfg.ID, full.Heartbeat, logger), m, s.log, s.stable, s.snaps, t, raft.Configuration{
		Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(cfg.ID), Address: raft.ServerAddress(here.String())}},
	})
	return r, errors.Join(err, failed)
}

// survey looks at what is on disk.
func (s *stores) survey() (r Recovery, err error) {
	node, err := s.get(keyNode)
	if err != nil {
		return r, err
	}
	r.Node = cluster.NodeID(node)
	has, err := s.getID(keyCluster, (*[16]byte)(&r.Cluster))
	if err != nil {
		return r, err
	}
	generation, err := s.generation()
	if err != nil {
		return r, err
	}
	r.Generation = generation + 1
	var conf raft.Configuration
	snaps, err := s.snaps.List()
	if err != nil {
		return r, fmt.Errorf("list snapshots: %w", err)
	}
	if len(snaps) > 0 {
		r.Snapshot, r.LastIndex, r.LastTerm, conf = snaps[0].Index, snaps[0].Index, snaps[0].Term, snaps[0].Configuration
	}
	last, err := s.log.LastIndex()
	if err != nil {
		return r, fmt.Errorf("read log: %w", err)
	}
	for i := r.Snapshot + 1; i <= last; i++ {
		var e raft.Log
		if err := s.log.GetLog(i, &e); err != nil {
			return r, fmt.Errorf("read entry %d: %w", i, err)
		}
		r.LastIndex, r.LastTerm = e.Index, e.Term
		if e.Type == raft.LogConfiguration {
			conf = raft.DecodeConfiguration(e.Data)
		}
	}
	for _, srv := range conf.Servers {
		at := parsePlace(srv.Address)
		r.Members = append(r.Members, Member{ID: cluster.NodeID(srv.ID), Address: at.address, Log: at.log, Votes: srv.Suffrage == raft.Voter})
	}
	if !has || r.LastIndex == 0 {
		return r, errors.New("there is nothing to recover: the node never belonged to a cluster")
	}
	return r, nil
}

// SetAside moves a node's log out of the way, so that the node joins its cluster
// anew, and returns where it is now. Nothing is deleted. The node's process must
// not run.
func SetAside(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, logFile)); err != nil {
		return "", fmt.Errorf("set %s aside: %w", dir, err)
	}
	quiet := slog.New(slog.DiscardHandler)
	s, err := openStores(&Config{Dir: dir}, &raftLogger{to: quiet, name: "raft"}, &watcher{log: quiet, fatal: func(error) {}, short: func() {}})
	if err != nil {
		return "", fmt.Errorf("set %s aside: %w", dir, err)
	}
	if err := s.close(); err != nil {
		return "", fmt.Errorf("set %s aside: %w", dir, err)
	}
	for i := 1; i <= maxAside; i++ {
		to := fmt.Sprintf("%s.aside-%d", filepath.Clean(dir), i)
		if _, err := os.Lstat(to); errors.Is(err, os.ErrNotExist) {
			if err := os.Rename(dir, to); err != nil {
				return "", fmt.Errorf("set %s aside: %w", dir, err)
			}
			return to, nil
		}
	}
	return "", fmt.Errorf("set %s aside: there are %d such directories already", dir, maxAside)
}
