package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// Options are the settings of a Keeper. Zero values are the defaults.
type Options struct {
	Store   *replica.Store   // required
	Table   *placement.Table // required
	Node    cluster.NodeID   // required: this node
	StoreID cluster.StoreID  // required: the id of Store

	// Grace is how long a copy is kept that the table no longer wants here.
	// Default DefaultGrace. Too short costs sending it again when a change of the
	// set is taken back; too long costs disk.
	Grace time.Duration

	Logger *slog.Logger // default slog.Default()
}

// Keeper keeps copies for owners elsewhere. See the package comment.
type Keeper struct {
	opts   Options
	store  *replica.Store
	table  *placement.Table
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine

	room  room
	idle  idleQueue
	sweep sweeper

	installs installs
	counts   counts
	alarmed  atomic.Int64 // unix nanoseconds of the last alarm
}

// counts are what Stats tells.
type counts struct {
	refused, parked, created, checkpoints, dropped, tombed, unknown atomic.Int64
}

// Stats are counters since the start, for metrics.
type Stats struct {
	Refused     int64 // sessions that did not pass the door
	Parked      int64 // PREPAREs that had to wait for the table
	Created     int64 // copies made
	Checkpoints int64 // of idle copies
	Dropped     int64 // copies dropped because the table wants them elsewhere
	Tombed      int64 // copies of deleted facets
	Unknown     int64 // copies the table does not know, at the last Sweep (R4)
	Idle        int   // copies that wait for a checkpoint now
}

// New makes a Keeper.
func New(opts Options) (*Keeper, error) {
	if opts.Store == nil || opts.Table == nil || opts.Node.IsZero() || opts.StoreID.IsZero() {
		return nil, errors.New("keeper options: Store, Table, Node and StoreID are required")
	}
	if opts.Grace <= 0 {
		opts.Grace = DefaultGrace
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	k := &Keeper{opts: opts, store: opts.Store, table: opts.Table, log: opts.Logger}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	k.room.init()
	k.idle.init()
	k.installs.init()
	k.wg.Go(k.attend)
	k.wg.Go(k.settle)
	return k, nil
}

// Close waits for everything under way. Sessions that wait are answered
// replica.ErrClosed. The peer transport is closed before it, the store after it.
// It may be called twice.
func (k *Keeper) Close() error {
	k.cancel()
	k.wg.Wait()
	return nil
}

// Stats tells what was done so far.
func (k *Keeper) Stats() Stats {
	c := &k.counts
	return Stats{
		Refused: c.refused.Load(), Parked: c.parked.Load(), Created: c.created.Load(),
		Checkpoints: c.checkpoints.Load(), Dropped: c.dropped.Load(), Tombed: c.tombed.Load(),
		Unknown: c.unknown.Load(), Idle: k.idle.len(),
	}
}

// Append implements peer.Handler: it puts one entry of a session into the copy
// here (R7 to R10).
func (k *Keeper) Append(from *peer.Caller, a *peer.AppendItem) {
	err := k.append(from.Remote(), a, from)
	if errors.Is(err, errBehind) && a.Entry.Kind == facet.KindBarrier {
		k.await(from, a)
		return
	}
	if err != nil {
		from.Nacked(a.Entry.Incarnation, a.Epoch, a.Entry.Seq, err)
	}
}

// await lets a barrier wait for the table to learn of its epoch: the first entry of
// a new facet is often here before the log entry that made the facet has been
// applied. Nothing of its session comes behind it before it is acknowledged. A
// barrier has no pages, so it is cheap to keep.
func (k *Keeper) await(from *peer.Caller, a *peer.AppendItem) {
	item, entry := *a, *a.Entry
	item.Entry = &entry
	k.knock(&knock{
		id: entry.Incarnation,
		try: func() error {
			err := k.append(from.Remote(), &item, from)
			if errors.Is(err, errBehind) {
				return errBehind
			}
			return err
		},
		no: func(err error) { from.Nacked(entry.Incarnation, item.Epoch, entry.Seq, err) },
	})
}

func (k *Keeper) append(from peer.Remote, a *peer.AppendItem, ack replica.Acker) error {
	id := a.Entry.Incarnation
	r, err := k.copyFor(from, id, a.Epoch)
	if err != nil {
		return err
	}
	return r.Append(a.Epoch, replica.Boot(from.Boot), a.Entry, a.Commit, ack)
}

// Known implements peer.Handler: it hears what a session has committed (R10). When
// that is all the copy has, the owner has gone to rest, and the copy follows.
func (k *Keeper) Known(from *peer.Caller, h *peer.KnownItem) { k.known(from.Remote(), h) }

func (k *Keeper) known(from peer.Remote, h *peer.KnownItem) {
	r, err := k.store.Replica(h.Incarnation)
	if err != nil {
		return // a hint about nothing
	}
	// No door: a session that was not promised tells nothing.
	if r.Known(h.Epoch, replica.Boot(from.Boot), h.At) != nil {
		return
	}
	if m := r.Meta(); m.Entries > 0 && m.Last.Seq == h.At.Seq && !m.Open {
		k.idle.add(r, h.At.Seq)
	}
}

// Check implements peer.Handler: whether the session's epoch is the one promised
// last (R34).
func (k *Keeper) Check(from *peer.Caller, s peer.Session) bool { return k.check(from.Remote(), s) }

func (k *Keeper) check(from peer.Remote, s peer.Session) bool {
	r, err := k.store.Replica(s.Incarnation)
	return err == nil && promised(r, s.Epoch, replica.Boot(from.Boot))
}

// Inspect implements peer.Inspector: it tells what the copy here has.
func (k *Keeper) Inspect(_ *peer.Caller, s peer.Session) (replica.Promise, error) {
	r, err := k.store.Replica(s.Incarnation)
	if err != nil {
		return replica.Promise{}, err
	}
	m := r.Meta()
	return m.AsPromise(), nil
}

// Fetch implements peer.Handler: it sends the entries of a copy to the session
// that has fenced it.
func (k *Keeper) Fetch(ctx context.Context, from *peer.Caller, r peer.FetchRequest, out *peer.EntryWriter) error {
	return k.fetch(ctx, from.Remote(), r, out.Write)
}

func (k *Keeper) fetch(ctx context.Context, from peer.Remote, req peer.FetchRequest, write func(*facet.Commit) (bool, error)) error {
	r, err := k.store.Replica(req.Incarnation)
	if err != nil {
		return err
	}
	// R17, R19: what is read must be what the promise of this session reported.
	if m := r.Meta(); m.Promised > req.Epoch {
		return &replica.EpochError{Promised: m.Promised}
	} else if m.Promised != req.Epoch || m.Boot != replica.Boot(from.Boot) {
		return fmt.Errorf("fetch %v in epoch %v: %w: it is not promised here", req.Incarnation, req.Epoch, peer.ErrRefused)
	}
	for c, err := range r.Entries(req.From) {
		if err != nil {
			return err
		}
		if more, err := write(c); err != nil || !more {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
