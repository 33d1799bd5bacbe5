package pages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/facetd/facetd/facet"
)

// memFile is a database file in memory.
type memFile struct {
	mu   sync.Mutex
	data []byte
	open bool
	sync int
}

func (m *memFile) ReadAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memFile) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if need := int(off) + len(p); need > len(m.data) {
		m.data = append(m.data, make([]byte, need-len(m.data))...)
	}
	return copy(m.data[off:], p), nil
}

func (m *memFile) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(size) <= len(m.data) {
		m.data = m.data[:size:size]
	} else {
		m.data = append(m.data, make([]byte, int(size)-len(m.data))...)
	}
	return nil
}

func (m *memFile) Size() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.data)), nil
}

func (m *memFile) Datasync() error { m.sync++; return nil }
func (m *memFile) Close() error    { m.open = false; return nil }

func (m *memFile) opener() func() (File, error) {
	return func() (File, error) { m.open = true; return m, nil }
}

var testID = facet.Incarnation{1, 2, 3}

// model is the naive truth: the whole database as one byte slice per version.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	file    *memFile
	store   *Store
	replica *Store
	rfile   *memFile
	now     []byte // committed content
	txn     []byte // content as the transaction sees it, nil outside one
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 1)), file: &memFile{}, rfile: &memFile{}}
	m.store = New(Base{}, m.file.opener())
	m.replica = New(Base{}, m.rfile.opener())
	return m
}

func (m *model) write() {
	if m.txn == nil {
		m.txn = bytes.Clone(m.now)
	}
	n := uint32(len(m.txn) / Size)
	p := m.rng.Uint32N(n+3) + 1
	page := make([]byte, Size)
	if p <= n {
		copy(page, m.txn[(p-1)*Size:])
	}
	switch m.rng.IntN(5) {
	case 0: // whole page
		for i := range page {
			page[i] = byte(m.rng.Uint32())
		}
	case 1: // zeros
		clear(page)
	case 2: // many scattered bytes
		for range 300 {
			page[m.rng.IntN(Size)] = byte(m.rng.Uint32())
		}
	default: // a few ranges
		for range 1 + m.rng.IntN(4) {
			at, l := m.rng.IntN(Size), 1+m.rng.IntN(256)
			for i := at; i < min(Size, at+l); i++ {
				page[i] = byte(m.rng.Uint32())
			}
		}
	}
	if err := m.store.WriteAt(page, int64(p-1)*Size); err != nil {
		m.t.Fatal(err)
	}
	if need := int(p) * Size; need > len(m.txn) {
		m.txn = append(m.txn, make([]byte, need-len(m.txn))...)
	}
	copy(m.txn[(p-1)*Size:], page)
}

func (m *model) truncate() {
	if m.txn == nil {
		m.txn = bytes.Clone(m.now)
	}
	n := m.rng.IntN(len(m.txn)/Size + 1)
	if err := m.store.Truncate(int64(n * Size)); err != nil {
		m.t.Fatal(err)
	}
	m.txn = m.txn[: n*Size : n*Size]
}

func (m *model) commit() {
	c, ok, err := m.store.Seal(testID, 7)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.txn != nil {
		if !ok && !bytes.Equal(m.now, m.txn) {
			m.t.Fatal("a change made no commit")
		}
		m.now = m.txn
	} else if ok {
		m.t.Fatal("a commit without a transaction")
	}
	m.txn = nil
	if !ok {
		return
	}
	raw := c.AppendBinary(nil)
	back, err := facet.DecodeCommit(testID, raw)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := Check(&back); err != nil {
		m.t.Fatal(err)
	}
	if err := m.replica.Apply(&back); err != nil {
		m.t.Fatal(err)
	}
}

func content(t *testing.T, s *Store) []byte {
	b := make([]byte, int(s.StagedPages())*Size)
	if n, err := s.ReadAt(b, 0); err != nil || n != len(b) {
		t.Fatal(n, err)
	}
	return b
}

func sumOf(b []byte) facet.Sum {
	var s facet.Sum
	for p := 0; p < len(b)/Size; p++ {
		s = s.Add(Hash(uint32(p+1), b[p*Size:(p+1)*Size]))
	}
	return s
}

