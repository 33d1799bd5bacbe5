// Package doctor looks at a cluster, and at the machine of a node, and says what is wrong
// and what to do about it.
//
// It owns the questions to nodes and the judgement of the answers. It changes nothing
// anywhere, but for a file of a few KiB that it writes to measure a disk and removes.
// Asking (Ask, Machine) and judging (Facts.Judge) are apart, so that the judgement can be
// tested without a cluster. Nothing here is shared; an Asker may be used by several
// goroutines.
package doctor
