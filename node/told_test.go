package node

import (
	"testing"
	"time"

	"github.com/facetd/facetd/placement"
)

// TestToldWaitsForTheSessions: the index that goes out with a renewal is the node's word
// that every session here was told of all up to it (R40). While they are being told it
// does not name an entry that was applied meanwhile.
func TestToldWaitsForTheSessions(t *testing.T) {
	n := &Node{table: placement.NewTable()}
	n.changes = n.table.Watch()
	defer n.changes.Close()
	n.following.Lock() // the sessions are being told
	if _, err := n.table.ApplyCommands(1, placement.Renew{}); err != nil {
		t.Fatal(err)
	}
	told := make(chan uint64, 1)
	go func() { told <- n.told() }()
	select {
	case index := <-told:
		n.following.Unlock()
		t.Fatalf("told up to %d, while sessions have not heard of it", index)
	case <-time.After(200 * time.Millisecond): // it waits: nothing else can come of it
	}
	n.following.Unlock()
	if index := <-told; index != 1 {
		t.Errorf("told up to %d", index)
	}
}
