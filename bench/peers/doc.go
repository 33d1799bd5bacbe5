// Command peers compares facetd with the programs people would pick instead: it
// starts each on loopback, one after the other, drives them through their usual
// clients with the same loop, and writes rates, costs and ratios into one report.
// "peers install" builds or downloads those that can be had.
//
// It owns the clients, the loop and the report. It refuses to tune the servers: each
// runs as it is started by its own documentation, with its default durability where
// that is durable, and the command lines and configurations are part of the report.
// README.md tells how to run it.
package main
