package main

import "time"

// Bounds, with their reasons.
const (
	// nodes is the size of every cluster: what survives the loss of one.
	nodes = 3

	// startWait and stopWait bound the start and the graceful stop of a cluster.
	startWait = time.Minute
	stopWait  = 20 * time.Second
	startPoll = 100 * time.Millisecond

	// callTimeout bounds one request.
	callTimeout = 30 * time.Second

	// warmShare is the part of a measurement that is run before it and does not
	// count.
	warmShare = 5

	// maxErrors ends a measurement that mostly fails.
	maxErrors = 1000

	maxCallers = 4096
	maxKeys    = 1_000_000
	maxAnswer  = 1 << 20 // bytes read of an HTTP answer
)
