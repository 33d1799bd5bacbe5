package main

import "time"

// Bounds, with their reasons.
const (
	// clusterSize is the size of every cluster: what survives the loss of one.
	clusterSize = 3

	// startWait and stopWait bound the start and the graceful stop of a cluster.
	startWait = time.Minute
	stopWait  = 20 * time.Second
	startPoll = 100 * time.Millisecond

	// startTries bounds how often processes that end at once are started.
	startTries = 3

	// callTimeout bounds one request, openTimeout one attempt to connect.
	callTimeout = 30 * time.Second
	openTimeout = 6 * time.Second

	// warmShare is the part of a measurement that is run before it and does not
	// count.
	warmShare = 5

	// busyDisk is how many bytes a second a disk may get while nobody calls before
	// that is work of others that spoils the figure.
	busyDisk = 1 << 20

	// maxErrors ends a measurement that mostly fails.
	maxErrors = 1000

	maxCallers = 4096
	maxKeys    = 1_000_000
	maxSize    = 1 << 20
	maxRounds  = 100
	maxTime    = time.Hour

	// maxAnswer bounds what is read of an HTTP answer.
	maxAnswer = 4 << 20

	// syncBlock and syncTime are for the look at how long the disk takes to sync.
	syncBlock = 4096
	syncTime  = time.Second
	syncSize  = 1 << 20
)
