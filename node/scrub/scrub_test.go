package scrub

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/commitlog"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// room is a store with files to be read.
type room struct {
	t     testing.TB
	mem   *disk.Mem
	store *replica.Store

	mu    sync.Mutex
	found map[facet.Incarnation]time.Time
}

func newRoom(t testing.TB) *room {
	r := &room{t: t, mem: disk.NewMem(), found: map[facet.Incarnation]time.Time{}}
	r.open()
	return r
}

func (r *room) open() {
	r.t.Helper()
	var err error
	r.store, _, err = replica.Open(replica.Options{
		FS: r.mem, Dir: "data", StoreID: [16]byte{1}, SingleNode: true, Logger: slog.New(slog.DiscardHandler),
		Log:   commitlog.Options{SegmentBytes: 256 << 10, LowWaterBytes: -1, ReserveBytes: 16 << 10},
		Fatal: func(err error) { r.t.Error("fatal:", err) },
	})
	r.check(err)
}

func (r *room) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// add makes a facet of n pages.
func (r *room) add(id facet.Incarnation, n int) {
	r.t.Helper()
	r.check(r.store.Wait(context.Background(), 64<<10)) // a burst of creations may have to wait for a segment
	x, err := r.store.Create(id)
	r.check(err)
	_, err = x.Install(context.Background(), replica.Snapshot{
		Epoch: 1, Boot: replica.Boot{1}, Position: facet.Position{Epoch: 1, Seq: 1},
		Source: io.LimitReader(rand.NewChaCha8([32]byte(bytes.Repeat(id[:], 2))), int64(n)*facet.PageSize), ComputeSum: true,
	})
	r.check(err)
}

func (r *room) rot(id facet.Incarnation) {
	r.t.Helper()
	r.check(r.mem.Corrupt(fmt.Sprintf("data/facets/%02x/%v.db", id[0], id), func(b []byte) { b[len(b)-1] ^= 1 }))
}

func (r *room) scrubber(tune func(*Options)) *Scrubber {
	r.t.Helper()
	o := Options{
		Store: r.store, FS: r.mem, File: "scrub", Logger: slog.New(slog.DiscardHandler),
		Damaged: func(id facet.Incarnation) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.found[id] = time.Now()
		},
	}
	if tune != nil {
		tune(&o)
	}
	s, err := New(o)
	r.check(err)
	return s
}

func (r *room) foundAt(id facet.Incarnation) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.found[id]
}

func facetID(i int) facet.Incarnation {
	return facet.Incarnation{byte(i * 151), byte(i), byte(i >> 8), 15: 1}
}

// TestInTime: whatever rots is found within seven days, on a node that stays up and on
// one that is stopped most of the day.
func TestInTime(t *testing.T) {
	for name, up := range map[string]time.Duration{"always up": 24 * time.Hour, "an hour a day": time.Hour, "a minute a day": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRoom(t)
				const facets = 400
				for i := range facets {
					r.add(facetID(i), 1+i%3)
				}
				rotten := map[facet.Incarnation]time.Time{}
				rng := rand.New(rand.NewPCG(1, 2))
				began := time.Now()
				var read, bytes int64
				for day := range 21 {
					s := r.scrubber(nil)
					time.Sleep(up)
					s.Close()
					st := s.Stats()
					read += st.Facets
					bytes += st.Bytes
					if st.Missed > 0 {
						t.Errorf("%d files missed", st.Missed)
					}
					if day >= 7 && st.Oldest > DefaultEvery {
						t.Errorf("day %d: a part was not read for %v", day, st.Oldest)
					}
					if day < 13 { // what rots is found in the week that is left
						id := facetID(rng.IntN(facets))
						if rotten[id].IsZero() {
							rotten[id] = time.Now()
							r.rot(id)
						}
					}
					time.Sleep(24*time.Hour - up)
				}
				for id, at := range rotten {
					if found := r.foundAt(id); found.IsZero() || found.Sub(at) > DefaultEvery {
						t.Errorf("%v rotted after %v and was found after %v", id, at.Sub(began), found.Sub(at))
					}
				}
				if len(r.found) != len(rotten) {
					t.Errorf("%d copies found damaged, %d are", len(r.found), len(rotten))
				}
				// Every file three times in 21 days, and not all the time.
				if read < 2*facets || read > 5*facets || bytes < read*facet.PageSize {
					t.Errorf("%d files, %d bytes read", read, bytes)
				}
				r.check(r.store.Close())
			})
		})
	}
}

