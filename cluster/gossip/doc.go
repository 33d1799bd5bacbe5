// Package gossip keeps a cluster.View of the nodes up to date by gossip, and
// nothing else.
//
// It owns the memberlist library (no other package touches it), the gossip port
// with its datagrams and streams, the 512 bytes a node tells about itself
// (meta.go has the byte table), the ring of gossip keys, and the loop that
// finds seeds and lost members again. It refuses to decide: what it reports is
// a hint, no facet moves because of it, and a member it calls gone may well be
// alive. Ownership is placement's business, addresses it names are tried, not
// trusted. The node package opens it; nobody else does.
//
// # Who is a member
//
// A member is a node id together with a store id (rule R3). The first store
// seen under a node id is kept while it lives: another store that claims the
// same id raises an alarm and is not taken into the view until the known one
// has been gone for Timings.Reclaim, has left, or gave up its very address to
// the newcomer. The same node and store at another address is a node that
// moved: it is taken once its old address counts as dead, and has left or been
// dead for Timings.Reclaim. Members of another cluster are refused by label,
// by cluster id in their meta, and at the first exchange of states.
//
// Statuses reported are alive, leaving and gone. StatusSuspect never appears:
// the library keeps its suspicions to itself.
//
// # Cost
//
// An idle node sends one probe a Timings.Probe and answers one, and swaps the
// whole state with one peer each Timings.Sync. With the LAN timings, encryption
// and short addresses that is about 0.4 kB/s of payload each way in a cluster
// of three nodes and 0.6 kB/s in one of twenty, in four datagrams a second;
// TestIdleCost measures it.
//
// # Concurrency
//
// All methods of Gossip may be called from any goroutine. The library calls
// back with its own lock held: the callbacks here take only Gossip.mu, do no
// I/O and call nothing that blocks; log lines and alarms leave through a
// bounded queue. Lock order: memberlist's lock, then Gossip.mu. Close waits for
// every goroutine of this package; the library's own end by themselves within
// one probe.
package gossip
