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
// # Errors
//
// Every error a node gives is a *facet.Error underneath: use errors.Is with the
// sentinels of package facet and errors.As for the details.
//
// # Retries and keys
//
// Until its context ends, and for at most Options.RetryFor, the SDK retries what
// was not done (the node is overloaded, recovering, busy with an interactive
// transaction, or not the owner), and what may be done twice without harm: reads,
// and writes with an idempotency key. A statement counts as a read when it begins
// with SELECT, VALUES or EXPLAIN, or goes through Facet.ReadOnly; the node is told
// and refuses it if it writes after all. Keys cost the facet one row for each
// write, so they are asked for: Facet.Idempotent or Options.Idempotent for keys
// made by the SDK, WithKey for one of your own.
package client
