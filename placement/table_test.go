package placement

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// fill registers one node and creates n facets in batches.
func fill(t testing.TB, tab *Table, n int, name func(i int) facet.Name) {
	t.Helper()
	if _, err := tab.ApplyCommands(1, register("n1", 1)); err != nil {
		t.Fatal(err)
	}
	batch := make([][]byte, 0, MaxBatch)
	index := uint64(1)
	for i := range n {
		batch = append(batch, AppendCommand(nil, Create{Name: name(i), Incarnation: incarnation(uint32(i)),
			Owner: owner("n1", 1), Set: setOf("n1", 1)}))
		if len(batch) == MaxBatch || i == n-1 {
			index++
			if _, err := tab.Apply(index, batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if c := tab.Counts(); c.Facets != n {
		t.Fatalf("%d facets, want %d", c.Facets, n)
	}
}

func oneTenant(i int) facet.Name {
	return facet.Name{Tenant: "acme", Facet: fmt.Sprintf("user-%08d", i)}
}
func ownTenant(i int) facet.Name {
	return facet.Name{Tenant: facet.Tenant(fmt.Sprintf("customer-%06d", i)), Facet: "main"}
}
func scattered(i int) facet.Name {
	return facet.Name{Tenant: facet.Tenant(fmt.Sprintf("customer-%04d", i%1000)), Facet: fmt.Sprintf("user-%08x", uint32(i)*2654435761)}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

var million = flag.Bool("million", false, "measure a million facets too")

// TestMemory measures what a facet costs, indexes and names included.
func TestMemory(t *testing.T) {
	sizes := []int{100_000}
	if testing.Short() {
		sizes[0] = 20_000
	}
	if *million {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		for _, tc := range []struct {
			what string
			name func(int) facet.Name
		}{{"one tenant", oneTenant}, {"1000 tenants", scattered}, {"a tenant each", ownTenant}} {
			if n > 100_000 && tc.what == "one tenant" {
				continue
			}
			before := heap()
			tab := NewTable()
			start := time.Now()
			fill(t, tab, n, tc.name)
			took := time.Since(start)
			each := float64(heap()-before) / float64(n)
			t.Logf("%d facets, %s: %.0f bytes each, created in %v", n, tc.what, each, took.Round(time.Millisecond))
			if n >= 100_000 && each > 215 { // fixed parts weigh on fewer
				t.Errorf("%d facets, %s: %.0f bytes each, want at most about 200", n, tc.what, each)
			}
			start = time.Now()
			frozen := tab.Freeze()
			froze := time.Since(start)
			var buf bytes.Buffer
			if _, err := frozen.WriteTo(&buf); err != nil {
				t.Fatal(err)
			}
			wrote := time.Since(start)
			start = time.Now()
			again := NewTable()
			if err := again.Restore(&buf); err != nil {
				t.Fatal(err)
			}
			t.Logf("  snapshot: frozen in %v, written in %v, restored in %v", froze, wrote.Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
			runtime.KeepAlive(tab)
			runtime.KeepAlive(again)
		}
	}
}

func TestLookupAllocates(t *testing.T) {
	tab := NewTable()
	fill(t, tab, 1000, oneTenant)
	n, id := oneTenant(77), incarnation(77)
	if got := testing.AllocsPerRun(100, func() {
		if _, ok := tab.Lookup(n); !ok {
			t.Fatal("not found")
		}
		if _, ok := tab.ByIncarnation(id); !ok {
			t.Fatal("not found")
		}
	}); got != 0 {
		t.Errorf("%v allocations, want none", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			tab := NewTable()
			fill(b, tab, n, scattered)
			names := make([]facet.Name, 1<<16)
			for i := range names {
				names[i] = scattered(int(uint32(i)*2654435761) % n)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := tab.Lookup(names[i&(1<<16-1)]); !ok {
					b.Fatal("not found")
				}
				i++
			}
		})
	}
}

func BenchmarkCreate(b *testing.B) {
	b.ReportAllocs()
	fill(b, NewTable(), b.N, scattered)
}

// TestReadersAndSnapshots runs readers, walkers and a snapshot writer against
// Apply; the race detector and the checks below judge.
func TestReadersAndSnapshots(t *testing.T) {
	tab := NewTable()
	const n = 2000
	fill(t, tab, n, scattered)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	read := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	read(func(i int) {
		if f, ok := tab.Lookup(scattered(i % n)); !ok || f.Incarnation != incarnation(uint32(i%n)) {
			t.Errorf("lookup %d: %+v, %v", i%n, f, ok)
		}
	})
	read(func(int) {
		count := 0
		for f := range tab.OwnedBy("n1") {
			if f.Epoch == 0 || f.State == Active != (f.ActiveEpoch == f.Epoch) {
				t.Errorf("torn row %+v", f)
			}
			count++
		}
		if count != n {
			t.Errorf("walk met %d rows, want %d", count, n)
		}
	})
	snaps := make(chan *Snapshot, 4)
	wg.Go(func() {
		for s := range snaps {
			var buf bytes.Buffer
			if _, err := s.WriteTo(&buf); err != nil {
				t.Error(err)
			}
			old := NewTable()
			if err := old.Restore(&buf); err != nil {
				t.Error(err)
			}
			epochs := map[facet.Epoch]int{}
			for f := range old.Facets() {
				epochs[f.Epoch]++
			}
			if len(epochs) != 1 {
				t.Errorf("snapshot at %d mixes moments: %v", s.Index(), epochs)
			}
		}
	})
	for round := range 20 {
		e := facet.Epoch(round + 1)
		index := tab.Applied()
		for i := 0; i < n; i += 250 {
			var batch [][]byte
			for j := i; j < i+250; j++ {
				id := incarnation(uint32(j))
				batch = append(batch, AppendCommand(nil, Acquire{Incarnation: id, Owner: owner("n1", 1), Expected: e}),
					AppendCommand(nil, Activate{Incarnation: id, Epoch: e + 1, Boot: bootID(1)}))
			}
			index++
			if _, err := tab.Apply(index, batch); err != nil {
				t.Fatal(err)
			}
		}
		snaps <- tab.Freeze()
	}
	close(snaps)
	close(stop)
	wg.Wait()
}

func TestApplyRefusesToLoseItsPlace(t *testing.T) {
	tab := NewTable()
	reg := AppendCommand(nil, register("n1", 1))
	if _, err := tab.Apply(5, [][]byte{reg}); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.Apply(5, [][]byte{reg}); err == nil {
		t.Error("an entry was applied twice")
	}
	// One unknown command and nothing of the batch happens.
	bad := [][]byte{AppendCommand(nil, SetClusterID{cluster.ID{1}}), {99, 1}}
	if _, err := tab.Apply(6, bad); !errors.Is(err, ErrUnknownCommand) {
		t.Errorf("unknown command: %v", err)
	}
	if id, _ := tab.Cluster(); !id.IsZero() || tab.Applied() != 5 {
		t.Error("half a batch was applied")
	}
	if _, err := tab.Apply(6, make([][]byte, MaxBatch+1)); err == nil {
		t.Error("too large a batch was applied")
	}
}

func TestWaitAndWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tab := NewTable()
		w := tab.Watch()
		defer w.Close()
		done := make(chan error, 2)
		go func() { done <- tab.WaitApplied(t.Context(), 2) }()
		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- tab.WaitApplied(ctx, 100) }()
		synctest.Wait()
		apply := func(index uint64, c ...Command) {
			t.Helper()
			if _, err := tab.ApplyCommands(index, c...); err != nil {
				t.Fatal(err)
			}
		}
		apply(1, register("n1", 1))
		synctest.Wait()
		if len(done) != 0 {
			t.Fatal("woke too early")
		}
		<-w.Wake()
		if got := w.Take(); !reflect.DeepEqual(got, Changes{Nodes: true, Index: 1}) {
			t.Errorf("after a registration %+v", got)
		}
		apply(2, Create{Name: name("acme", "a"), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1)},
			Create{Name: name("acme", "a"), Incarnation: incarnation(2), Owner: owner("n1", 1), Set: setOf("n1", 1)},
			Activate{Incarnation: incarnation(1), Epoch: 1, Boot: bootID(1)})
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := tab.WaitApplied(t.Context(), 2); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled wait: %v", err)
		}
		<-w.Wake()
		if got := w.Take(); !reflect.DeepEqual(got, Changes{Rows: []facet.Incarnation{incarnation(1), incarnation(1)}, Index: 2}) {
			t.Errorf("changes %+v", got)
		}
		// A reader that does not take is told to look at everything.
		index := uint64(4)
		apply(3, Renew{})
		apply(4, SetNode{"n1", NodeActive})
		if got := w.Take(); len(w.Wake()) != 0 || !reflect.DeepEqual(got, Changes{Index: 4}) {
			t.Errorf("entries that change nothing rang, or told %+v", got)
		}
		if late := tab.Watch(); late.Take().Index != 4 {
			t.Error("a watcher begins at the entry applied last")
		} else {
			late.Close()
		}
		for e := facet.Epoch(1); e <= MaxPendingChanges+1; e++ {
			index++
			apply(index, Acquire{Incarnation: incarnation(1), Owner: owner("n1", 1), Expected: e})
		}
		<-w.Wake()
		if got := w.Take(); !reflect.DeepEqual(got, Changes{All: true, Index: index}) {
			t.Errorf("%d changes, all %v, index %d of %d", len(got.Rows), got.All, got.Index, index)
		}
		var buf bytes.Buffer
		if _, err := tab.Freeze().WriteTo(&buf); err != nil {
			t.Fatal(err)
		}
		if err := tab.Restore(&buf); err != nil {
			t.Fatal(err)
		}
		<-w.Wake()
		if got := w.Take(); !reflect.DeepEqual(got, Changes{All: true, Nodes: true, Tenants: true, Index: index}) {
			t.Errorf("a restored table told %+v", got)
		}
		apply(index+1, SetNode{"n1", NodeDraining})
		<-w.Wake()
		if got := w.Take(); !reflect.DeepEqual(got, Changes{Nodes: true, Index: index + 1}) {
			t.Errorf("a drained node told %+v", got)
		}
		w.Close()
		apply(index+2, Delete{Incarnation: incarnation(1)})
		if len(w.Wake()) != 0 {
			t.Error("a closed watcher rang")
		}
	})
}

