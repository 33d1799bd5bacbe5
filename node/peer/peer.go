package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/cluster"
)

// Acks hears what becomes of appends. Per peer, all calls come from one goroutine,
// in order: Ready, then Acked and Ready, then Lost, then the same for the next
// connection. None may block: the answers of all facets wait behind it. They may
// call Append.
type Acks interface {
	// Ready says that the peer takes appends: a connection is up, or there is
	// room again after ErrBusy. What was refused before may be sent now.
	Ready(to Remote)
	// Acked gives answers to appends, those of one facet in the order of the
	// appends unless the handler over there says otherwise. The slice is good
	// until Acked returns.
	Acked(from Remote, acks []Ack)
	// Lost says that the connection is over, once for each that was Ready. What
	// was appended and not acknowledged may or may not have arrived: send it
	// again, from the last acknowledgement, after the next Ready.
	Lost(to Remote, cause error)
}

// Peer is another node, as seen from here. It is connected to when somebody first
// needs it, and again whenever the connection is lost, until nobody has asked for
// it for a while. All methods may be called from any goroutine.
type Peer struct {
	t      *Transport
	node   cluster.NodeID
	ctx    context.Context
	cancel context.CancelFunc
	kick   chan struct{} // holds at most one token: somebody wants the peer
	wanted atomic.Bool   // the same, for a dialler that is awake
	link   atomic.Pointer[link]

	mu      sync.Mutex
	attempt *attempt // the one under way, or the next
	lastErr error
	dials   int
	lost    int
}

// attempt is one try to connect, for those who wait for it.
type attempt struct {
	done chan struct{}
	link *link
	err  error
}

func newPeer(t *Transport, node cluster.NodeID) *Peer {
	p := &Peer{t: t, node: node, kick: make(chan struct{}, 1), attempt: &attempt{done: make(chan struct{})}}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	return p
}

// Node is the peer's id.
func (p *Peer) Node() cluster.NodeID { return p.node }

// Status tells how it stands with the connection.
type Status struct {
	Connected bool
	Remote    Remote // of the connection
	Queued    int    // bytes not yet taken by it
	Dials     int    // connections tried
	Lost      int    // connections lost
	Err       error  // why there is none now
}

// Status tells how it stands with the connection.
func (p *Peer) Status() Status {
	p.mu.Lock()
	s := Status{Dials: p.dials, Lost: p.lost, Err: p.lastErr}
	p.mu.Unlock()
	if l := p.link.Load(); l != nil {
		l.out.mu.Lock()
		s.Queued = l.out.queued()
		l.out.mu.Unlock()
		s.Connected, s.Remote, s.Err = true, l.remote, nil
	}
	return s
}

// Append sends one entry, without blocking and in the order of the calls. The
// entry is encoded before it returns and not kept. Acks hears what became of it.
//
// Nothing was sent on an error. ErrDown: there is no connection; one is being
// made, and Acks.Ready tells. ErrBusy: the queue is full; Acks.Ready tells when it
// is not. ErrInvalid and ErrTooLong: no log may hold such an entry.
func (p *Peer) Append(a AppendItem) error {
	if err := checkEntry(a.Epoch, a.Entry); err != nil {
		return fmt.Errorf("append %v/%v: %w", a.Entry.Incarnation, a.Entry.Position(), err)
	}
	l := p.link.Load()
	if l == nil {
		return p.down()
	}
	return l.append(&a)
}

// Known tells the peer what is committed, in order with the appends. It is a
// hint: nothing is answered. Errors are those of Append.
func (p *Peer) Known(k KnownItem) error {
	if k.Incarnation.IsZero() || k.At.Seq == 0 || k.At.Epoch == 0 || k.At.Epoch > k.Epoch {
		return fmt.Errorf("tell what is committed of %v: %w: position %v in session %v", k.Incarnation, ErrInvalid, k.At, k.Epoch)
	}
	l := p.link.Load()
	if l == nil {
		return p.down()
	}
	return l.known(&k)
}

