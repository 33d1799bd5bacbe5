package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/peer"
)

// HolderOptions are the settings of a Holder. Zero values are the defaults.
type HolderOptions struct {
	// Send brings a renewal to the placement leader, wherever it is, and waits for
	// its answer. Its errors are those of peer.Peer.Renew. It must end with ctx.
	// Required.
	Send func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error)
	// Told is the index of the last placement entry of which every session on this
	// node has been told: the word that nothing taken up to there is served any
	// more (R40). It never decreases. Required.
	Told func() uint64
	// Needed says whether a lease is of use: always in a cluster of several nodes,
	// where it is also the sign of life; while there are sessions on a node alone.
	// Nil is always. It is asked when a renewal is due and at each Wake.
	Needed func() bool

	// TTL and Every are those of quorum.Lease: the longest grant that is believed,
	// and how often it is renewed.
	TTL, Every time.Duration

	Clock  Clock          // default BootTime
	Clocks func() Reading // what the watchdog compares; default the system's
	Logger *slog.Logger   // default slog.Default()
}

// Holder holds the read lease of this process life.
//
// Invariant: deadline is that of the lease, or zero while clocks are not trusted.
type Holder struct {
	opts   HolderOptions
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // holds at most one token

	deadline atomic.Int64  // quorum.Instant
	wanted   atomic.Uint64 // index the leader wants told before it grants, 0 for none
	asleep   atomic.Bool   // no lease is needed: only Wake goes on

	mu       sync.Mutex
	lease    quorum.Lease
	dog      watchdog
	latest   quorum.Instant // the clock at the last step
	era      int            // how often the clock went back: what was sent before is void
	watched  quorum.Instant // when the clocks were read last
	retryAt  quorum.Instant // renew again then, though it is not due; 0 for none
	inFlight int
	stalled  bool // Pause
	stopped  bool // Stop
	distrust bool // the watchdog's word
	echoes   echoes
}

// NewHolder makes a Holder and begins to renew.
func NewHolder(opts HolderOptions) (*Holder, error) {
	if opts.Send == nil || opts.Told == nil {
		return nil, errors.New("lease holder options: Send and Told are required")
	}
	if opts.TTL <= 0 {
		opts.TTL = quorum.LeaseTTL
	}
	if opts.Needed == nil {
		opts.Needed = func() bool { return true }
	}
	if opts.Clock == nil {
		opts.Clock = BootTime
	}
	if opts.Clocks == nil {
		opts.Clocks = readClocks
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	h := &Holder{opts: opts, log: opts.Logger, wake: make(chan struct{}, 1),
		lease: quorum.NewLease(opts.TTL, opts.Every), dog: watchdog{margin: quorum.Margin(opts.TTL)},
		echoes: echoes{margin: quorum.Margin(opts.TTL)}}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.wg.Go(h.run)
	return h, nil
}

// Close ends the lease and waits. It may be called twice.
func (h *Holder) Close() error {
	h.Stop()
	h.cancel()
	h.wg.Wait()
	return nil
}

// Deadline is when the lease ends on the Clock, zero if there is none: what
// quorum.Session.Read is given (R33).
func (h *Holder) Deadline() quorum.Instant { return quorum.Instant(h.deadline.Load()) }

// Valid reports whether there is a lease now.
func (h *Holder) Valid() bool {
	d := h.Deadline()
	return d > 0 && h.opts.Clock() < d
}

// Trusted is false while the clocks of this machine do not agree, or its clock and
// that of the granter (R41): reads need a quorum then.
func (h *Holder) Trusted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trusted()
}

func (h *Holder) trusted() bool { return !h.distrust && !h.echoes.bad }

// Wake tells that Told went up or that Needed may have become true. It is cheap
// when nobody waits for that.
func (h *Holder) Wake() {
	if w := h.wanted.Load(); h.asleep.Load() || w != 0 && h.opts.Told() >= w {
		h.kick()
	}
}

func (h *Holder) kick() {
	select {
	case h.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Pause stops renewing; what was granted stays (R32: the disk of this node stalls,
// and others shall take its facets over).
func (h *Holder) Pause() { h.change(func() { h.stalled = true }) }

// Unpause renews again after Pause.
func (h *Holder) Unpause() { h.change(func() { h.stalled = false }) }

// Stop gives the lease up at once and for good: the sessions of this node are
// ending.
func (h *Holder) Stop() {
	h.change(func() {
		h.stopped = true
		h.lease.Stop(h.opts.Clock())
	})
}

// change changes what stands against renewing.
func (h *Holder) change(f func()) {
	h.mu.Lock()
	f()
	h.publish()
	h.mu.Unlock()
	h.kick()
}

// publish makes the lease what the flags say. A node whose clocks are not trusted
// goes on renewing: it lives, and only its reads need a quorum. Mu is held.
func (h *Holder) publish() {
	if h.stalled || h.stopped {
		h.lease.Pause()
	} else {
		h.lease.Unpause()
	}
	d := h.lease.Deadline()
	if h.stopped || !h.trusted() {
		d = 0
	}
	h.deadline.Store(int64(d))
}

// run sends renewals when they are due.
func (h *Holder) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait := h.step(); wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-h.wake:
		case <-timer.C:
		case <-h.ctx.Done():
			return
		}
	}
}