// TestIndexCoversWhatWasTold takes while entries are applied: at every moment
// the changes told so far are all there were up to the index told with them.
func TestIndexCoversWhatWasTold(t *testing.T) {
	tab := NewTable()
	const n, rounds = 50, 400
	fill(t, tab, n, oneTenant)
	base := tab.Applied()
	w := tab.Watch()
	defer w.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		epochs := [n]facet.Epoch{}
		for i := range rounds {
			row := i % n
			epochs[row]++
			// Entry base+1+i changes row i%n and nothing else.
			_, err := tab.ApplyCommands(base+1+uint64(i), Acquire{Incarnation: incarnation(uint32(row)), Owner: owner("n1", 1), Expected: epochs[row]})
			if err != nil {
				t.Error(err)
			}
		}
	})
	told := 0
	for told < rounds {
		<-w.Wake()
		news := w.Take()
		for _, id := range news.Rows {
			if id != incarnation(uint32(told%n)) {
				t.Fatalf("change %d is of %v", told, id)
			}
			told++
		}
		if news.Index != base+uint64(told) {
			t.Fatalf("index %d after %d changes since %d", news.Index, told, base)
		}
	}
	wg.Wait()
}

// TestSharedValuesAreSwept restarts a node many times: what the rows share must
// not pile up.
func TestSharedValuesAreSwept(t *testing.T) {
	tab := NewTable()
	fill(t, tab, 3, oneTenant)
	index := tab.Applied()
	for i := range 10_000 {
		reg := register("n1", 1)
		reg.Boot = cluster.BootID{1, byte(i >> 8), byte(i), 1}
		index++
		r, err := tab.ApplyCommands(index, reg, Acquire{Incarnation: incarnation(1), Owner: Owner{"n1", reg.Boot}, Expected: facet.Epoch(i + 1)})
		if err != nil || r[1].Outcome != Done {
			t.Fatalf("boot %d: %+v, %v", i, r, err)
		}
	}
	if n := len(tab.s.owners); n > 3*sweepSlack {
		t.Errorf("%d owners are kept for 3 rows", n)
	}
}

func TestSnapshotWriteError(t *testing.T) {
	tab := NewTable()
	fill(t, tab, 3000, oneTenant)
	if _, err := tab.Freeze().WriteTo(&failingWriter{left: 100_000}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("write error was lost: %v", err)
	}
}

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left -= len(b); w.left < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}
