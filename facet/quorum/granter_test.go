package quorum

import (
	"testing"
	"time"
)

// TestOverAt is the answer to "is that process life dead?" through a term.
func TestOverAt(t *testing.T) {
	const ttl, margin = 1500 * time.Millisecond, 100 * time.Millisecond
	g := NewGranter(ttl, margin)
	a, b := BootID{1}, BootID{2}
	at := func(boot BootID, want Instant) {
		t.Helper()
		if got, ok := g.OverAt(boot); !ok || got != want {
			t.Errorf("over at %v, %v; want %v", got, ok, want)
		}
	}
	if _, ok := g.OverAt(a); ok {
		t.Error("a node that does not lead knows")
	}
	g.Elected(100, 7)
	wait := Instant(ttl + margin)
	at(a, 100+wait) // R39: an earlier leader may have granted it

	grant := func(boot BootID, applied uint64, now Instant) {
		t.Helper()
		if err := g.Renew(Renewal{Boot: boot, Applied: applied, Stamp: now}); err != nil {
			t.Fatal(err)
		}
		round, _ := g.Tick()
		g.Committed(round, now, nil)
	}
	grant(a, 7, 500)
	at(a, 500+wait)
	grant(a, 6, 900) // refused: nothing changes
	at(a, 500+wait)
	at(b, 100+wait)
	if err := g.Gone(b); err != nil {
		t.Fatal(err)
	}
	at(b, 100)
	if !g.Forget(a, 500+wait) {
		t.Fatal("a lease that is over is not forgotten")
	}
	at(a, 100+wait)
	g.Deposed()
	if _, ok := g.OverAt(a); ok {
		t.Error("a deposed leader knows")
	}
}
