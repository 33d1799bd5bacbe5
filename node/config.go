package node

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime"
	"strings"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/audit"
	"github.com/facetd/facetd/node/credentials"
	"github.com/facetd/facetd/node/owner"
	"github.com/facetd/facetd/node/scrub"
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
	// Advertise is the address clients are sent to, host:port or a URL without a
	// path, where something before the node speaks TLS for it. Default: the address the
	// API port is bound to.
	Advertise string
	// TLS is for the API port, and for the requests this node sends to those of others:
	// CA is for those then. Without a certificate the port speaks HTTP, without a CA the
	// roots of the system are taken.
	TLS TLSFiles
	// TLSClientCA is a PEM file of CAs. Who comes to the API port must show a certificate
	// of theirs, the other nodes too. Default: none is asked for.
	TLSClientCA string
	// PeerListen is the address other nodes connect to, GossipListen the one gossip
	// is heard on (UDP and TCP). Both or neither; without them the node is alone and
	// can never be joined. Port 0 takes a free one.
	PeerListen, GossipListen string
	// PeerAdvertise and GossipAdvertise are what the others are told, host:port.
	// Default: the addresses bound.
	PeerAdvertise, GossipAdvertise string
	// Join names gossip addresses of some members of the cluster, host:port. A
	// fresh node with any waits until the cluster takes it in, or until
	// BootstrapExpect nodes that expect as many have met, and never begins a
	// cluster alone.
	Join []string
	// BootstrapExpect is how many nodes begin a new cluster together, all as voters
	// of the placement log. 0 and 1 mean alone, unless Join names others.
	BootstrapExpect int
	// ClusterName keeps clusters apart that gossip on one network: nodes of another
	// name are not heard. Default "facetd".
	ClusterName string
	// PeerTLS has nodes prove who they are on the peer port, and encrypts it: the
	// certificate names the node, and is good by CA for client and server. All nodes have
	// it or none.
	PeerTLS TLSFiles
	// GossipKeys is a file with the keys of gossip in base64, one a line, 16, 24 or 32
	// bytes each; the first encrypts, all decrypt. Without it gossip is in the clear,
	// and whoever reaches the port can forge members.
	GossipKeys string
	// AllowPlaintext lets ports that other machines reach go without TLS or keys of
	// gossip: for networks that are private, or encrypted by something else.
	AllowPlaintext bool
	// Replicas is the replication factor of new facets: 1, 3 or 5. Default 3. While
	// there are fewer nodes, the largest odd number there is; facets are given more
	// replicas when nodes come.
	Replicas int
	// RepairAfter is how long a node must be gone before its replicas are made
	// elsewhere. Default 10 min.
	RepairAfter time.Duration
	// Zone is the failure domain the node tells the others.
	Zone string
	// AuthKeys is a file with the public keys of tokens (internal/token.Keys). It is
	// read again when it changes and by ReloadKeys. A node has it or is Insecure: then
	// everybody who reaches the API port may do everything.
	AuthKeys string
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
	// ScrubEvery is within what time everything on the node's disk is read again and
	// checked (rule R52), ScrubRate the most bytes a second that takes. Defaults 7 days
	// and 16 MiB. A node reads less often than it promises when its data are more than
	// the two together.
	ScrubEvery time.Duration
	ScrubRate  int64
	// CompareEvery is within what time the copies of each facet are compared over the
	// nodes that keep them (rule R52). Default 1 hour.
	CompareEvery time.Duration
	// StatementTimeout bounds one request's running time. Default 10 s.
	StatementTimeout time.Duration
	// FacetBytes bounds the size of a database. Default 1 GiB.
	FacetBytes int64

	// Platform is what the node runs on. Default: this machine.
	Platform *Platform

	// Version is told to clients and peers.
	Version string
	// SlowRequest is how long a request takes that is logged, with its SQL and without its
	// arguments. Zero logs none: SQL may hold a tenant's data.
	SlowRequest time.Duration

	// OTLPEndpoint is the URL of a collector of traces (OTLP over HTTP). Requests that
	// their clients trace are told there. Empty: none are.
	OTLPEndpoint string

	// Logger gets what operators should know. Default slog.Default().
	Logger *slog.Logger
	// Audit gets a line for every administrative request and every change of the keys
	// of tokens, each with audit=true. Default: Logger.
	Audit *slog.Logger
}

// TLSFiles name the PEM files of a certificate, its key and a CA. They are read again
// when they change and by Reload; connections that are there go on.
type TLSFiles = credentials.Files

const defaultFacetBytes = 1 << 30