// Want has the peer connected to, without waiting for it. A peer that was lost is
// dialled again for a while only; who waits for its return asks now and then.
func (p *Peer) Want() {
	if p.link.Load() == nil {
		_ = p.want() // of a transport that is closed nobody comes
	}
}

func (p *Peer) down() error {
	if err := p.want(); err != nil {
		return err
	}
	return ErrDown
}

// Prepare asks the peer for promises, at most MaxItems, and returns when all are
// answered. Results are in the order of the sessions. An error means that none of
// the results counts: ErrDown or ErrBusy that nothing was sent, ErrLost that the
// connection ended first.
func (p *Peer) Prepare(ctx context.Context, list []Session) ([]PrepareResult, error) {
	return ask(ctx, p, "prepare", len(list), func(l *link) ([]PrepareResult, error) { return l.prepare(ctx, list) })
}

// Inspect asks what the peer keeps of facets, and changes nothing. It is for a person to
// decide by: an owner knows only what it was promised. Errors are those of Prepare.
func (p *Peer) Inspect(ctx context.Context, list []Session) ([]InspectResult, error) {
	return ask(ctx, p, "inspect", len(list), func(l *link) ([]InspectResult, error) { return l.inspect(ctx, list) })
}

// Check asks whether the sessions' epochs are the ones the peer has promised last
// (rule R34), and tells who answered (rule R3). Errors are those of Prepare.
func (p *Peer) Check(ctx context.Context, list []Session) (from Remote, yes []bool, err error) {
	yes, err = ask(ctx, p, "check", len(list), func(l *link) ([]bool, error) {
		from = l.remote
		return l.check(ctx, list)
	})
	return from, yes, err
}

// Fetch asks for entries of a facet's log. Errors are those of Prepare, or the
// peer's own: replica.ErrCompacted when a snapshot is needed, for one.
func (p *Peer) Fetch(ctx context.Context, r FetchRequest) (FetchResult, error) {
	if r.MaxBytes == 0 {
		r.MaxBytes = DefaultFetch
	}
	r.MaxBytes = min(r.MaxBytes, MaxFetch)
	if r.Incarnation.IsZero() || r.From == 0 || r.To != 0 && r.To < r.From {
		return FetchResult{}, fmt.Errorf("fetch %v from %v to %v: %w", r.Incarnation, r.From, r.To, ErrInvalid)
	}
	return ask(ctx, p, "fetch", 1, func(l *link) (FetchResult, error) { return l.fetch(ctx, &r) })
}

// Renew asks for the lease of this process. The answer may be a *NotLeaderError,
// or ErrRefused with Grant.Apply.
func (p *Peer) Renew(ctx context.Context, r RenewRequest) (g Grant, err error) {
	return ask(ctx, p, "renew lease", 1, func(l *link) (Grant, error) { return l.renew(ctx, &r) })
}

// Propose has the peer propose placement commands, at most MaxItems. Each has its
// own result. An error means that none is known; with ErrLost, or when ctx ended,
// some may take effect.
func (p *Peer) Propose(ctx context.Context, cmds [][]byte) ([]ProposeResult, error) {
	if err := checkCommands(cmds); err != nil {
		return nil, fmt.Errorf("propose by way of %v: %w", p.node, err)
	}
	return ask(ctx, p, "propose", len(cmds), func(l *link) ([]ProposeResult, error) { return l.propose(ctx, cmds) })
}

// Ping measures one round trip, with whatever waits in the queue before it.
func (p *Peer) Ping(ctx context.Context) (time.Duration, error) {
	return ask(ctx, p, "ping", 1, func(l *link) (time.Duration, error) {
		start := time.Now()
		err := l.ping(ctx)
		return time.Since(start), err
	})
}

// ask runs f with the connection, waiting for one attempt to make it.
func ask[T any](ctx context.Context, p *Peer, verb string, items int, f func(*link) (T, error)) (T, error) {
	var zero T
	if items == 0 || items > MaxItems {
		return zero, fmt.Errorf("%s at %v: %w: %d items, limit %d", verb, p.node, ErrTooLong, items, MaxItems)
	}
	l, err := p.connected(ctx)
	if err == nil {
		var v T
		if v, err = f(l); err == nil || errors.Is(err, ErrRefused) {
			zero = v
		}
	}
	if err != nil {
		return zero, fmt.Errorf("%s at %v: %w", verb, p.node, err)
	}
	return zero, nil
}

