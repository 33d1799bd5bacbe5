package main

// The SQL of those that speak it.
const (
	createSQL = "CREATE TABLE IF NOT EXISTS kv (id INTEGER PRIMARY KEY, v BLOB NOT NULL)"
	upsertSQL = "INSERT INTO kv(id, v) VALUES (?, ?) ON CONFLICT(id) DO UPDATE SET v = excluded.v"
	selectSQL = "SELECT v FROM kv WHERE id = ?"
)
