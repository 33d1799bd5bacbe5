package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/peer"
	"github.com/facetd/facetd/placement"
)

// Peer is another node, as comparisons need it: *peer.Peer.
type Peer interface {
	Digests(ctx context.Context) (*peer.Digests, error)
	// Copies asks about at most peer.MaxItems facets, and has an answer for each.
	Copies(ctx context.Context, ids []facet.Incarnation) ([]peer.CopyState, error)
	Outvoted(ctx context.Context, id facet.Incarnation, at facet.Position) error
}

// Options are the settings of an Auditor. Zero values are the defaults.
type Options struct {
	Store *replica.Store            // required
	Table *placement.Table          // required
	Node  cluster.NodeID            // required: this node
	Peer  func(cluster.NodeID) Peer // required: reaches another node

	// Every is within what time each other node is compared with. Default DefaultEvery.
	Every time.Duration

	// Wake opens a facet this node owns, so that its members are brought what they lack.
	// InUse reports whether it is open anyway. Nil does without.
	Wake  func(context.Context, facet.Name) error
	InUse func(facet.Incarnation) bool
	// Damaged is told that a copy here was outvoted, when it is out of service. It must
	// not block. Nil is told nothing.
	Damaged func(facet.Incarnation)

	Logger *slog.Logger // default slog.Default()
}

// Auditor compares copies. See the package comment.
type Auditor struct {
	opts   Options
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	// Of the goroutine of run.
	silent map[cluster.NodeID]bool                       // nodes that did not answer when they were asked last
	bad    map[facet.Incarnation]map[cluster.NodeID]bool // copies that were not sound then
	told   int64                                         // endangered facets, as said last

	counts counts
}

type counts struct{ compared, asked, outvoted, undecided, woken, endangered atomic.Int64 }

// Stats are counters since the start, for metrics.
type Stats struct {
	Compared  int64 // nodes compared with
	Asked     int64 // facets that were looked at one by one
	Outvoted  int64 // copies that differed from a majority
	Undecided int64 // facets whose copies differ without a majority, as often as that was seen
	Woken     int64 // facets woken because copies were behind
	// Endangered is how many facets this node owns had fewer sound copies than a
	// majority of their members when that was looked at last.
	Endangered int64
}