// connected gives the connection. Without one it waits for the attempt under way,
// or for the next: the answer is always about now.
func (p *Peer) connected(ctx context.Context) (*link, error) {
	if l := p.link.Load(); l != nil {
		return l, nil
	}
	p.mu.Lock()
	a := p.attempt
	p.mu.Unlock()
	if l := p.link.Load(); l != nil {
		return l, nil
	}
	if err := p.want(); err != nil {
		return nil, err
	}
	select {
	case <-a.done:
		return a.link, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrDown, context.Cause(ctx))
	case <-p.ctx.Done():
		return nil, ErrClosed
	}
}

func (p *Peer) want() error {
	if p.ctx.Err() != nil {
		return ErrClosed
	}
	p.wanted.Store(true)
	select {
	case p.kick <- struct{}{}:
	default:
	}
	return nil
}

// run keeps the connection while somebody wants the peer.
func (p *Peer) run() {
	defer p.finish(nil, ErrClosed)
	wait := time.Duration(0)
	var until time.Time // dial again until then
	for {
		if p.wanted.Swap(false) {
			until = time.Now().Add(redialFor)
		} else if !time.Now().Before(until) {
			select {
			case <-p.kick:
				continue
			case <-p.ctx.Done():
				return
			}
		}
		began := time.Now()
		if l, err := p.dial(); err != nil {
			p.failed(err)
		} else {
			began = time.Now()
			p.use(l)
			until = time.Now().Add(redialFor)
		}
		if p.ctx.Err() != nil {
			return
		}
		if time.Since(began) > stable {
			wait = 0
		}
		wait = min(max(2*wait, backoffFirst), backoffLast)
		if !sleep(p.ctx, wait) {
			return
		}
	}
}

// sleep waits for d, more or less by a quarter, and is false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d*3/4 + rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dial makes one connection.
func (p *Peer) dial() (*link, error) {
	p.mu.Lock()
	p.dials++
	p.mu.Unlock()
	nc, g, err := p.t.openNode(p.ctx, kindPeer, p.node)
	if err != nil {
		return nil, err
	}
	return newLink(&p.t.cfg, p.t.conn(nc), g.remote()), nil
}

// use runs a connection to its end.
func (p *Peer) use(l *link) {
	stop := context.AfterFunc(p.ctx, func() { l.conn.Close(ErrClosed) })
	p.t.log.Info("peer connected", "peer", p.node, "boot", l.remote.Boot, "address", l.conn.RemoteAddr().String())
	p.link.Store(l)
	p.finish(l, nil)
	p.t.cfg.Acks.Ready(l.remote)
	cause := l.run()
	stop()
	p.link.Store(nil)
	p.mu.Lock()
	p.lost++
	p.lastErr = cause
	p.mu.Unlock()
	if p.ctx.Err() == nil {
		p.t.log.Warn("peer connection lost", "peer", p.node, "cause", cause)
	}
	p.t.cfg.Acks.Lost(l.remote, cause)
}

func (p *Peer) failed(err error) {
	p.mu.Lock()
	first := p.lastErr == nil || p.lastErr.Error() != err.Error()
	p.lastErr = err
	p.mu.Unlock()
	if first && p.ctx.Err() == nil {
		p.t.log.Warn("peer cannot be reached", "peer", p.node, "error", err)
	}
	p.finish(nil, fmt.Errorf("%w: %w", ErrDown, err))
}

// finish tells those who wait what came of the attempt.
func (p *Peer) finish(l *link, err error) {
	p.mu.Lock()
	a := p.attempt
	p.attempt = &attempt{done: make(chan struct{})}
	p.mu.Unlock()
	a.link, a.err = l, err
	close(a.done)
}
