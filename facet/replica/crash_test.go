package replica

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

var (
	crashSeed = flag.Uint64("crash.seed", 0, "run only this seed of the crash sweep")
	crashRuns = flag.Int("crash.runs", 400, "seeds of the crash sweep")
)

// TestCrashSweep runs random workloads on several facets, cuts the power at a
// random operation of the disk with every kind of loss, and compares what the next
// start finds with a naive model; then it goes on from there, three lives long.
func TestCrashSweep(t *testing.T) {
	if *crashSeed != 0 {
		crashRun(t, *crashSeed)
		return
	}
	n := *crashRuns
	if testing.Short() {
		n /= 8
	}
	for seed := uint64(1); seed <= uint64(n) && !t.Failed(); seed++ {
		crashRun(t, seed)
	}
}

// crashed ends a life: the disk is gone.
type crashed struct{ err error }

func crashRun(t *testing.T, seed uint64) {
	w := &world{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), facets: map[int]*modelled{}, single: seed%4 == 0}
	mem := disk.NewMem()
	for life := range 4 {
		if life > 0 || w.rng.IntN(8) == 0 {
			mem.CrashAt(1 + w.rng.Int64N(300))
		} else {
			mem.CrashAt(270 + w.rng.Int64N(500))
		}
		opts := options(mem)
		opts.SingleNode = w.single
		opts.Log.SegmentBytes = 32 << 10
		opts.Logger = slog.New(slog.NewTextHandler(w, nil))
		s, report, err := Open(opts)
		if err == nil {
			if w.verify(s, report) {
				w.life(s)
			}
			s.Close()
			if t.Failed() {
				return
			}
		} else if !errors.Is(err, disk.ErrCrashed) {
			t.Errorf("seed %d, life %d: open: %v", seed, life, err)
			return
		}
		loss := disk.Loss(w.rng.IntN(int(disk.TearGarbage) + 1))
		w.note("crash with loss %d", loss)
		mem = mem.Crash(w.rng, loss)
	}
	opts := options(mem)
	opts.SingleNode = w.single
	opts.Logger = slog.New(slog.NewTextHandler(w, nil))
	s, report, err := Open(opts)
	if err != nil {
		t.Errorf("seed %d: last open: %v", seed, err)
		return
	}
	if !w.verify(s, report) && !t.Failed() {
		t.Errorf("seed %d: the last start died on a disk that does not crash", seed)
	}
	s.Close()
}

type world struct {
	t      *testing.T
	seed   uint64
	rng    *rand.Rand
	s      *Store
	single bool
	facets map[int]*modelled
	epoch  facet.Epoch

	mu    sync.Mutex
	trace []string
	acked []noted
}

// modelled is one facet and what must be true of it.
type modelled struct {
	n       int
	h       *history
	r       Replica
	created bool // durably
	tried   bool
	epoch   facet.Epoch // of the session under way in this life
	placed  facet.Epoch // highest epoch a promise was placed or tried for
	promise facet.Epoch // highest promise reported durable
	end     tail        // of the log as placed
	must    tail        // newest entry acknowledged and not cut off since
	known   tail        // told to be committed
	pages   *pages.Store
	dying   bool // a tombstone was tried
	dead    bool // it is durable
	leaving bool // a drop was tried
	left    bool // it is durable, and no copy was begun since
}

