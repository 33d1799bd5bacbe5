package quorum

import (
	"testing"

	"github.com/facetd/facetd/facet"
)

// TestSnapshotOfWhatIsThere: a member that holds more than the snapshot it is sent,
// and has less in its file, goes on with the log behind the snapshot.
func TestSnapshotOfWhatIsThere(t *testing.T) {
	boot := BootID{1}
	members := []Member{{StoreID{1}, boot}, {StoreID{2}, BootID{2}}, {StoreID{3}, BootID{3}}}
	at := facet.Position{Epoch: 1, Seq: 9}
	s, err := Resume(Row{Epoch: 1, Owner: boot, ActiveEpoch: 1, Active: members, Next: members}, StoreID{1}, boot, 1, 10, at)
	if err != nil {
		t.Fatal(err)
	}
	from := From{Slot: 1, Store: StoreID{2}, Boot: BootID{2}}
	s.Nacked(from, 1, Nack{Kind: NackDamaged, Epoch: 1})
	acts := s.Ready(1, nil)
	if len(acts) == 0 || acts[0].Kind != ActSnapshot {
		t.Fatal(acts)
	}
	if err := s.Appended(2, 10, 1); err != nil {
		t.Fatal(err)
	}
	s.Ready(2, nil)
	s.Filled(from, 9)
	s.Acked(from, 3, 1, 4) // its file
	if acts = s.Ready(3, nil); len(acts) == 0 || acts[0].Kind != ActShip || acts[0].Slot != 1 || acts[0].Seq != 10 {
		t.Fatal(acts)
	}
}