func checkpoint(t *testing.T, s *Store, f *memFile, between func()) {
	c := s.Checkpoint()
	if c == nil {
		return
	}
	want := s.Pages()
	between()
	if err := c.Write(); err != nil {
		t.Fatal(err)
	}
	between()
	c.Done()
	if s.Base() != c.Base() || c.Base().Pages != want {
		t.Fatal("base did not move")
	}
}

// TestModel drives a store with random transactions, checkpoints at any moment
// and long-lived snapshots, and a replica that is fed only the commits.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(t, seed)
			type held struct {
				sn   *Snapshot
				want []byte
			}
			var snaps []held
			step := func() {
				switch k := m.rng.IntN(20); {
				case k < 9:
					m.write()
				case k == 9:
					m.truncate()
				case k < 15:
					m.commit()
				case k == 15:
					m.store.Discard()
					m.txn = nil
				case k == 16 && len(snaps) < 5:
					sn, err := m.store.Snapshot()
					if err != nil {
						t.Fatal(err)
					}
					snaps = append(snaps, held{sn, bytes.Clone(m.now)})
				case k == 17 && len(snaps) > 0:
					i := m.rng.IntN(len(snaps))
					var out bytes.Buffer
					if _, err := snaps[i].sn.WriteTo(&out); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(out.Bytes(), snaps[i].want) {
						t.Fatal("snapshot changed")
					}
					if m.rng.IntN(2) == 0 {
						snaps[i].sn.Close()
						snaps = append(snaps[:i], snaps[i+1:]...)
					}
				}
			}
			for range 400 {
				step()
				if m.rng.IntN(25) == 0 {
					checkpoint(t, m.store, m.file, func() {
						for range m.rng.IntN(12) {
							step()
						}
					})
				}
				if m.rng.IntN(40) == 0 {
					checkpoint(t, m.replica, m.rfile, func() {})
				}
				want := m.now
				if m.txn != nil {
					want = m.txn
				}
				if !bytes.Equal(content(t, m.store), want) {
					t.Fatal("store differs from the model")
				}
				if !bytes.Equal(content(t, m.replica), m.now) {
					t.Fatal("replica differs from the model")
				}
				if s := sumOf(m.now); m.store.Position().Sum != s || m.replica.Position() != m.store.Position() {
					t.Fatalf("sum %v, want %v", m.store.Position(), s)
				}
			}
			for _, h := range snaps {
				h.sn.Close()
			}
			m.store.Discard()
			checkpoint(t, m.store, m.file, func() {})
			if len(m.now) > 0 && !bytes.Equal(m.file.data[:m.store.Pages()*Size], m.now[:m.store.Pages()*Size]) {
				t.Fatal("file differs after checkpoint")
			}
			m.store.Close()
			if m.file.open {
				t.Fatal("file left open")
			}
		})
	}
}

// TestTornCheckpoint stops a checkpoint at every page, garbles the page under
// way, and recovers from the images and the log.
func TestTornCheckpoint(t *testing.T) {
	for seed := range uint64(30) {
		m := newModel(t, 1000+seed)
		for range 20 {
			m.write()
		}
		m.commit()
		checkpoint(t, m.store, m.file, func() {})
		base := m.store.Base()
		var log []facet.Commit
		for range 5 {
			for range 4 {
				m.write()
			}
			if m.rng.IntN(3) == 0 {
				m.truncate()
				m.write()
			}
			c, ok, err := m.store.Seal(testID, 7)
			if err != nil {
				t.Fatal(err)
			}
			m.now, m.txn = m.txn, nil
			if ok {
				c.Pages = bytes.Clone(c.Pages)
				log = append(log, c)
			}
		}
		c := m.store.Checkpoint()
		var images [][]byte
		for after, more := uint32(0), true; more; {
			var enc []byte
			enc, after, more = c.Overwritten(nil, after, 3*Size)
			images = append(images, enc)
		}
		torn := &memFile{data: bytes.Clone(m.file.data)}
		if err := c.Write(); err != nil {
			t.Fatal(err)
		}
		for p := 0; p < len(torn.data)/Size && p < len(m.file.data)/Size; p++ {
			if bytes.Equal(torn.data[p*Size:(p+1)*Size], m.file.data[p*Size:(p+1)*Size]) {
				continue
			}
			switch m.rng.IntN(3) {
			case 0:
				copy(torn.data[p*Size:(p+1)*Size], m.file.data[p*Size:])
			case 1:
				for i := range Size {
					torn.data[p*Size+i] = byte(m.rng.Uint32())
				}
			}
		}
		for _, im := range images {
			if err := Restore(torn, im); err != nil {
				t.Fatal(err)
			}
		}
		if m.rng.IntN(2) == 0 { // pages of the new end may not have reached the disk
			torn.Truncate(min(int64(len(torn.data)), int64(base.Pages)*Size))
		}
		err := Finish(torn, base, c.Base(), func(yield func(*facet.Commit, error) bool) {
			for i := range log {
				if !yield(&log[i], nil) {
					return
				}
			}
		})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(torn.data, m.now) {
			t.Fatalf("seed %d: file differs", seed)
		}
	}
}

