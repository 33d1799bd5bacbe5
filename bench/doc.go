// Package bench measures a facetd node or cluster the way a user's program would
// use it: it drives workloads through the SDK and reports rates and latencies.
//
// It owns the workloads, the load generator, the histograms and the shape of the
// report. It refuses to start nodes (its caller hands over a Node) and to know
// what the machine could do at best (package bench/limits measures that, through
// Config.Limits and Config.Yardstick), so that it imports the SDK and nothing below
// it. cmd/facetd calls it. The programs facetd is compared with are in the module
// bench/peers, which nothing here imports.
//
// Run may be called once at a time per Node.
package bench