// Write makes the world the destination of the store's logger.
func (w *world) Write(p []byte) (int, error) {
	w.note("%s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	from := max(0, len(w.trace)-60)
	for _, line := range w.trace[from:] {
		w.t.Log(line)
	}
	w.t.Errorf("seed %d: %s (rerun with -crash.seed %d)", w.seed, fmt.Sprintf(format, args...), w.seed)
}

// ok ends the life if err is of the crash, and the test on any other error.
func (w *world) ok(err error) {
	w.t.Helper()
	if err == nil {
		return
	}
	if !errors.Is(err, disk.ErrCrashed) && !errors.Is(err, ErrClosed) && w.s.alive() == nil {
		w.fatalf("%v", err)
	}
	panic(crashed{err})
}

// died takes note of a life that ended, and passes any other panic on.
func (w *world) died(how string, value any) bool {
	switch v := value.(type) {
	case nil:
		return false
	case crashed:
		w.note("%s: %v", how, v.err)
		return true
	}
	panic(value)
}

func (w *world) life(s *Store) {
	w.s = s
	defer func() {
		w.died("died", recover())
		for _, m := range w.each() {
			if m.pages != nil {
				m.pages.Close()
				m.pages = nil
			}
		}
	}()
	for range 60 {
		w.step()
		if w.t.Failed() {
			return
		}
	}
}

func (w *world) step() {
	n := w.rng.IntN(4)
	m := w.facets[n]
	if m == nil {
		m = &modelled{n: n, h: newHistory(testID(n))}
		w.facets[n] = m
	}
	if m.dying {
		if !m.dead && m.r.s == w.s {
			w.ok(m.r.Tomb(ctx, time.Unix(1, 0)))
			m.dead = true
		}
		w.collect()
		return
	}
	if !m.tried || m.r.s != w.s {
		m.tried = true
		w.note("create %d", n)
		r, err := w.s.Create(testID(n))
		for errors.Is(err, ErrBusy) {
			w.ok(w.s.Wait(ctx, 0))
			r, err = w.s.Create(testID(n))
		}
		w.ok(err)
		m.r = r
		if e, _ := r.Promised(); e < m.promise || e > m.placed {
			w.fatalf("facet %d: a new copy has promised %v, was %v, at most %v", n, e, m.promise, m.placed)
		}
		w.ok(w.s.Sync(ctx))
		m.created, m.left = true, false
		return
	}
	if m.pages == nil {
		w.closed(m)
		return
	}
	switch w.rng.IntN(12) {
	default:
		w.commit(m)
	case 0:
		w.settle()
	case 1, 2:
		w.checkpoint(m)
	case 3:
		w.note("close %d", n)
		w.ok(m.r.Close(m.pages))
		m.pages = nil
	case 4:
		w.resend(m)
	case 5:
		w.collect()
	case 6:
		w.note("session %d", n)
		w.ok(m.r.Close(m.pages))
		m.pages = nil
		w.session(m)
	}
}

// closed does something with a facet nobody has open.
func (w *world) closed(m *modelled) {
	switch w.rng.IntN(8) {
	default:
		w.session(m)
	case 0:
		w.note("checkpoint idle %d", m.n)
		w.ok(m.r.CheckpointIdle(ctx))
	case 1, 2:
		w.foreign(m)
	case 3:
		w.install(m)
	case 5:
		w.drop(m)
	case 4:
		if w.rng.IntN(4) == 0 {
			w.note("tomb %d", m.n)
			m.dying = true
			w.ok(m.r.Tomb(ctx, time.Unix(1, 0)))
			m.dead = true
		}
	}
}

// drop takes the facet off the store, now and then with entries under way.
func (w *world) drop(m *modelled) {
	if w.rng.IntN(2) == 0 {
		w.settle()
	}
	w.note("drop %d", m.n)
	m.leaving = true
	placed, _ := m.r.Promised()
	w.ok(m.r.Drop(ctx, placed))
	m.promise = placed // with the drop it is durable
	w.dropped(m)
}

// dropped checks that nothing but the promise is left, and forgets the rest too.
func (w *world) dropped(m *modelled) {
	switch _, err := w.s.fs.Stat(w.s.dbName(m.h.id)); {
	case errors.Is(err, os.ErrNotExist):
	case errors.Is(err, disk.ErrCrashed):
		panic(crashed{err}) // the look is an operation of the disk, too
	default:
		w.fatalf("the file of dropped facet %d: %v", m.n, err)
	}
	w.mu.Lock()
	w.acked = slices.DeleteFunc(w.acked, func(n noted) bool { return n.m == m })
	w.mu.Unlock()
	*m = modelled{n: m.n, h: newHistory(m.h.id), promise: m.promise, placed: m.placed, left: true}
}

func (w *world) nextEpoch(m *modelled) {
	w.epoch++
	m.epoch, m.placed = w.epoch, w.epoch
}

// session takes the facet over here: promise, adopt what is there, barrier.
func (w *world) session(m *modelled) {
	w.nextEpoch(m)
	w.note("session %d epoch %d", m.n, m.epoch)
	p, err := w.s.Prepare(ctx, m.h.id, m.epoch, bootA)
	w.ok(err)
	m.promise = m.epoch
	if tailOf(p.Last) != m.end {
		w.fatalf("promise says the log ends at %v, model says %v", p.Last, m.end)
		panic(crashed{})
	}
	m.pages, err = m.r.Open(ctx, true)
	w.ok(err)
	w.same(m, m.pages)
	b := m.pages.Barrier(m.h.id, m.epoch)
	w.append(m, m.h.add(&b, m.h.contents[m.end]))
}

// same compares an open store with the model.
func (w *world) same(m *modelled, p *pages.Store) {
	sn, err := p.Snapshot()
	w.ok(err)
	defer sn.Close()
	var b bytes.Buffer
	_, err = sn.WriteTo(&b)
	w.ok(err)
	want, ok := m.h.contents[tailOf(p.Position())]
	if !ok || !bytes.Equal(b.Bytes(), want) {
		w.fatalf("facet %d at %v: %d bytes differ from the %d of the model (known: %v)", m.n, p.Position(), b.Len(), len(want), ok)
		panic(crashed{})
	}
}

// append sends an entry and takes note of its acknowledgement when it comes.
func (w *world) append(m *modelled, c *facet.Commit) {
	if c.Seq <= m.end.seq { // a cut, if another epoch stands there
		for _, old := range m.h.chain(m.end) {
			if old.Seq == c.Seq && old.Epoch != c.Epoch {
				m.end = tail{c.PrevEpoch, c.Seq - 1}
				if m.must.seq > m.end.seq {
					m.must = m.end
				}
			}
		}
	}
	known := m.known.seq
	if w.rng.IntN(3) == 0 && m.must.seq > known {
		m.known, known = m.must, m.must.seq
	}
	w.note("append %d %v (prev %v) in epoch %d, known %d", m.n, c.Position(), c.PrevEpoch, m.epoch, known)
	if c.Seq > m.end.seq {
		m.end = tailOf(c.Position())
	}
	w.send(m, c, known)
}

func (w *world) send(m *modelled, c *facet.Commit, known facet.Seq) {
	err := m.r.Append(m.epoch, bootA, c, known, noted{w, m, tailOf(c.Position())})
	for errors.Is(err, ErrBusy) {
		w.ok(w.s.Wait(ctx, c.EncodedLen()))
		err = m.r.Append(m.epoch, bootA, c, known, noted{w, m, tailOf(c.Position())})
	}
	w.ok(err)
}

// noted takes down that one entry was acknowledged.
type noted struct {
	w *world
	m *modelled
	t tail
}

func (n noted) Acked(_ facet.Incarnation, _ facet.Epoch, seq facet.Seq) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if seq != n.t.seq {
		n.w.trace = append(n.w.trace, fmt.Sprintf("acknowledged %v for %v", seq, n.t))
		n.t.seq = 1 << 60 // drain fails on it
	}
	n.w.acked = append(n.w.acked, n)
}