// New makes an Auditor and begins. Close it before the store.
func New(opts Options) (*Auditor, error) {
	if opts.Store == nil || opts.Table == nil || opts.Node.IsZero() || opts.Peer == nil {
		return nil, errors.New("audit options: Store, Table, Node and Peer are required")
	}
	if opts.Every == 0 {
		opts.Every = DefaultEvery
	}
	if opts.Every < 0 {
		return nil, fmt.Errorf("audit options: every %v", opts.Every)
	}
	if opts.Wake == nil {
		opts.Wake = func(context.Context, facet.Name) error { return nil }
	}
	if opts.InUse == nil {
		opts.InUse = func(facet.Incarnation) bool { return false }
	}
	if opts.Damaged == nil {
		opts.Damaged = func(facet.Incarnation) {}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	a := &Auditor{opts: opts, log: opts.Logger, silent: map[cluster.NodeID]bool{}, bad: map[facet.Incarnation]map[cluster.NodeID]bool{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.wg.Go(a.run)
	return a, nil
}

// Close ends it. It may be called twice.
func (a *Auditor) Close() error {
	a.cancel()
	a.wg.Wait()
	return nil
}

// Stats tells what was done so far.
func (a *Auditor) Stats() Stats {
	c := &a.counts
	return Stats{
		Compared: c.compared.Load(), Asked: c.asked.Load(), Outvoted: c.outvoted.Load(),
		Undecided: c.undecided.Load(), Woken: c.woken.Load(), Endangered: c.endangered.Load(),
	}
}

// run compares with one node after the other, spread over the time there is.
func (a *Auditor) run() {
	for first := true; a.ctx.Err() == nil; first = false {
		var others []cluster.NodeID
		for _, n := range a.opts.Table.Nodes() {
			if n.ID != a.opts.Node {
				others = append(others, n.ID)
			}
		}
		step := a.opts.Every / time.Duration(max(len(others), 1))
		if first { // nodes that start together do not ask together
			a.sleep(rand.N(step) + 1)
		}
		began := time.Now()
		for i, id := range others {
			a.compare(id)
			a.count()
			a.sleep(time.Until(began.Add(time.Duration(i+1) * step)))
		}
		if len(others) == 0 {
			a.sleep(step)
		}
	}
}

func (a *Auditor) sleep(d time.Duration) {
	if d <= 0 || a.ctx.Err() != nil {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-a.ctx.Done():
	}
}

// shared calls f for the facets that owner owns, and self and with keep, as the table
// here says.
func (a *Auditor) shared(owner, self, with cluster.NodeID, f func(*placement.Facet)) {
	for row := range a.opts.Table.OwnedBy(owner) {
		if row.State == placement.Active && row.Active.Has(self) && row.Active.Has(with) {
			f(&row)
		}
	}
}

// Copy implements peer.Comparer.
func (a *Auditor) Copy(id facet.Incarnation) peer.CopyState {
	r, err := a.opts.Store.Replica(id)
	if err != nil {
		return peer.CopyState{}
	}
	m := r.Meta()
	return peer.CopyState{Held: true, Health: m.Health, Last: m.Last}
}

// Digests implements peer.Comparer.
func (a *Auditor) Digests(from peer.Remote) *peer.Digests {
	all, _ := a.digests(from.Node, from.Node)
	return all
}

// digests are those of the copies here of facets that owner owns and with keeps as well,
// and how many they are.
func (a *Auditor) digests(owner, with cluster.NodeID) (*peer.Digests, int) {
	all, n := new(peer.Digests), 0
	a.shared(owner, a.opts.Node, with, func(f *placement.Facet) {
		c := a.Copy(f.Incarnation)
		add(&all[f.Incarnation[0]], f.Incarnation, &c)
		n++
	})
	return all, n
}

// add takes a copy into a digest, in any order.
func add(d *peer.Digest, id facet.Incarnation, c *peer.CopyState) {
	b := append(make([]byte, 0, 64), id[:]...)
	if c.Held {
		b = append(b, 1+byte(c.Health))
	}
	sum := sha256.Sum256(c.Last.AppendBinary(b))
	for i := range d {
		d[i] ^= sum[i]
	}
}

// compare compares the copies of the facets that this node owns with those of another
// one.
func (a *Auditor) compare(with cluster.NodeID) {
	own, n := a.digests(a.opts.Node, with)
	if n == 0 {
		delete(a.silent, with)
		return
	}
	p := a.opts.Peer(with)
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	theirs, err := p.Digests(ctx)
	cancel()
	if err != nil {
		a.failed(with, err)
		return
	}
	delete(a.silent, with)
	a.counts.compared.Add(1)
	a.forget(with)
	var ids []facet.Incarnation
	a.shared(a.opts.Node, a.opts.Node, with, func(f *placement.Facet) {
		if b := f.Incarnation[0]; own[b] != theirs[b] && len(ids) < maxSuspects {
			ids = append(ids, f.Incarnation)
		}
	})
	suspects, err := a.differ(p, ids)
	if err != nil {
		a.failed(with, err)
		return
	}
	a.judgeAll(suspects)
}

// forget takes back what was found of a node's copies, which are judged anew, and of the
// own ones that are sound again.
func (a *Auditor) forget(node cluster.NodeID) {
	for id, nodes := range a.bad {
		delete(nodes, node)
		if a.Copy(id).Health == replica.Healthy {
			delete(nodes, a.opts.Node)
		}
		if f, ok := a.opts.Table.ByIncarnation(id); len(nodes) == 0 || !ok || f.Owner.Node != a.opts.Node {
			delete(a.bad, id)
		}
	}
}

func (a *Auditor) failed(with cluster.NodeID, err error) {
	if a.ctx.Err() != nil {
		return
	}
	a.silent[with] = true
	a.log.Debug("compare copies", "with", string(with), "error", err)
}

// differ asks a node about facets, and gives those of which it has something else.
func (a *Auditor) differ(p Peer, ids []facet.Incarnation) (out []facet.Incarnation, err error) {
	for part := range slices.Chunk(ids, peer.MaxItems) {
		theirs, err := a.ask(p, part)
		if err != nil {
			return nil, err
		}
		for i, id := range part {
			if own := a.Copy(id); own != theirs[i] || own.Health != replica.Healthy {
				out = append(out, id)
			}
		}
		a.sleep(askPause)
	}
	return out, nil
}

func (a *Auditor) ask(p Peer, ids []facet.Incarnation) ([]peer.CopyState, error) {
	ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
	defer cancel()
	a.counts.asked.Add(int64(len(ids)))
	return p.Copies(ctx, ids)
}

// judgeAll asks all members of facets what they have, and does what follows.
func (a *Auditor) judgeAll(ids []facet.Incarnation) {
	var wake []facet.Name
	for part := range slices.Chunk(ids, peer.MaxItems) {
		rows := make([]placement.Facet, 0, len(part))
		asked := map[cluster.NodeID][]facet.Incarnation{}
		for _, id := range part {
			f, ok := a.opts.Table.ByIncarnation(id)
			if !ok || f.State != placement.Active || f.Owner.Node != a.opts.Node {
				continue // it went elsewhere
			}
			rows = append(rows, f)
			for _, m := range f.Active.Members() {
				if m.Node != a.opts.Node {
					asked[m.Node] = append(asked[m.Node], id)
				}
			}
		}
		said := map[cluster.NodeID]map[facet.Incarnation]peer.CopyState{}
		for node, list := range asked {
			got, err := a.ask(a.opts.Peer(node), list)
			if err != nil {
				a.failed(node, err)
				continue
			}
			said[node] = make(map[facet.Incarnation]peer.CopyState, len(list))
			for i, id := range list {
				said[node][id] = got[i]
			}
		}
		for i := range rows {
			if a.decide(&rows[i], said) && len(wake) < maxWakes {
				wake = append(wake, rows[i].Name)
			}
		}
		a.sleep(askPause)
	}
	a.wake(wake)
}

// decide judges the copies of one facet. It reports whether the facet is to be woken,
// because copies are behind and nobody is about to bring them what they lack.
func (a *Auditor) decide(f *placement.Facet, said map[cluster.NodeID]map[facet.Incarnation]peer.CopyState) (wake bool) {
	members := f.Active.Members()
	copies := make([]copyOf, len(members))
	for i, m := range members {
		c := copyOf{node: m.Node}
		if m.Node == a.opts.Node {
			c.answered, c.CopyState = true, a.Copy(f.Incarnation)
		} else {
			c.CopyState, c.answered = said[m.Node][f.Incarnation]
		}
		copies[i] = c
	}
	v := judge(copies)
	delete(a.bad, f.Incarnation)
	for _, i := range v.bad {
		if len(a.bad) < maxSuspects {
			if a.bad[f.Incarnation] == nil {
				a.bad[f.Incarnation] = map[cluster.NodeID]bool{}
			}
			a.bad[f.Incarnation][copies[i].node] = true
		}
	}
	for _, i := range v.odd {
		a.outvoted(f, &copies[i])
	}
	if v.undecided {
		a.counts.undecided.Add(1)
		a.log.Error("copies of a facet differ and no content has a majority: compare them by hand, an export of each owner shows what it has",
			"facet", f.Name.String(), "incarnation", f.Incarnation.String(), "copies", fmt.Sprint(describe(copies)))
	}
	return v.behind && f.Bound && !a.opts.InUse(f.Incarnation)
}

func describe(copies []copyOf) (out []string) {
	for i := range copies {
		c := &copies[i]
		switch {
		case !c.answered:
			out = append(out, string(c.node)+": no answer")
		case !c.Held:
			out = append(out, string(c.node)+": none")
		default:
			out = append(out, fmt.Sprintf("%s: %v, %v", c.node, c.Last, c.Health))
		}
	}
	return out
}

// outvoted has a copy taken out of service.
func (a *Auditor) outvoted(f *placement.Facet, c *copyOf) {
	a.counts.outvoted.Add(1)
	a.log.Error("a copy of a facet differs from what a majority of its members has: it is taken out of service and replaced",
		"facet", f.Name.String(), "incarnation", f.Incarnation.String(), "node", string(c.node), "at", c.Last.String())
	err := error(nil)
	if c.node == a.opts.Node {
		err = a.quarantine(f.Incarnation, c.Last)
	} else {
		ctx, cancel := context.WithTimeout(a.ctx, askTimeout)
		defer cancel()
		err = a.opts.Peer(c.node).Outvoted(ctx, f.Incarnation, c.Last)
	}
	if err != nil && a.ctx.Err() == nil {
		a.log.Warn("take a copy out of service; it is compared again", "incarnation", f.Incarnation.String(), "node", string(c.node), "error", err)
	}
}

// Outvoted implements peer.Comparer. Only the owner of a facet judges its copies.
func (a *Auditor) Outvoted(from peer.Remote, id facet.Incarnation, at facet.Position) error {
	if f, ok := a.opts.Table.ByIncarnation(id); !ok || f.Owner.Node != from.Node {
		return fmt.Errorf("%w: node %s does not own the facet", peer.ErrRefused, from.Node)
	}
	return a.quarantine(id, at)
}

func (a *Auditor) quarantine(id facet.Incarnation, at facet.Position) error {
	r, err := a.opts.Store.Replica(id)
	if err == nil {
		err = r.Outvoted(at)
	}
	if err == nil {
		a.opts.Damaged(id)
	}
	return err
}

// wake opens facets some of whose copies are behind.
func (a *Auditor) wake(names []facet.Name) {
	var g errgroup.Group
	g.SetLimit(wakesAtOnce)
	for _, name := range names {
		g.Go(func() error {
			if a.ctx.Err() != nil {
				return nil
			}
			ctx, cancel := context.WithTimeout(a.ctx, wakeTimeout)
			defer cancel()
			if err := a.opts.Wake(ctx, name); err != nil {
				a.log.Debug("wake facet for a copy that is behind", "facet", name.String(), "error", err)
				return nil
			}
			a.counts.woken.Add(1)
			return nil
		})
	}
	_ = g.Wait() // they return no errors
}

// count looks how many facets have too few sound copies, as far as is known.
func (a *Auditor) count() {
	n, example := int64(0), ""
	for f := range a.opts.Table.OwnedBy(a.opts.Node) {
		if f.State != placement.Active {
			continue
		}
		sound, bad := 0, a.bad[f.Incarnation]
		for _, m := range f.Active.Members() {
			if !a.silent[m.Node] && !bad[m.Node] {
				sound++
			}
		}
		if sound < f.Active.Len()/2+1 {
			n++
			example = f.Name.String()
		}
	}
	a.counts.endangered.Store(n)
	if n > a.told {
		a.log.Error("facets have fewer sound copies than a majority of their members: the next loss may be one too many. Look at the nodes that keep them",
			"facets", n, "example", example)
	}
	a.told = n
}
