// Package quota holds tenants to their limits at one node.
//
// It owns what a node knows of the tenants that are in use here: the settings in force
// for each, as its placement table has them, its buckets for rates, how many of its
// requests are under way, and how much it may still grow here (Room). Packages node/owner
// and node/follower ask it before they run anything; the table itself enforces the number
// of facets, and the engine the size of one.
//
// It refuses to change settings, to run requests and to talk to other nodes: what asks
// them is given to it. What it refuses was not begun: a request that was refused has had
// no effect.
//
// A tenant costs memory while it is in use and for a moment after, see keepFor; one that
// is idle costs nothing. Every method may be called from any goroutine, and the methods
// of a nil *Tenant admit everything. Its locks are taken alone.
package quota
