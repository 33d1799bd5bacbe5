package quota

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
)

// table has the same settings for every tenant.
type table struct {
	version atomic.Uint64
	mu      sync.Mutex
	set     facet.TenantSettings
}

func (t *table) TenantsVersion() uint64 { return t.version.Load() }

func (t *table) Settings(facet.Tenant) facet.TenantSettings {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.set
}

func (t *table) change(f func(*facet.TenantSettings)) {
	t.mu.Lock()
	f(&t.set)
	t.mu.Unlock()
	t.version.Add(1)
}

func open(t *testing.T, l facet.TenantLimits) (*Tenants, *table) {
	t.Helper()
	tab := &table{set: facet.TenantSettings{Limits: l}}
	s, err := New(Options{Table: tab})
	if err != nil {
		t.Fatal(err)
	}
	return s, tab
}

func limitOf(t *testing.T, err error, code facet.Code, limit string) *facet.Error {
	t.Helper()
	var fe *facet.Error
	if !errors.As(err, &fe) || fe.Code != code || fe.Limit != limit {
		t.Fatalf("refused with %v, want %v of %s", err, code, limit)
	}
	return fe
}

// TestRequestRate: after a pause a second's worth goes through at once, then the rate,
// exactly, however the requests come; what it says to wait is what helps.
func TestRequestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 100
		s, _ := open(t, facet.TenantLimits{RequestsPerSecond: rate})
		tn := s.Use("acme")
		begin, admitted := time.Now(), 0
		for time.Since(begin) < 10*time.Second {
			err := tn.Enter(false)
			if err == nil {
				admitted++
				tn.Leave()
				continue
			}
			fe := limitOf(t, err, facet.CodeThrottled, LimitRequests)
			if fe.RetryAfter <= 0 || fe.RetryAfter > 20*time.Millisecond || facet.CodeThrottled.Class() != facet.Retry {
				t.Fatalf("told to wait %v", fe.RetryAfter)
			}
			time.Sleep(fe.RetryAfter)
			if err := tn.Enter(false); err != nil {
				t.Fatalf("after the wait that was told: %v", err)
			}
			admitted++
			tn.Leave()
		}
		if admitted < rate*10 || admitted > rate*11+1 {
			t.Errorf("%d admitted in 10 s, want 1,000 to 1,101", admitted)
		}
	})
}

// TestSlowRate: a rate of less than one in the burst admits one at a time.
func TestSlowRate(t *testing.T) {
	var b bucket
	now, each := int64(0), eachOf(1)
	for i := range 5 {
		if wait := b.take(now, 1, each); wait != 0 {
			t.Fatalf("%d: wait %v", i, wait)
		}
		if wait := b.take(now, 1, each); wait <= 0 || wait > time.Second {
			t.Fatalf("%d: a second one at once waits %v", i, wait)
		}
		now += int64(time.Second)
	}
	for _, rate := range []uint64{0, 1, 3, 1e9, 1e12, math.MaxUint64} {
		if each := eachOf(rate); (each == 0) != (rate == 0) || each < 0 || each > int64(time.Second) {
			t.Errorf("one of %d a second takes %d ns", rate, each)
		}
	}
}

// TestRows: rows are counted when they are there; the requests behind them wait until
// they are worked off, a minute at most, and then none is refused.
func TestRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, facet.TenantLimits{RowsPerSecond: 1000})
		tn := s.Use("acme")
		enter := func() error {
			err := tn.Enter(false)
			if err == nil {
				tn.Leave()
			}
			return err
		}
		tn.Rows(1000)
		if err := enter(); err != nil {
			t.Fatalf("within the burst: %v", err)
		}
		tn.Rows(5000)
		fe := limitOf(t, enter(), facet.CodeThrottled, LimitRows)
		if fe.RetryAfter < 4900*time.Millisecond || fe.RetryAfter > 5100*time.Millisecond {
			t.Fatalf("6,000 rows at once are worked off after %v", fe.RetryAfter)
		}
		if err := tn.Enter(true); err != nil {
			t.Fatalf("a request of an open transaction: %v", err)
		}
		tn.Leave()
		time.Sleep(fe.RetryAfter)
		if err := enter(); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int64{1e6, math.MaxInt64} {
			tn.Rows(n)
			if fe := limitOf(t, enter(), facet.CodeThrottled, LimitRows); fe.RetryAfter > maxDebt {
				t.Fatalf("%d rows are worked off after %v", n, fe.RetryAfter)
			}
		}
	})
}

// TestTransactionsAreCounted: the requests of an open transaction are never refused and
// always counted.
func TestTransactionsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, facet.TenantLimits{RequestsPerSecond: 10, ConcurrentRequests: 1})
		tn := s.Use("acme")
		for range 30 {
			if err := tn.Enter(true); err != nil {
				t.Fatal(err)
			}
			tn.Leave()
		}
		fe := limitOf(t, tn.Enter(false), facet.CodeThrottled, LimitRequests)
		if fe.RetryAfter < 2*time.Second || fe.RetryAfter > 3*time.Second {
			t.Errorf("30 requests at 10 a second are worked off after %v", fe.RetryAfter)
		}
	})
}