func (c *Config) fill() {
	str := func(v *string, d string) {
		if *v == "" {
			*v = d
		}
	}
	str(&c.Listen, "127.0.0.1:7400")
	str(&c.Version, "dev")
	str(&c.ClusterName, "facetd")
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.RepairAfter == 0 {
		c.RepairAfter = 10 * time.Minute
	}
	if c.LogBudget == 0 {
		c.LogBudget = 512 << 20
	}
	if c.ScrubEvery == 0 {
		c.ScrubEvery = scrub.DefaultEvery
	}
	if c.CompareEvery == 0 {
		c.CompareEvery = audit.DefaultEvery
	}
	if c.ScrubRate == 0 {
		c.ScrubRate = scrub.DefaultRate
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
	if c.Audit == nil {
		c.Audit = c.Logger
	}
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" && c.Platform == nil {
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
	for _, a := range []struct{ what, addr string }{{"peer", c.PeerListen}, {"gossip", c.GossipListen}, {"peer advertise", c.PeerAdvertise}, {"gossip advertise", c.GossipAdvertise}} {
		if a.addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a.addr); err != nil {
			bad("%s address %q: %v; write host:port", a.what, a.addr, err)
		}
	}
	if (c.PeerListen == "") != (c.GossipListen == "") {
		bad("give a peer address and a gossip address, or neither")
	}
	if c.PeerListen == "" && c.Platform == nil && (len(c.Join) > 0 || c.BootstrapExpect > 1) {
		bad("a node that joins others needs a peer address and a gossip address")
	}
	if c.BootstrapExpect < 0 || c.BootstrapExpect > consensus.MaxExpect {
		bad("bootstrap-expect %d is not between 0 and %d", c.BootstrapExpect, consensus.MaxExpect)
	}
	if c.BootstrapExpect > 1 && len(c.Join) == 0 {
		bad("bootstrap-expect %d wants join addresses: name the gossip address of at least one other node", c.BootstrapExpect)
	}
	if c.Replicas != 1 && c.Replicas != 3 && c.Replicas != 5 {
		bad("replication factor %d is not 1, 3 or 5", c.Replicas)
	}
	switch {
	case c.AuthKeys == "" && !c.Insecure:
		bad("there are no keys of tokens: name a file with them, or set insecure to let everybody who reaches the port use every facet")
	case c.AuthKeys != "" && c.Insecure:
		bad("keys of tokens are given and insecure is set; either tokens are wanted or everybody is let in")
	}
	if c.Platform == nil {
		if err := c.Plaintext(); err != nil {
			errs = append(errs, err)
		}
	}
	if c.Advertise != "" && strings.Contains(c.Advertise, "://") {
		if u, err := url.Parse(c.Advertise); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
			bad("advertised address %q: write host:port or https://host:port", c.Advertise)
		}
	}
	if c.FacetBytes < 64*facet.PageSize || c.FacetBytes/facet.PageSize > facet.MaxPages {
		bad("facet size limit %d is not between %d and %d bytes", c.FacetBytes, 64*facet.PageSize, int64(facet.MaxPages)*facet.PageSize)
	}
	if c.LogBudget < 16<<20 && c.Platform == nil {
		bad("commit log budget %d is less than 16 MiB", c.LogBudget)
	}
	if c.MemoryBudget < 16<<20 {
		bad("memory budget %d is less than 16 MiB", c.MemoryBudget)
	}
	if c.ScrubRate < scrub.MinRate {
		bad("scrub rate %d is less than %d bytes a second", c.ScrubRate, scrub.MinRate)
	}
	for _, d := range []time.Duration{c.ScrubEvery, c.CompareEvery, c.IdleAfter, c.TxIdle, c.TxTotal, c.StatementTimeout, c.RepairAfter} {
		if d < 0 {
			bad("a duration is negative: %v", d)
		}
	}
	if runtime.GOOS == "windows" {
		bad("facetd needs a Unix system")
	}
	return errors.Join(errs...)
}

// Plaintext is an error where a port that other machines reach is neither encrypted nor
// allowed not to be.
func (c *Config) Plaintext() error {
	if c.AllowPlaintext {
		return nil
	}
	var open []string
	for _, p := range []struct {
		what, addr, cure string
		safe             bool
	}{
		{"API", c.Listen, "--tls-cert", c.TLS.Cert != ""},
		{"peer", c.PeerListen, "--peer-cert and --peer-ca", !c.PeerTLS.IsZero()},
		{"gossip", c.GossipListen, "--gossip-keys", c.GossipKeys != ""},
	} {
		if !p.safe && p.addr != "" && !IsLoopback(p.addr) {
			open = append(open, fmt.Sprintf("the %s port at %s (give it %s)", p.what, p.addr, p.cure))
		}
	}
	if len(open) == 0 {
		return nil
	}
	return fmt.Errorf("other machines would reach in the clear: %s; \"facetd cert\" makes certificates, and --allow-plaintext goes without, on a network that is private",
		strings.Join(open, ", "))
}

// IsLoopback reports whether an address can be reached from this machine only.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
