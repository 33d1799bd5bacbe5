// Package telemetry measures the requests of a node: how many there were and what came
// of them, how long they took and where the time went, which of them were slow, and
// what became of those that their clients trace.
//
// It owns the metrics of requests, the log of slow ones and the spans of traced ones. It refuses to know how a
// request is executed, and never keeps one: it is told when a request has ended
// (service.Watcher). No metric has a label for a tenant or a facet, of which there may
// be millions.
//
// A Recorder is safe for concurrent use; telling it of a request takes a few hundred
// nanoseconds and allocates nothing, but for slow ones.
package telemetry