// TestRot finds a page of the file that changed behind the store's back.
func TestRot(t *testing.T) {
	m := newModel(t, 5)
	for range 10 {
		m.write()
	}
	m.commit()
	checkpoint(t, m.store, m.file, func() {})
	page := bytes.Clone(m.now[:Size])
	page[17]++
	if err := m.store.WriteAt(page, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.store.Seal(testID, 7); err != nil {
		t.Fatal(err)
	}
	c := m.store.Checkpoint()
	m.file.data[100] ^= 1
	if err := c.Write(); !errors.Is(err, ErrDiverged) {
		t.Fatalf("got %v", err)
	}
}

// TestRefusals covers what a store must not take.
func TestRefusals(t *testing.T) {
	m := newModel(t, 6)
	for range 10 {
		m.write()
	}
	c, _, err := m.store.Seal(testID, 7)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("gap", func(t *testing.T) {
		bad := c
		bad.Seq++
		if err := m.replica.Apply(&bad); !errors.Is(err, ErrGap) {
			t.Fatal(err)
		}
	})
	t.Run("diverged", func(t *testing.T) {
		bad := c
		bad.PostSum.Lo++
		if err := m.replica.Apply(&bad); !errors.Is(err, ErrDiverged) {
			t.Fatal(err)
		}
	})
	t.Run("malformed", func(t *testing.T) {
		bad := c
		bad.Pages = bytes.Clone(c.Pages)
		for i := range bad.Pages {
			bad.Pages[i] = 0xff
		}
		if err := m.replica.Apply(&bad); !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
	})
	if m.replica.Pages() != 0 || m.replica.Dirty() != 0 {
		t.Fatal("a refused commit left a trace")
	}
	if err := m.replica.Apply(&c); err != nil {
		t.Fatal(err)
	}
	t.Run("full", func(t *testing.T) {
		m.store.SetMaxPages(m.store.Pages())
		if err := m.store.WriteAt(make([]byte, Size), int64(m.store.Pages())*Size); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	})
	t.Run("unaligned", func(t *testing.T) {
		if m.store.WriteAt(make([]byte, 100), 0) == nil || m.store.WriteAt(make([]byte, Size), 5) == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("large", func(t *testing.T) {
		s := New(Base{}, (&memFile{}).opener())
		buf := make([]byte, 1<<20)
		var err error
		for off := int64(0); err == nil && off < 80<<20; off += int64(len(buf)) {
			err = s.WriteAt(buf, off)
		}
		if !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	})
}

func FuzzApply(f *testing.F) {
	m := newModel(&testing.T{}, 9)
	for range 6 {
		m.write()
	}
	c, _, _ := m.store.Seal(testID, 7)
	f.Add(c.Pages, c.DBPages)
	f.Fuzz(func(t *testing.T, enc []byte, n uint32) {
		c := facet.Commit{Kind: facet.KindCommit, Epoch: 1, Seq: 1, DBPages: n % 4096, Pages: enc}
		s := New(Base{}, (&memFile{}).opener())
		checked := Check(&c)
		err := s.Apply(&c)
		if err == nil && checked != nil || errors.Is(err, ErrMalformed) != (checked != nil) {
			t.Fatalf("Apply: %v, Check: %v", err, checked)
		}
		if err != nil && (s.Dirty() != 0 || s.Pages() != 0) {
			t.Fatal("a refused commit left a trace")
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := New(Base{}, (&memFile{}).opener())
	page := make([]byte, Size)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range page {
		page[i] = byte(rng.Uint32())
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		at := (i * 260) % (Size - 300)
		page[3]++
		page[at]++
		page[at+255]++
		if err := s.WriteAt(page, 4*Size); err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Seal(testID, 1); err != nil {
			b.Fatal(err)
		}
	}
}
