// Package audit compares the copies of facets over the nodes that keep them (rule R52).
//
// A checksum that matches its own record says that a file is what this node once wrote,
// not that it is what the others have. So each node compares, within an hour, what it
// has of the facets it owns with what each other member has: epoch, sequence number and
// checksum of the end of the log, and whether the copy is sound.
//
// It owns when and with whom copies are compared, and the judgement. It refuses to
// repair: a copy that is outvoted is told so, and its own node takes it out of service
// and has it replaced. The node calls it; it serves other nodes by way of package peer.
//
// # The simple version
//
// One question for each pair of nodes: 256 digests, one for all facets whose ids begin
// with the same byte. Where all are equal that was it: four kilobytes an hour, and a walk
// over the facets at both ends. Where some differ, the facets behind them are asked for
// one by one, 512 in a message; and of those that differ all members are asked, so that a
// majority can judge.
//
// # What counts
//
// Two copies that end at the same epoch and sequence number hold the same database (I1,
// I9). If they do not, the content that a majority of the whole set has is right, and who
// has another one is outvoted, whoever that is, the owner too (R51). Without a majority
// nobody is right: that is said, and left to an operator. Copies that end elsewhere are
// behind, or ahead with what was never committed; the owner, if the facet is idle, is
// woken to bring them what they lack.
//
// One goroutine asks; one for each node that asks here answers.
package audit
