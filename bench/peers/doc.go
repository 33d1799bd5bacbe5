// Command peers compares facetd with the programs people would pick instead: it
// starts three processes of each on loopback, drives them through their usual
// clients with the same loop, in turns, and prints rates, processor time and ratios.
//
// It owns the clients and the loop. It refuses to bring servers (they are found by
// path or in PATH) and to tune them: each runs as it is started by its own
// documentation, with its default durability, and the command lines are part of the
// report. README.md tells how to run it.
package main