// TestPace: the rate is kept, and closing does not wait for it.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.add(facet.Incarnation{1}, 512) // 2 MiB
		began := time.Now()
		s := r.scrubber(func(o *Options) { o.Every, o.Rate = time.Hour, 256<<10 })
		for s.Stats().Facets == 0 {
			time.Sleep(100 * time.Millisecond)
		}
		due := s.interval() * 2 / parts
		if took := time.Since(began) - due; took < 6*time.Second || took > 8*time.Second {
			t.Errorf("2 MiB at 256 KiB/s, in eight steps with pauses between them, were read in %v", took)
		}
		s.Close()
		r.check(r.store.Close())

		r.open()
		s = r.scrubber(func(o *Options) { o.Every, o.Rate = time.Second, MinRate })
		time.Sleep(10 * time.Second)
		began = time.Now()
		s.Close()
		s.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("close waited for %v", took)
		}
		r.check(r.store.Close())
	})
}

// TestLogSegments: rot in the log of a node that stays up is found as well.
func TestLogSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.add(facet.Incarnation{1}, 4)
		s := r.scrubber(nil)
		time.Sleep(24 * time.Hour)
		r.check(r.mem.Corrupt("data/log/00000001.seg", func(b []byte) { b[4200] ^= 1 }))
		time.Sleep(DefaultEvery)
		if r.store.Rotten() != 1 || s.Stats().Damaged != 1 {
			t.Errorf("rot in the log is not found: %+v", s.Stats())
		}
		s.Close()
		r.check(r.store.Close())
	})
}

// TestTimes: the file is what the package says it is, and one that is not is not used.
func TestTimes(t *testing.T) {
	var want times
	for i := range want {
		want[i] = 1_700_000_000 + int64(i)*3600
	}
	golden := filepath.Join("testdata", "times")
	b, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeTimes(b); err != nil || got != want || !bytes.Equal(b, want.encode()) {
		t.Errorf("the golden file reads as %v, %v", got, err)
	}
	for at := range b {
		broken := bytes.Clone(b)
		broken[at] ^= 1
		if _, err := decodeTimes(broken); err == nil {
			t.Fatalf("byte %d changed and it is read all the same", at)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		logged := &strings.Builder{}
		for _, c := range []struct {
			content []byte
			used    bool
		}{{want.encode(), true}, {want.encode()[1:], false}, {make([]byte, fileLen), false}} {
			f, err := r.mem.OpenFile("scrub", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
			r.check(err)
			_, err = f.WriteAt(c.content, 0)
			r.check(err)
			r.check(f.Close())
			logged.Reset()
			s := r.scrubber(func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
			s.Close()
			if used := !strings.Contains(logged.String(), "not known"); used != c.used {
				t.Errorf("a file of %d bytes is used: %v\n%s", len(c.content), used, logged)
			}
		}
		r.check(r.store.Close())
	})
	var ahead times
	now := time.Unix(1_800_000_000, 0)
	ahead[3] = now.Add(1000 * time.Hour).Unix()
	ahead.begin(now, 256*time.Hour)
	if ahead[3] != now.Unix() || ahead[0] != now.Add(-255*time.Hour).Unix() || ahead[255] != now.Unix() {
		t.Errorf("begin: %v, %v, %v", ahead[0], ahead[3], ahead[255])
	}
}

func FuzzTimes(f *testing.F) {
	var t0 times
	f.Add(t0.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeTimes(b)
		if err == nil && !bytes.Equal(got.encode(), b) {
			t.Error("another encoding")
		}
	})
}
