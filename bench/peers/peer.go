package main

import "context"

// peer is a program under comparison.
type peer interface {
	// name is the word for it in the report.
	name() string
	// about says through which client and with which settings it is driven.
	about() string
	// versionArgs makes its program print its version.
	versionArgs() []string
	// commands are the arguments of its processes, for the data directory of each and
	// the first of a few free ports for each.
	commands(dirs []string, ports []int) [][]string
	// open connects to a cluster whose processes have been started with those ports,
	// and fails while it is not ready for work. It is called again then.
	open(ctx context.Context, ports []int) (session, error)
}

// session is a client of a running cluster. write and read are called by many
// goroutines.
type session interface {
	// prepare is called once before all else.
	prepare(ctx context.Context) error
	// write sets the value of a key, durably; true: of a key that is not there yet.
	write(ctx context.Context, key int, value []byte, first bool) error
	// read gives the length of the value of a key as of now: not a stale one.
	read(ctx context.Context, key int) (int, error)
	close() error
}

// portsEach is how many ports in a row a process may use.
const portsEach = 3