// TestConcurrent: never more than the limit are under way, whoever asks, and what is
// refused leaves no trace.
func TestConcurrent(t *testing.T) {
	s, _ := open(t, facet.TenantLimits{ConcurrentRequests: 8})
	tn := s.Use("acme")
	var under, most, refused atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 200 {
				if err := tn.Enter(false); err != nil {
					limitOf(t, err, facet.CodeThrottled, LimitConcurrent)
					refused.Add(1)
					continue
				}
				n := under.Add(1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				under.Add(-1)
				tn.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > 8 {
		t.Errorf("%d under way", most.Load())
	}
	if n := tn.underWay.Load(); n != 0 {
		t.Errorf("%d are counted in the end", n)
	}
	for range 8 {
		if err := tn.Enter(false); err != nil {
			t.Fatal(err)
		}
	}
	limitOf(t, tn.Enter(false), facet.CodeThrottled, LimitConcurrent)
}

// TestFreeze: a freeze is in force with the first request behind it, of both kinds, and
// no error of it says that trying again helps.
func TestFreeze(t *testing.T) {
	s, tab := open(t, facet.TenantLimits{})
	tn := s.Use("acme")
	check := func(all, writes bool) {
		t.Helper()
		err := tn.Enter(true)
		if err == nil {
			tn.Leave()
		}
		if (err != nil) != all || (tn.Frozen() != nil) != all || (tn.MayWrite() != nil) != writes {
			t.Fatalf("enter %v, frozen %v, may write %v", err, tn.Frozen(), tn.MayWrite())
		}
		if (s.Check("acme", false) != nil) != all || (s.Check("acme", true) != nil) != writes {
			t.Fatal("Check says otherwise")
		}
		if err != nil && (!errors.Is(err, facet.ErrFrozen) || facet.CodeFrozen.Class() != facet.Definite) {
			t.Fatal(err)
		}
	}
	check(false, false)
	tab.change(func(s *facet.TenantSettings) { s.Freeze = facet.FreezeWrites })
	check(false, true)
	tab.change(func(s *facet.TenantSettings) { s.Freeze = facet.FreezeAll })
	check(true, true)
	tab.change(func(s *facet.TenantSettings) { s.Freeze = facet.NotFrozen })
	check(false, false)
}

// TestIdleTenantsCostNothing: records go when nobody uses them, but not before what they
// owe is worked off; and there is a bound however many names are tried.
func TestIdleTenantsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t, facet.TenantLimits{RowsPerSecond: 100})
		for i := range 2 * maxTenants {
			s.Unuse(s.Use(facet.Tenant(fmt.Sprint("t", i))))
		}
		if n := s.Len(); n > maxTenants {
			t.Errorf("%d records of tenants that nobody uses", n)
		}
		used, owing := s.Use("used"), s.Use("owing")
		owing.Rows(1500)
		s.Unuse(owing)
		time.Sleep(keepFor)
		if s.Sweep(); s.Len() != 2 {
			t.Errorf("%d records are left, want two", s.Len())
		}
		if s.Use("owing") != owing {
			t.Error("what it owes was forgotten")
		}
		s.Unuse(owing)
		time.Sleep(20 * time.Second)
		s.Sweep()
		if s.Len() != 1 || s.Use("used") != used {
			t.Errorf("%d records are left", s.Len())
		}
		s.Unuse(used)
		s.Unuse(used)
		time.Sleep(keepFor)
		if s.Sweep(); s.Len() != 0 {
			t.Error("a record of an idle tenant is left")
		}
	})
}

// TestUse: what is told is of the last second.
func TestUse(t *testing.T) {
	s, _ := open(t, facet.TenantLimits{ConcurrentRequests: 1})
	tn := s.Use("acme")
	check := func(want Use) {
		t.Helper()
		if got := s.Of("acme"); got != want {
			t.Errorf("told %+v, want %+v", got, want)
		}
	}
	if err := tn.Enter(false); err != nil {
		t.Fatal(err)
	}
	if tn.Enter(false) == nil {
		t.Fatal("a second one was admitted")
	}
	tn.Rows(7)
	check(Use{UnderWay: 1})
	s.Sweep()
	check(Use{Requests: 1, Refused: 1, Rows: 7, UnderWay: 1})
	tn.Leave()
	s.Sweep()
	check(Use{})
	if s.Of("nobody") != (Use{}) {
		t.Error("a tenant nobody uses does something")
	}
}

// TestNil: without limits everything is admitted.
func TestNil(t *testing.T) {
	var s *Tenants
	tn := s.Use("acme")
	if tn != nil || tn.Enter(false) != nil || tn.Frozen() != nil || tn.MayWrite() != nil || tn.Rules() != nil {
		t.Error("a tenant without limits is held to some")
	}
	tn.Rows(5)
	s.Unuse(tn)
}

// BenchmarkEnter is what a request costs more for being counted: without limits, with a
// rate, and with everything.
func BenchmarkEnter(b *testing.B) {
	for _, bench := range []struct {
		name   string
		limits facet.TenantLimits
	}{
		{"none", facet.TenantLimits{}},
		{"all", facet.TenantLimits{RequestsPerSecond: 1e9, RowsPerSecond: 1e9, ConcurrentRequests: 100}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			s, err := New(Options{Table: &table{set: facet.TenantSettings{Limits: bench.limits}}})
			if err != nil {
				b.Fatal(err)
			}
			tn := s.Use("acme")
			b.ReportAllocs()
			for b.Loop() {
				if err := tn.Enter(false); err != nil {
					b.Fatal(err)
				}
				tn.Rows(1)
				tn.Leave()
			}
		})
	}
}
