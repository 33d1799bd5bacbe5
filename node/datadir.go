package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/disk"
)

// dataDir is the data directory of a node, locked for this process:
//
//	LOCK        held with flock while the process lives
//	node.json   identity: made once, never changed
//	data/       commit log, database files, trash (package facet/replica)
//	raft/       placement log and snapshots (package cluster/consensus)
//	REJOIN      there while the node must join a cluster and never begin one
type dataDir struct {
	path string
	lock *os.File
	save func(Identity) error // where the identity is kept, when not in a file
	Identity
}

// Identity is node.json: what a data directory says of itself. A directory belongs to one node and one store for life
// (rule R3).
type Identity struct {
	Format  int            `json:"format"`
	Node    cluster.NodeID `json:"node_id"`
	Store   string         `json:"store_id"`
	Cluster string         `json:"cluster_id"` // empty until the node has met its cluster
	// Registered says that the placement table has known this store.
	Registered bool `json:"registered,omitempty"`
	// Boots are the process lives that began here and may have been registered, the latest
	// last. A copy of the directory that is put back lacks those since. None in one that
	// was last used before they were noted.
	Boots   []string        `json:"boots,omitempty"`
	store   cluster.StoreID `json:"-"`
	cluster cluster.ID      `json:"-"`
}

const dataFormat = 1

// maxBoots is how many process lives a directory remembers. The one the table knows is
// the last that came as far as to be registered; all later ones would have to end between
// the note here and the entry of the table.
const maxBoots = 256

const defaultNodeID = "node-1"

// openDataDir locks the directory and reads its identity, or gives a fresh one an
// identity.
func openDataDir(path string, want cluster.NodeID) (d *dataDir, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	d = &dataDir{path: path, lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil && !broken.Is(broken.NoLock) {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by another facetd process; stop it, or choose another directory", path)
		}
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := d.identify(want); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *dataDir) identify(want cluster.NodeID) error {
	file := filepath.Join(d.path, "node.json")
	raw, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.found(want)
	case err != nil:
		return fmt.Errorf("read identity: %w", err)
	}
	if err := json.Unmarshal(raw, &d.Identity); err != nil {
		return fmt.Errorf("read identity %s: %w", file, err)
	}
	if d.Format != dataFormat {
		return fmt.Errorf("data directory %s has format %d, this facetd reads format %d; use the version that wrote it", d.path, d.Format, dataFormat)
	}
	if _, err := cluster.ParseNodeID(string(d.Node)); err != nil {
		return fmt.Errorf("read identity %s: %w", file, err)
	}
	if want != "" && want != d.Node {
		return fmt.Errorf("data directory %s belongs to node %s, not to %s", d.path, d.Node, want)
	}
	if d.store, err = cluster.ParseStoreID(d.Store); err != nil {
		return fmt.Errorf("read identity %s: %w", file, err)
	}
	if d.Cluster == "" {
		return nil // it has not met its cluster yet
	}
	if d.cluster, err = cluster.ParseID(d.Cluster); err != nil {
		return fmt.Errorf("read identity %s: %w", file, err)
	}
	return nil
}

// join notes which cluster the directory belongs to, once and for ever.
func (d *dataDir) join(id cluster.ID) error {
	if d.cluster == id {
		return nil
	}
	if !d.cluster.IsZero() {
		return fmt.Errorf("data directory %s belongs to cluster %v, not to %v", d.path, d.cluster, id)
	}
	d.cluster, d.Cluster = id, id.String()
	return d.write()
}

// knows reports whether a process life the table has registered for this store began in
// this directory. One that did not began in a later state of it: the directory is an
// older copy, which lacks what was promised and acknowledged since (rule R3).
func (d *dataDir) knows(boot cluster.BootID) bool {
	return len(d.Boots) == 0 || slices.Contains(d.Boots, boot.String()) || broken.Is(broken.OlderCopy)
}

// begins notes that a process life is going to be registered.
func (d *dataDir) begins(boot cluster.BootID) error {
	d.Boots = append(slices.Clone(d.Boots), boot.String())
	d.Boots = d.Boots[max(0, len(d.Boots)-maxBoots):]
	return d.write()
}

func (d *dataDir) write() error {
	if d.save != nil {
		return d.save(d.Identity)
	}
	raw, err := json.MarshalIndent(&d.Identity, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(disk.OS(d.path), "node.json", append(raw, '\n'))
}

// found gives an empty directory its identity.
func (d *dataDir) found(want cluster.NodeID) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() != "LOCK" && e.Name() != "node.json.tmp" && e.Name() != "lost+found" {
			return fmt.Errorf("data directory %s has no node.json but is not empty (%s); choose an empty directory, or put node.json back", d.path, e.Name())
		}
	}
	if want == "" {
		want = defaultNodeID
	}
	d.Identity = Identity{Format: dataFormat, Node: want, store: cluster.NewStoreID()}
	d.Store = d.store.String()
	return d.write()
}

// Close lets another process have the directory.
func (d *dataDir) Close() error {
	if d.lock == nil {
		return nil
	}
	return d.lock.Close()
}

// machineID tells two boots on one machine from boots of a copied disk elsewhere
// (rule R3). Where the system has none, the directory's lock still keeps a second
// process of this machine out, and the zero id makes boots wait for the lease.
func machineID() cluster.MachineID {
	raw, err := os.ReadFile("/etc/machine-id")
	if err != nil {
		return cluster.MachineID{}
	}
	id, err := cluster.ParseMachineID(strings.TrimSpace(string(raw)))
	if err != nil {
		return cluster.MachineID{}
	}
	return id
}
