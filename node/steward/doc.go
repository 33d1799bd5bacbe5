// Package steward is what the placement leader does about facets: it gives those
// of dead nodes to living ones, empties nodes that are to be drained or to leave,
// restores replica sets that lost a member, brings facets to where they belong
// when asked to, sees that deletions end, and keeps the list of these operations.
//
// It owns decisions and their pace. A decision is a pure function of a view (the
// nodes of the table and which of them live) and a row; the rest of the package
// carries decisions out, a few at a time, and looks again. It refuses to decide on
// anything but the placement table and the leases (Lives): gossip is a hint here
// and only weighs candidates that are equally right. It refuses to shrink anything
// by itself (rule R25), to choose names (R1) and to touch data: epochs and sets
// change by compare-and-set in the table, and a facet whose owner lives is moved by
// that owner, who is asked to (Orders).
//
// Package node makes one Steward, calls Lead when this node has become the
// placement leader (it applied everything decided before) and Stop when it is no
// longer; all that the steward knows but the list of operations is of one term. A
// drain and a decommission are wanted states in the table, so the next leader goes
// on with them; a repair begins again by itself, a rebalance has to be asked for.
//
// Concurrency: every method of Steward may be called by any goroutine. In a term
// one goroutine, the loop, owns failover and scans; each operation has one of its
// own and a bounded number of workers. Stop and Close wait for all of them, so no
// callback may call these.
//
// Lock order: Steward.mu, term.mu; neither is held during a callback.
package steward
