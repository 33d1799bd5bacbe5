// Command notes is the smallest facetd program: it opens the database of one app
// of one tenant, which its first write creates, and keeps notes in it.
//
//	go run ./cmd/facetd dev &
//	go run ./examples/notes "buy tea"
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	server := "127.0.0.1:7400"
	if s := os.Getenv("FACETD_SERVER"); s != "" {
		server = s
	}
	if err := run(ctx, server, strings.Join(os.Args[1:], " ")); err != nil {
		fmt.Fprintln(os.Stderr, "notes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, note string) error {
	c, err := client.Open(ctx, []string{server}, client.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	acme, err := c.Bind("acme") // the platform binds an app to its tenant
	if err != nil {
		return err
	}
	notes, err := acme.Facet("notes") // the app sees plain SQLite
	if err != nil {
		return err
	}
	if _, err := notes.Exec(ctx, "CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, body TEXT, at TEXT)"); err != nil {
		return err
	}
	if note != "" {
		// Two statements, all or nothing. The key the SDK adds makes it safe to send
		// them again when the connection breaks before the answer.
		_, err := notes.Idempotent().Batch(ctx,
			client.Stmt{SQL: "INSERT INTO note (body, at) VALUES (?, ?)", Args: []any{note, time.Now()}},
			client.Stmt{SQL: "DELETE FROM note WHERE id <= (SELECT max(id) FROM note) - 100"})
		if err != nil {
			return err
		}
	}
	rows, err := notes.Query(ctx, "SELECT id, body FROM note ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var body string
		if err := rows.Scan(&id, &body); err != nil {
			return err
		}
		fmt.Printf("%4d  %s\n", id, body)
	}
	return rows.Err()
}
