package replica

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	storeID = [16]byte{1, 2, 3}
	bootA   = Boot{0xa}
	bootB   = Boot{0xb}
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func options(fs disk.FS) Options {
	return Options{
		FS: fs, Dir: "data", StoreID: storeID, Logger: quiet(),
		Log:   commitlog.Options{SegmentBytes: 64 << 10, LowWaterBytes: -1, ReserveBytes: 16 << 10},
		Fatal: func(error) {},
	}
}

func mustOpen(t testing.TB, opts Options) (*Store, Report) {
	t.Helper()
	s, report, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, report
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testID(n int) facet.Incarnation {
	return facet.Incarnation{byte(n * 37), byte(n), byte(n >> 8), byte(n >> 16), 15: 1}
}

// acks remembers what was acknowledged.
type acks struct {
	mu   sync.Mutex
	list []tail // session epoch and seq
}

func (a *acks) Acked(_ facet.Incarnation, epoch facet.Epoch, seq facet.Seq) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, tail{epoch, seq})
}

func (a *acks) top() (t tail) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.list) > 0 {
		t = a.list[len(a.list)-1]
	}
	return t
}

func (a *acks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.list)
}

// content is the whole committed database of a store.
func content(t testing.TB, p *pages.Store) []byte {
	t.Helper()
	sn, err := p.Snapshot()
	check(t, err)
	defer sn.Close()
	var b bytes.Buffer
	_, err = sn.WriteTo(&b)
	check(t, err)
	return b.Bytes()
}

// change writes something random into the stage of p.
func change(rng *rand.Rand, p *pages.Store) error {
	for range 1 + rng.IntN(3) {
		size := int64(p.StagedPages())
		var page [pages.Size]byte
		at := rng.Int64N(size + 1)
		if _, err := p.ReadAt(page[:], at*pages.Size); err != nil {
			return err
		}
		off, n := rng.IntN(pages.Size-64), 1+rng.IntN(60)
		for i := range n {
			page[off+i] = byte(rng.Uint32())
		}
		if err := p.WriteAt(page[:], at*pages.Size); err != nil {
			return err
		}
	}
	if n := p.StagedPages(); n > 6 || n > 2 && rng.IntN(8) == 0 {
		return p.Truncate(int64(1+rng.IntN(int(n)-1)) * pages.Size)
	}
	return nil
}

// history is the naive model of one facet: every entry ever made, what it follows,
// and the database after it.
type history struct {
	id       facet.Incarnation
	commits  map[tail]*facet.Commit
	contents map[tail][]byte
}

func newHistory(id facet.Incarnation) *history {
	return &history{id: id, commits: map[tail]*facet.Commit{}, contents: map[tail][]byte{{}: nil}}
}

// add remembers an entry and the database after it.
func (h *history) add(c *facet.Commit, content []byte) *facet.Commit {
	k := *c
	k.Pages = bytes.Clone(c.Pages)
	h.commits[tailOf(c.Position())], h.contents[tailOf(c.Position())] = &k, content
	return &k
}

// chain is the log that ends at end, from the first entry.
func (h *history) chain(end tail) []*facet.Commit {
	var list []*facet.Commit
	for end.seq > 0 {
		c := h.commits[end]
		if c == nil {
			panic(fmt.Sprintf("no entry %v in the model", end))
		}
		list = append(list, c)
		end = tail{c.PrevEpoch, c.Seq - 1}
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// store builds the pages at end from nothing but the model's entries.
func (h *history) store(t testing.TB, end tail) *pages.Store {
	t.Helper()
	p := pages.New(pages.Base{}, func() (pages.File, error) { return nil, fmt.Errorf("no file") })
	for _, c := range h.chain(end) {
		check(t, p.Apply(c))
	}
	return p
}

// owner runs a facet the way an owner does, on one replica.
type owner struct {
	t     testing.TB
	rng   *rand.Rand
	r     Replica
	h     *history
	epoch facet.Epoch
	pages *pages.Store
	acks  *acks
}

// newOwner prepares the next epoch, opens the facet and appends the barrier.
func newOwner(t testing.TB, s *Store, id facet.Incarnation, epoch facet.Epoch) *owner {
	t.Helper()
	check(t, s.Wait(context.Background(), 0))
	r, err := s.Create(id)
	check(t, err)
	p, err := s.Prepare(context.Background(), id, epoch, bootA)
	check(t, err)
	o := &owner{t: t, rng: rand.New(rand.NewPCG(1, uint64(epoch))), r: r, h: newHistory(id), epoch: epoch, acks: &acks{}}
	o.pages, err = r.Open(context.Background(), true)
	check(t, err)
	if o.pages.Position() != p.Last {
		t.Fatalf("opened at %v, promised at %v", o.pages.Position(), p.Last)
	}
	o.h.contents[tailOf(p.Last)] = content(t, o.pages)
	b := o.pages.Barrier(id, epoch)
	check(t, o.append(&b))
	return o
}

func (o *owner) append(c *facet.Commit) error {
	k := o.h.add(c, content(o.t, o.pages))
	return o.r.s.patient(context.Background(), func() error { return o.r.Append(o.epoch, bootA, k, 0, o.acks) })
}

// commit makes one random transaction.
func (o *owner) commit() *facet.Commit {
	o.t.Helper()
	for {
		check(o.t, change(o.rng, o.pages))
		c, ok, err := o.pages.Seal(o.r.ID(), o.epoch)
		check(o.t, err)
		if ok {
			check(o.t, o.append(&c))
			return o.h.commits[tailOf(c.Position())]
		}
	}
}

func (o *owner) checkpoint() {
	o.t.Helper()
	if cp := o.pages.Checkpoint(); cp != nil {
		check(o.t, o.r.Checkpoint(context.Background(), cp))
		cp.Done()
	}
}
