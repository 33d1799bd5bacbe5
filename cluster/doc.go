// Package cluster is the vocabulary of machines: what a node, its disk, its
// process life and its place in the cluster are called.
//
// It owns identity (NodeID, StoreID, BootID, MachineID, ID) and membership as
// data (Member, Status, View). It refuses to do any work: no I/O, no clock, no
// goroutine, nothing but the standard library. Gossip fills a View, consensus
// and placement speak of nodes with these words; everyone may import it and it
// imports nobody.
//
// All types are plain values. A View and the slices in it are never changed
// after they were handed out, so they may be read from any goroutine.
package cluster
