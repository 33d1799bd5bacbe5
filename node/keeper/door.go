package keeper

import (
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// errBehind: the table of this node does not know the epoch yet, or the facet.
var errBehind = errors.New("the placement table here does not know that epoch yet")

// promised reports whether the session (epoch, boot) is the one the copy has
// promised. It has passed the door then.
func promised(r replica.Replica, epoch facet.Epoch, boot replica.Boot) bool {
	e, b := r.Promised()
	return e == epoch && b == boot
}

// copyFor is the copy a session may change. It is made if it is not there and the
// session is the legitimate one: members of the sets and learners alike (R42, R47).
//
// The usual case, a session that was promised, is one look at the store.
func (k *Keeper) copyFor(from peer.Remote, id facet.Incarnation, epoch facet.Epoch) (replica.Replica, error) {
	r, err := k.store.Replica(id)
	if err == nil && promised(r, epoch, replica.Boot(from.Boot)) {
		return r, nil
	}
	if errors.Is(err, replica.ErrDeleted) {
		return r, err
	}
	switch err := k.door(from, id, epoch); {
	case err == errBehind:
		return r, fmt.Errorf("%w: %w", replica.ErrBusy, err)
	case err != nil:
		return r, err
	}
	return k.create(id)
}

// create makes the copy, or finds it.
func (k *Keeper) create(id facet.Incarnation) (replica.Replica, error) {
	if r, err := k.store.Replica(id); err == nil {
		return r, nil
	}
	r, err := k.store.Create(id)
	if err == nil {
		k.counts.created.Add(1)
	}
	return r, err
}

// door says why a session may not change a copy here, or nil (R6).
func (k *Keeper) door(from peer.Remote, id facet.Incarnation, epoch facet.Epoch) error {
	if broken.Is(broken.OpenDoor) {
		return nil
	}
	row, ok := k.table.ByIncarnation(id)
	if !ok {
		if k.table.Tombstoned(id) {
			return k.refuse(replica.ErrDeleted)
		}
		return errBehind // or it never was: R4 leaves that to the sender
	}
	switch {
	case row.Epoch > epoch:
		return k.refuse(&replica.EpochError{Promised: row.Epoch})
	case row.Epoch < epoch:
		return errBehind
	case row.Owner.IsZero():
		return k.refuse(fmt.Errorf("%w: nobody holds epoch %v", replica.ErrUnknown, epoch))
	case row.Owner != placement.Owner{Node: from.Node, Boot: from.Boot}:
		if k.alarm() {
			k.log.Error("a process life acts in an epoch that was issued to another", "facet", id,
				"epoch", epoch.String(), "issued_to", row.Owner.Node, "issued_to_boot", row.Owner.Boot.String(),
				"claimed_by", from.Node, "claimed_by_boot", from.Boot.String())
		}
		return k.refuse(replica.ErrBoot)
	}
	return nil
}

// fence reports whether a PREPARE is the fence of a deletion: its epoch was issued
// to nobody, so whoever asks may have it promised to nobody (R47).
func (k *Keeper) fence(id facet.Incarnation, epoch facet.Epoch) bool {
	row, ok := k.table.ByIncarnation(id)
	return ok && row.Epoch == epoch && row.Owner.IsZero() &&
		(row.State == placement.Deleting || row.State == placement.Retired)
}

func (k *Keeper) refuse(err error) error {
	k.counts.refused.Add(1)
	return err
}

// alarm says whether it is time for another log line.
func (k *Keeper) alarm() bool {
	now, last := time.Now().UnixNano(), k.alarmed.Load()
	return now-last >= int64(alarmEvery) && k.alarmed.CompareAndSwap(last, now)
}
