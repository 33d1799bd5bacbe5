// Package memnet is a network in memory for tests of whole clusters.
//
// It owns hosts, the byte streams between them and the faults of both: latency,
// lost packets (which a stream shows as delay), links cut in one or both
// directions, hosts that die. It behaves as TCP does: a cut holds bytes back
// and lets them through when it heals, a dead host resets its connections and
// refuses new ones. It refuses to know what the bytes mean. Tests and the
// simulator use it; no program imports it.
//
// Concurrency: every method may be called by any goroutine. Waiting is done on
// channels and timers made by the caller, so all of it may run inside a
// testing/synctest bubble, where its time is virtual. What it draws at random
// comes from its seed.
package memnet
