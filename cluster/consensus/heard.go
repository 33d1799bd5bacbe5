package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/facetd/facetd/internal/broken"
)

// heard knows when entries came into this node's log: when the last one of an earlier
// term than a given one did. Whoever wins a term holds every entry that was committed
// before it, so whatever an earlier leader did on the strength of a committed entry,
// it was asked for before that moment (rule R39).
//
// Times are taken when the log begins to store an entry: it was proposed before that.
// What was in the log when the process started, or comes with a snapshot, counts as
// having come then.
type heard struct {
	mu    sync.Mutex
	term  uint64    // guarded by mu; the newest term of which something came in
	at    time.Time // guarded by mu; when the last of that term did
	below time.Time // guarded by mu; when the last of any term before it did, at the latest
}

// entries takes in that the log begins to store entries.
func (h *heard) entries(list []*raft.Log) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range list {
		switch {
		case e.Term > h.term:
			if h.at.After(h.below) {
				h.below = h.at
			}
			h.term, h.at = e.Term, now
		case e.Term == h.term:
			h.at = now
		default:
			h.below = now
		}
	}
}

// all takes in that entries of unknown terms came.
func (h *heard) all() {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.at, h.below = now, now
}

// before is when the last entry of a term before the given one came in, at the latest.
func (h *heard) before(term uint64) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if term > h.term && h.at.After(h.below) && !broken.Is(broken.OldEntry) {
		return h.at
	}
	return h.below
}
