// Package client is the Go SDK of facetd.
//
//	c, err := client.Open(ctx, []string{"127.0.0.1:7400"}, client.Options{})
//	b, err := c.Bind("acme")
//	f, err := b.Facet("notes")
//	_, err = f.Exec(ctx, "INSERT INTO note(body) VALUES (?)", "hello")
//
// It owns connections to nodes, what it learned about owners, retries, and the
// translation between Go values and SQLite's. It refuses to guess: a write whose
// connection was lost before the answer is reported as facet.ErrUnknownOutcome
// and never sent twice, unless it carries an idempotency key.
//
// Programs import it; so do bench and the database/sql driver (client/sqldriver).
// It imports nothing of a node: no SQLite, no Raft, no gossip.
//
// Client, Binding and Facet are safe for concurrent use and cheap to share. Rows
// and Tx belong to one goroutine at a time.
//
// # TLS
//
// Endpoints that begin with https:// are reached over TLS. LoadTLS makes Options.TLS
// from the file with the CA of the nodes, where that is one of your own. A client
// whose endpoints are all https sends nothing in the clear, wherever a redirect leads.
//
// # Errors
//
// Every error a node gives is a *facet.Error underneath: use errors.Is with the
// sentinels of package facet and errors.As for the details.
//
// # Owners
//
// A facet is served by one node, its owner, and may move. The SDK asks any node,
// follows where it points, and remembers the way; a way of a later epoch is never
// given up for one of an earlier. When the owner cannot be reached it asks the
// others, endpoints as well as nodes it learned of, with pauses of 2 to 100 ms,
// until one of them knows the next owner. After an owner died this adds at most
// 100 ms to the time its lease lasts. A node that vanished without a word is
// noticed by silence, after three times Options.PingInterval.
//
// # What a read sees
//
// A read sees everything acknowledged before it was sent. Facet.QuorumReads has that
// not depend on the clocks of nodes. Facet.FollowerReads gives it up for reads that
// cost the owner nothing and go on without it; Facet.Bookmarked has them see at least
// what the program has seen before.
//
// # Retries and keys
//
// Until its context ends, or for 30 s if it has no deadline (Options.RetryFor), the
// SDK retries what was not done (the node is overloaded, recovering, busy with an
// interactive transaction, not reached, or not the owner), and what may be done
// twice without harm: reads, and writes with an idempotency key. A statement counts
// as a read when it begins with SELECT, VALUES or EXPLAIN, or goes through
// Facet.ReadOnly; the node is told and refuses it if it writes after all.
//
// So the loss of an owner is seen by writes without a key that were on their way to
// it, and by nobody else. Keys are asked for, because they cost: the facet keeps a
// row for each of the last 1,024 writes of every client, for a day, and a single
// facet written to as fast as it goes does a half to a third of the writes.
// Facet.Idempotent or Options.Idempotent is for keys made by the SDK, WithKey for
// one of your own. An application whose writes are worth more than that sets
// Options.Idempotent and never meets facet.ErrUnknownOutcome outside of
// transactions, unless its context ends first.
//
// # Transactions
//
// An interactive transaction dies with its connection and its owner: its statements
// then fail with facet.ErrTxClosed, and nothing of it was done. facet.ErrUnknownOutcome
// comes from a COMMIT that was sent and not answered. Facet.Tx begins again by
// itself where it surely was rolled back.
package client
