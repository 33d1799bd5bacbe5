package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/owner"
)

// Config configures a Node. A zero field means its default.
type Config struct {
	// ID is the node's name for life. Default: the one in the data directory, or
	// "node-1" in a fresh one.
	ID cluster.NodeID
	// Dir is the data directory. It is made if it is not there. Needed.
	Dir string
	// Listen is the address of the API port. Default "127.0.0.1:7400"; port 0
	// takes a free one.
	Listen string
	// Advertise is the address clients are sent to, host:port. Default: the
	// address the API port is bound to.
	Advertise string
	// PeerListen, GossipListen, Join and BootstrapExpect are for clusters of more
	// than one node, which this version does not form yet: Join must be empty and
	// BootstrapExpect 0 or 1.
	PeerListen, GossipListen string
	Join                     []string
	BootstrapExpect          int
	// Replicas is the replication factor of new facets. Only 1 until there are
	// more nodes.
	Replicas int
	// Zone is the failure domain the node tells the others.
	Zone string
	// Insecure lets everybody in. Without it Open refuses, because this version
	// knows no tokens.
	Insecure bool

	// IdleAfter is how long a facet stays open after its last request. Default
	// 30 s. Shorter saves memory, longer saves activations (under a millisecond
	// each).
	IdleAfter time.Duration
	// TxIdle and TxTotal limit interactive transactions. Defaults 5 s and 30 s.
	TxIdle, TxTotal time.Duration
	// MemoryBudget is the memory of open facets, in bytes, beyond which the least
	// recently used hibernate. Default 1 GiB.
	MemoryBudget int64
	// LogBudget is the size of the commit log, in bytes, beyond which facets are
	// checkpointed to shorten it. Default 512 MiB.
	LogBudget int64
	// StatementTimeout bounds one request's running time. Default 10 s.
	StatementTimeout time.Duration
	// FacetBytes bounds the size of a database. Default 1 GiB.
	FacetBytes int64

	// Version is told to clients and peers.
	Version string
	// Logger gets what operators should know. Default slog.Default().
	Logger *slog.Logger
}

const defaultFacetBytes = 1 << 30

func (c *Config) fill() {
	str := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	str(&c.Listen, "127.0.0.1:7400")
	str(&c.Version, "dev")
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.LogBudget == 0 {
		c.LogBudget = 512 << 20
	}
	if c.FacetBytes == 0 {
		c.FacetBytes = defaultFacetBytes
	}
	if c.MemoryBudget == 0 {
		c.MemoryBudget = owner.DefaultMemoryBudget
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		bad("no data directory is given")
	}
	if !c.ID.IsZero() {
		if _, err := cluster.ParseNodeID(string(c.ID)); err != nil {
			errs = append(errs, err)
		}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		bad("listen address %q: %v; write host:port", c.Listen, err)
	}
	if len(c.Join) > 0 || c.BootstrapExpect > 1 || c.Replicas > 1 {
		bad("this version runs one node: leave join empty, bootstrap-expect and replicas at 1")
	}
	if !c.Insecure {
		bad("this version knows no tokens yet: set insecure to let everybody who reaches the port use every facet, and keep the port private")
	}
	if c.FacetBytes < 64*facet.PageSize || c.FacetBytes/facet.PageSize > facet.MaxPages {
		bad("facet size limit %d is not between %d and %d bytes", c.FacetBytes, 64*facet.PageSize, int64(facet.MaxPages)*facet.PageSize)
	}
	if c.LogBudget < 16<<20 {
		bad("commit log budget %d is less than 16 MiB", c.LogBudget)
	}
	if c.MemoryBudget < 16<<20 {
		bad("memory budget %d is less than 16 MiB", c.MemoryBudget)
	}
	for _, d := range []time.Duration{c.IdleAfter, c.TxIdle, c.TxTotal, c.StatementTimeout} {
		if d < 0 {
			bad("a duration is negative: %v", d)
		}
	}
	if runtime.GOOS == "windows" {
		bad("facetd needs a Unix system")
	}
	return errors.Join(errs...)
}