// drain raises what must be there by what was acknowledged and not cut off since.
func (w *world) drain() {
	w.mu.Lock()
	list := w.acked
	w.acked = nil
	w.mu.Unlock()
	for _, n := range list {
		if n.t.seq == 1<<60 {
			w.fatalf("acknowledgement of another entry")
			return
		}
		for _, c := range n.m.h.chain(n.m.end) {
			if tailOf(c.Position()) == n.t && n.t.seq > n.m.must.seq {
				n.m.must = n.t
			}
		}
	}
}

func (w *world) commit(m *modelled) {
	before := m.end
	for {
		w.ok(change(w.rng, m.pages))
		c, ok, err := m.pages.Seal(m.h.id, m.epoch)
		w.ok(err)
		if !ok {
			continue
		}
		w.append(m, m.h.add(&c, apply(w, m, before, m.pages)))
		break
	}
	if w.rng.IntN(3) == 0 {
		w.settle()
	}
}

func apply(w *world, m *modelled, _ tail, p *pages.Store) []byte {
	sn, err := p.Snapshot()
	w.ok(err)
	defer sn.Close()
	var b bytes.Buffer
	_, err = sn.WriteTo(&b)
	w.ok(err)
	return b.Bytes()
}

// settle waits for everything: all that is placed is acknowledged then.
func (w *world) settle() {
	w.note("settle")
	w.ok(w.s.Sync(ctx))
	w.drain()
	for _, m := range w.each() {
		if m.r.s == w.s && !m.dying {
			if m.must != m.end {
				w.fatalf("facet %d: everything is durable, but only %v of %v was acknowledged", m.n, m.must, m.end)
				panic(crashed{})
			}
			m.promise = max(m.promise, m.r.Meta().Promised)
		}
	}
}

