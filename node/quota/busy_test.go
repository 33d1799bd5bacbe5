package quota

import (
	"fmt"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

// TestBusiest: what tenants did is summed up over the window that runs and the one
// before, and is gone after that, though their records stay; each order has its first.
func TestBusiest(t *testing.T) {
	s, _ := open(t, facet.TenantLimits{})
	a, b, c := s.Use("a"), s.Use("b"), s.Use("c")
	for range 10 {
		a.Worked(false, 10, time.Millisecond)
	}
	b.Worked(true, 5000, 2*time.Millisecond)
	c.Worked(false, 1, time.Second)
	s.Use("quiet")
	s.Sweep()
	check := func(by string, n int, over time.Duration, want ...Busy) {
		t.Helper()
		got, took := s.Busiest(Orders[by], n)
		if fmt.Sprint(got) != fmt.Sprint(want) || took != over {
			t.Errorf("by %s over %v: %+v, want %+v over %v", by, took, got, want, over)
		}
	}
	wantA, wantB, wantC := Busy{"a", 10, 0, 100, 10 * time.Millisecond}, Busy{"b", 1, 1, 5000, 2 * time.Millisecond}, Busy{"c", 1, 0, 1, time.Second}
	check("time", 10, time.Second, wantC, wantA, wantB)
	check("requests", 1, time.Second, wantA)
	check("writes", 1, time.Second, wantB)
	check("bytes", 2, time.Second, wantB, wantA)
	b.Worked(true, 1, time.Millisecond)
	for range busyWindow - 1 {
		s.Sweep()
	}
	wantB = Busy{"b", 2, 2, 5001, 3 * time.Millisecond}
	check("writes", 1, busyWindow*time.Second, wantB)
	a.Worked(true, 0, 0)
	s.Sweep() // of the next window
	check("writes", 2, (busyWindow+1)*time.Second, wantB, Busy{"a", 11, 1, 100, 10 * time.Millisecond})
	for range busyWindow - 1 {
		s.Sweep()
	}
	check("writes", 2, busyWindow*time.Second, Busy{"a", 1, 1, 0, 0})
	for range busyWindow {
		s.Sweep()
	}
	check("time", 2, busyWindow*time.Second)
	var none *Tenant
	none.Worked(true, 1, 1)
}

// TestBusiestIsBounded: of more tenants than are kept the busy ones stay.
func TestBusiestIsBounded(t *testing.T) {
	var b busy
	b.add(&Busy{Name: "heavy", Requests: 1, Time: time.Hour})
	for i := range 3 * maxBusy {
		b.add(&Busy{Name: facet.Tenant(fmt.Sprint("t", i)), Requests: 1, Time: time.Millisecond})
	}
	if n := len(b.now); n > maxBusy {
		t.Errorf("%d tenants are kept", n)
	}
	if b.now["heavy"] == nil {
		t.Error("the busiest was forgotten")
	}
}
