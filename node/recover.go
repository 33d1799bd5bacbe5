package node

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/internal/disk"
	"github.com/facetd/facetd/placement"
)

// What an operator does when most voters are lost for good. One survivor, the
// one whose placement log holds most, is recovered: it becomes the only voter of
// a new generation of its cluster. Every other survivor sets its placement log
// aside and joins the first anew, with all the facet data it has. Package
// consensus says why there is one and why there is a generation.
//
// A node that leads after a recovery raises the generation of the placement table
// to that of the log before it decides anything else (generationDue), so that the
// epochs it issues lie above all that were issued before (rule R2).

// RecoverReport is what Recover found, and did or would do.
type RecoverReport struct {
	Log consensus.Recovery
	// Facets are in the recovered table, Held of them have a copy on this node.
	// Both are -1 in a dry run, which does not read the table.
	Facets, Held int
}

// Recover makes the node of a data directory the only voter of its cluster. With
// dryRun it only looks. The node must not run, and is started as usual
// afterwards. It may be repeated if it failed.
func Recover(dir string, dryRun bool) (r RecoverReport, err error) {
	d, err := openExisting(dir)
	if err != nil {
		return r, fmt.Errorf("recover: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if d.rejoining() {
		// Its log was set aside, for another node was recovered: a second one would
		// be a second cluster.
		return r, fmt.Errorf("recover node %s: it is to join a cluster that was recovered elsewhere (%s says so); start that node and this one", d.Node, filepath.Join(d.path, rejoinFile))
	}
	table := placement.NewTable()
	r.Facets, r.Held = -1, -1
	r.Log, err = consensus.Recover(consensus.RecoverConfig{
		ID: d.Node, Dir: filepath.Join(d.path, raftDir), StateMachine: table, DryRun: dryRun,
	})
	if err != nil {
		return r, err
	}
	if dryRun {
		return r, nil
	}
	r.Facets, r.Held = table.Counts().Facets, 0
	for range table.HeldBy(d.Node) {
		r.Held++
	}
	return r, nil
}

// generationDue gives the command with which a leader lifts the table to the
// generation of its log, if it is below (rule R2). Whoever leads asks once the
// table has applied all that was decided before it leads, and decides nothing
// until the command is applied.
func generationDue(table *placement.Table, log uint32) (c placement.RaiseGeneration, due bool, err error) {
	_, have := table.Cluster()
	if log > math.MaxUint16 {
		return c, false, fmt.Errorf("raise the generation: the log was recovered %d times, and epochs have room for %d", log, math.MaxUint16)
	}
	return placement.RaiseGeneration{Generation: uint16(log)}, log > uint32(have), nil
}

// String tells it to an operator.
func (r *RecoverReport) String() string {
	s := r.Log.String()
	if r.Facets >= 0 {
		s += fmt.Sprintf("the placement table holds %d facets; this node keeps a copy of %d\n", r.Facets, r.Held)
	}
	return s
}

// Rejoin sets the placement log of a node aside, so that the node joins the
// cluster that was recovered elsewhere anew, and returns where the log is now.
// Nothing is deleted, and the copies of facets stay as they are. The node must
// not run.
func Rejoin(dir string) (aside string, err error) {
	d, err := openExisting(dir)
	if err != nil {
		return "", fmt.Errorf("rejoin: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	// The mark first: a node without a log and without the mark might begin a
	// cluster of its own.
	text := "This node's placement log was set aside. It joins a cluster and never begins one; this file goes when it has.\n"
	if err := replaceFile(disk.OS(d.path), rejoinFile, []byte(text)); err != nil {
		return "", fmt.Errorf("rejoin: %w", err)
	}
	aside, err = consensus.SetAside(filepath.Join(d.path, raftDir))
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("rejoin: node %s has no placement log: it was set aside already, or there never was one", d.Node)
	}
	return aside, err
}

// Names in a data directory; see dataDir.
const (
	identityFile = "node.json"
	raftDir      = "raft"
	rejoinFile   = "REJOIN" // made by Rejoin, gone when the node is a member again
)

// openExisting locks the data directory of a node that has run before.
func openExisting(dir string) (*dataDir, error) {
	if _, err := os.Stat(filepath.Join(dir, identityFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is not the data directory of a node: there is no %s in it%s", dir, identityFile, nodesBelow(dir))
		}
		return nil, err
	}
	return openDataDir(dir, "")
}

// nodesBelow is a hint for whoever names the directory above.
func nodesBelow(dir string) string {
	found, _ := filepath.Glob(filepath.Join(dir, "*", identityFile)) // the pattern is well-formed, or there is no hint
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	if len(found) == 0 {
		return ""
	}
	return "; there is one in " + strings.Join(found, ", ")
}

// rejoining reports whether this node must join a cluster and may not begin one.
func (d *dataDir) rejoining() bool {
	_, err := os.Lstat(filepath.Join(d.path, rejoinFile))
	return err == nil
}

// rejoined takes the mark off: the node belongs to its cluster again.
func (d *dataDir) rejoined() error {
	if err := os.Remove(filepath.Join(d.path, rejoinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