func (w *world) checkpoint(m *modelled) {
	if !w.single {
		w.settle()
		m.known = m.must
		w.ok(m.r.Known(m.epoch, bootA, m.pages.Position()))
	}
	cp := m.pages.Checkpoint()
	if cp == nil {
		return
	}
	w.note("checkpoint %d at %v", m.n, cp.Base().Position)
	if w.rng.IntN(2) == 0 { // commits go on meanwhile
		w.commit(m)
	}
	w.ok(m.r.Checkpoint(ctx, cp))
	cp.Done()
	m.known = tailOf(cp.Base().Position)
	if m.must.seq < m.known.seq {
		m.must = m.known
	}
	w.same(m, m.pages)
}

// resend sends an old entry again.
func (w *world) resend(m *modelled) {
	list := m.h.chain(m.end)
	if len(list) > 0 {
		c := list[w.rng.IntN(len(list))]
		w.note("resend %d %v", m.n, c.Position())
		w.send(m, c, 0)
	}
}

// foreign is a session of an owner elsewhere that adopted a shorter log: the tail
// that is not known to be committed is cut off.
func (w *world) foreign(m *modelled) {
	w.settle()
	list := m.h.chain(m.end)
	lowest := max(m.known.seq, m.r.Meta().CommitKnown, m.r.Meta().Base.Seq)
	if facet.Seq(len(list)) < lowest || w.single && len(list) > 0 {
		return
	}
	keep := lowest + facet.Seq(w.rng.IntN(len(list)-int(lowest)+1))
	at := tail{}
	if keep > 0 {
		at = tailOf(list[keep-1].Position())
	}
	w.nextEpoch(m)
	p := m.h.store(w.t, at)
	b := p.Barrier(m.h.id, m.epoch)
	w.note("foreign session %d epoch %d keeps up to %v", m.n, m.epoch, at)
	w.append(m, m.h.add(&b, m.h.contents[at]))
	for range w.rng.IntN(3) {
		w.ok(change(w.rng, p))
		c, ok, err := p.Seal(m.h.id, m.epoch)
		w.ok(err)
		if ok {
			w.append(m, m.h.add(&c, apply(w, m, at, p)))
		}
	}
}

// install sends a snapshot of a log that went on elsewhere.
func (w *world) install(m *modelled) {
	if w.single && m.end.seq > 0 {
		return
	}
	w.settle()
	w.nextEpoch(m)
	p := m.h.store(w.t, m.known)
	b := p.Barrier(m.h.id, m.epoch)
	m.h.add(&b, m.h.contents[m.known])
	for range 1 + w.rng.IntN(3) {
		w.ok(change(w.rng, p))
		c, ok, err := p.Seal(m.h.id, m.epoch)
		w.ok(err)
		if ok {
			m.h.add(&c, apply(w, m, m.known, p))
		}
	}
	at := p.Position()
	w.note("install %d %v in epoch %d", m.n, at, m.epoch)
	// Until it is answered the log may end as before or with the snapshot.
	m.must = m.known
	m.end = tailOf(at)
	_, err := m.r.Install(ctx, Snapshot{
		Epoch: m.epoch, Boot: bootA, Position: at, Source: bytes.NewReader(m.h.contents[tailOf(at)]),
	})
	w.ok(err)
	m.must, m.known, m.promise = m.end, m.end, m.epoch
}