// step does what is due and tells how long until something is, or a negative time
// when only Wake can tell.
func (h *Holder) step() time.Duration {
	h.asleep.Store(true) // before Needed is asked, so that no Wake is lost
	if !h.opts.Needed() {
		return -1
	}
	h.asleep.Store(false)
	now := h.opts.Clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if now < h.latest.Add(-quorum.Margin(h.opts.TTL)) {
		h.wentBack(now)
	}
	h.latest = now
	h.watch(now)
	if w := h.wanted.Load(); w != 0 && h.opts.Told() >= w {
		h.wanted.Store(0)
		h.lease.Refused()
	}
	if h.retryAt != 0 && now >= h.retryAt {
		h.retryAt = 0
		h.lease.Refused()
	}
	if h.inFlight < maxInFlight && h.lease.Renew(now) {
		h.send(now)
	}
	next := h.watched.Add(watchEvery)
	if due := h.lease.Due(); h.inFlight < maxInFlight {
		next = min(next, due)
	}
	if h.retryAt != 0 {
		next = min(next, h.retryAt)
	}
	return time.Duration(max(next-now, 0))
}

// send sends one renewal. Mu is held.
func (h *Holder) send(now quorum.Instant) {
	h.inFlight++
	era := h.era
	r := peer.RenewRequest{Applied: h.opts.Told(), Stamp: time.Duration(now)}
	h.wg.Go(func() {
		ctx, cancel := context.WithTimeout(h.ctx, h.opts.TTL) // a later answer is worth nothing
		defer cancel()
		g, err := h.opts.Send(ctx, r)
		h.answered(era, now, g, err)
		h.kick()
	})
}

// answered takes in what became of the renewal of an era with the given stamp.
func (h *Holder) answered(era int, stamp quorum.Instant, g peer.Grant, err error) {
	now := h.opts.Clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inFlight--
	switch {
	case era != h.era: // of a clock that went back since
	case err == nil && quorum.Instant(g.Stamp) == stamp:
		h.lease.Granted(stamp, now, g.TTL)
		h.wanted.Store(0)
		h.retryAt = 0
		h.echo(exchange{sent: stamp, back: now, got: quorum.Instant(g.Got), answered: quorum.Instant(g.Answered)}, g.Granter)
		h.publish()
	case errors.Is(err, peer.ErrRefused) && g.Apply > 0:
		h.wanted.Store(g.Apply) // the step that follows looks whether it is so already
	default:
		h.retryAt = now.Add(retryAfter)
	}
}

// watch lets the watchdog look at the clocks when it is time. Mu is held.
func (h *Holder) watch(now quorum.Instant) {
	if h.watched != 0 && now < h.watched.Add(watchEvery) {
		return
	}
	h.watched = now
	r, ok := readTogether(h.opts.Clocks, h.opts.Clock)
	if !ok || broken.Is(broken.NoWatchdog) {
		return
	}
	h.heed(h.dog.look(r), r)
}

// wentBack voids what was granted and noted by a clock that has gone back: the lease
// would last until the clock is where it was, and nothing would be due before. Other
// clocks may have gone back with it, so that the watchdog finds nothing. Mu is held.
func (h *Holder) wentBack(now quorum.Instant) {
	h.era++
	h.watched, h.retryAt = 0, 0
	h.lease.Rewind()
	h.echoes.kept = h.echoes.kept[:0]
	h.heed(h.dog.wentBack(), Reading{Boot: now})
}

// heed does what a word of the watchdog asks for. Mu is held.
func (h *Holder) heed(v verdict, r Reading) {
	now := r.Boot
	switch v {
	case suspended:
		// The deadline is over by itself; what is on its way is void.
		h.lease.Stop(now)
	case tripped:
		h.distrust = true
		h.lease.Stop(now)
		h.log.Error("the clocks of this machine do not agree: reads need a majority of the replicas until they do. "+
			"Look at its time service; for virtual machines that are moved or restored use read=quorum", "boot", int64(r.Boot), "monotonic", int64(r.Mono), "raw", int64(r.Raw))
	case cleared:
		h.distrust = false
		h.lease.Stop(now) // what was granted by those clocks is void
		h.log.Info("the clocks of this machine agree again: lease reads go on")
	case fine:
		return
	}
	h.publish()
}

// echo compares the clock here with that of the granter. A node that grants itself its
// lease has nobody to compare with, and what it found before stays. Mu is held.
func (h *Holder) echo(x exchange, granter cluster.BootID) {
	if granter.IsZero() || broken.Is(broken.NoEcho) {
		return
	}
	switch h.echoes.take(granter, x) {
	case tripped:
		h.lease.Stop(x.back)
		h.log.Error("the clock of this machine and that of the node that leads placement do not run alike: reads here need a majority of the replicas until they do. "+
			"Other nodes say so too: the clock of the leader is off. Only this one does: its own. Look at the time service of that machine",
			"boot", int64(x.back), "leader", int64(x.answered))
	case cleared:
		h.lease.Stop(x.back) // what was granted while they differed is void
		h.log.Info("the clock of this machine and that of the node that leads placement run alike again: lease reads go on")
	}
}