func (w *world) collect() {
	w.note("collect")
	w.settle()
	c, err := w.s.Collect(ctx)
	w.ok(err)
	w.note("collected %+v", c)
	for _, id := range c.Pins {
		if r, err := w.s.Replica(id); err == nil && w.rng.IntN(2) == 0 {
			if err := r.CheckpointIdle(ctx); err != nil && !errors.Is(err, ErrOpen) && !errors.Is(err, ErrNotKnown) {
				w.ok(err)
			}
		}
	}
}

// verify compares what a start found with the model. It is false when the disk
// crashed meanwhile, or the test failed: the model then knows no better than
// before what the rest of the facets hold, so there is no life to lead. The store
// would not notice at once, since calls that need no disk succeed.
func (w *world) verify(s *Store, report Report) (alive bool) {
	w.note("open: %+v", report)
	w.s = s
	w.drain()
	defer func() {
		if w.died("died while verifying", recover()) {
			alive = false
		}
	}()
	if report.Holed > 0 {
		w.fatalf("%d facets are holed after a power cut", report.Holed)
		return false
	}
	for _, m := range w.each() {
		w.verifyFacet(m)
		if w.t.Failed() {
			return false
		}
	}
	return true
}

// each lists the facets in the order of their numbers: which operation of the disk
// is the last depends on the order, and a seed is to give the same run again.
func (w *world) each() []*modelled {
	var list []*modelled
	for _, n := range slices.Sorted(maps.Keys(w.facets)) {
		list = append(list, w.facets[n])
	}
	return list
}

func (w *world) verifyFacet(m *modelled) {
	m.pages = nil
	r, err := w.s.Replica(m.h.id)
	switch {
	case errors.Is(err, ErrDeleted) && m.dying:
		return
	case m.dead:
		w.fatalf("deleted facet %d came back", m.n)
		return
	case errors.Is(err, ErrUnknown) && (m.leaving || m.left):
		w.dropped(m)
		return
	case err == nil && m.left && !m.tried:
		w.fatalf("dropped facet %d came back", m.n)
		return
	case errors.Is(err, ErrUnknown) && !m.created:
		*m = modelled{n: m.n, h: m.h}
		return
	case err != nil:
		w.fatalf("facet %d: %v", m.n, err)
		return
	}
	m.r, m.dying, m.leaving = r, false, false
	if m.left { // the new copy was tried, and is there
		m.left, m.created = false, true
	}
	meta := r.Meta()
	if meta.Promised < m.promise || meta.Promised > m.placed {
		w.fatalf("facet %d: promised %v, was %v, at most %v", m.n, meta.Promised, m.promise, m.placed)
	}
	end := tailOf(meta.Last)
	if _, ok := m.h.contents[end]; !ok {
		w.fatalf("facet %d ends at %v, where it never was", m.n, meta.Last)
		return
	}
	if m.must.seq > 0 {
		found := false
		for _, c := range m.h.chain(end) {
			found = found || tailOf(c.Position()) == m.must
		}
		if !found {
			w.fatalf("facet %d ends at %v and lacks the acknowledged %v", m.n, meta.Last, m.must)
			return
		}
	}
	m.end, m.promise = end, meta.Promised
	if meta.Base.Seq > m.known.seq { // of an install that was under way
		m.known = tailOf(meta.Base)
	}
	w.ok(r.Scrub(ctx, nil))
	p, err := r.Open(ctx, true)
	w.ok(err)
	if tailOf(p.Position()) != end {
		w.fatalf("facet %d opened at %v, ends at %v", m.n, p.Position(), meta.Last)
	}
	w.same(m, p)
	w.ok(r.Close(p))
	m.must = m.end // found by a start, so durable: it must stay
}
