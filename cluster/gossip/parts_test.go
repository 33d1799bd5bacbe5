package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
)

func claimOf(name string, store byte, addr string) claim {
	return claim{member: cluster.Member{ID: cluster.NodeID(name), Store: cluster.StoreID{store}, Status: cluster.StatusAlive},
		cluster: cluster.ID{1}, addr: netip.MustParseAddrPort(addr)}
}

func newRoster() *roster {
	return &roster{self: cluster.Member{ID: "self", Store: cluster.StoreID{9}, Status: cluster.StatusAlive},
		cluster: cluster.ID{1}, addr: netip.MustParseAddrPort("10.0.0.1:1"), known: make(map[cluster.NodeID]*record)}
}

func TestJudge(t *testing.T) {
	const reclaim = 30 * time.Second
	t0 := time.Unix(1000, 0)
	known := claimOf("n1", 1, "10.0.0.2:1")
	leaving := known
	leaving.member.Status = cluster.StatusLeaving
	foreign := claimOf("n2", 1, "10.0.0.3:1")
	foreign.cluster = cluster.ID{2}
	nameless := claimOf("n2", 1, "10.0.0.3:1")
	nameless.cluster = cluster.ID{}
	for _, tc := range []struct {
		name string
		prep func(*roster)
		c    claim
		want AlarmKind
	}{
		{"new", nil, claimOf("n2", 1, "10.0.0.3:1"), 0},
		{"same again", nil, known, 0},
		{"moved", nil, claimOf("n1", 1, "10.0.0.3:1"), 0}, // the library waits for its death
		{"other store, same address", nil, claimOf("n1", 2, "10.0.0.2:1"), 0},
		{"other store", nil, claimOf("n1", 2, "10.0.0.3:1"), AlarmStoreConflict},
		{"other store, known one gone", func(r *roster) { r.lose("n1", t0.Add(-reclaim)) }, claimOf("n1", 2, "10.0.0.3:1"), AlarmStoreConflict},
		{"other store, known one gone for long", func(r *roster) { r.lose("n1", t0.Add(-reclaim-1)) }, claimOf("n1", 2, "10.0.0.3:1"), 0},
		{"other store, known one leaving", func(r *roster) { r.put(leaving, t0) }, claimOf("n1", 2, "10.0.0.3:1"), AlarmStoreConflict},
		{"other store, known one left", func(r *roster) { r.put(leaving, t0); r.lose("n1", t0) }, claimOf("n1", 2, "10.0.0.3:1"), 0},
		{"self", nil, claimOf("self", 9, "10.0.0.1:1"), 0},
		{"self before its disk was replaced", nil, claimOf("self", 8, "10.0.0.1:1"), 0},
		{"self elsewhere", nil, claimOf("self", 9, "10.0.0.3:1"), 0}, // told by NotifyConflict
		{"somebody else as self", nil, claimOf("self", 8, "10.0.0.3:1"), AlarmStoreConflict},
		{"foreign", nil, foreign, AlarmForeignCluster},
		{"without a cluster", nil, nameless, 0},
		{"foreign to nobody", func(r *roster) { r.cluster = cluster.ID{} }, foreign, 0},
	} {
		r := newRoster()
		r.put(known, t0.Add(-time.Hour))
		if tc.prep != nil {
			tc.prep(r)
		}
		a, err := r.judge(tc.c, t0, reclaim)
		if (a == nil) != (err == nil) || (a == nil) != (tc.want == 0) || a != nil && a.Kind != tc.want {
			t.Errorf("%s: %+v, %v", tc.name, a, err)
		}
		if tc.want == AlarmStoreConflict && !errors.Is(err, ErrConflict) || tc.want == AlarmForeignCluster && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// TestRosterBounds: room is made by the gone, oldest first, and only by them.
func TestRosterBounds(t *testing.T) {
	r, now := newRoster(), time.Unix(1000, 0)
	name := func(i int) string { return fmt.Sprintf("n%d", i) }
	addr := func(i int) string { return fmt.Sprintf("10.1.%d.%d:1", i/256, i%256) }
	for i := range maxMembers - 1 {
		r.put(claimOf(name(i), 1, addr(i)), now)
	}
	late := claimOf("late", 1, "10.9.9.9:1")
	if a, err := r.judge(late, now, 0); err == nil || a.Kind != AlarmFull {
		t.Fatalf("full roster: %+v, %v", a, err)
	}
	r.put(late, now)
	if len(r.known) != maxMembers-1 || r.known["late"] != nil {
		t.Fatal("took one too many")
	}
	r.lose("n7", now.Add(time.Second))
	r.lose("n5", now.Add(2*time.Second))
	if _, err := r.judge(late, now, 0); err != nil {
		t.Fatal(err)
	}
	r.put(late, now)
	if len(r.known) != maxMembers-1 || r.known["late"] == nil || r.known["n7"] != nil || r.known["n5"] == nil {
		t.Error("room was not made by the one gone for longest")
	}
	if n := r.forget(now.Add(time.Hour), time.Hour); n != 0 {
		t.Errorf("forgot %d too soon", n)
	}
	if n := r.forget(now.Add(time.Hour+3*time.Second), time.Hour); n != 1 || r.known["n5"] != nil {
		t.Errorf("forgot %d", n)
	}
	if v := r.view(); len(v.Members) != maxMembers-1 {
		t.Errorf("view of %d", len(v.Members))
	}
}

// TestRing compares the ring with what it was set to, and with the library's ring.
func TestRing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	pool := make([]Key, 2*maxKeys)
	for i := range pool {
		pool[i] = NewKey()
	}
	r, err := newRing(pool[:1])
	if err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		var want []Key
		for range 1 + rnd.IntN(maxKeys) {
			want = append(want, pool[rnd.IntN(len(pool))]) // some come twice
		}
		if err := r.set(want); err != nil {
			t.Fatal(err)
		}
		var lib []Key
		for _, b := range r.lib.GetKeys() {
			lib = append(lib, Key{string(b)})
		}
		have := r.list()
		if !slices.Equal(have, lib) || have[0] != want[0] || !sameKeys(have, want) {
			t.Fatalf("ring %v, library %v, want %v", have, lib, want)
		}
	}
}

// sameKeys compares without order and repetition; have repeats none.
func sameKeys(have, want []Key) bool {
	for i, k := range have {
		if !slices.Contains(want, k) || slices.Contains(have[:i], k) {
			return false
		}
	}
	for _, k := range want {
		if !slices.Contains(have, k) {
			return false
		}
	}
	return true
}

// TestRingUnderReaders is for the race detector: the library reads its ring
// without a lock.
func TestRingUnderReaders(t *testing.T) {
	keys := []Key{NewKey(), NewKey(), NewKey(), NewKey()}
	r, err := newRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, k := range r.lib.GetKeys() {
					if len(k) != 32 {
						t.Error("a key was torn")
						return
					}
				}
			}
		})
	}
	for range 500 {
		for _, next := range [][]Key{{keys[0], keys[2], keys[3]}, {keys[2], keys[0]}, keys[1:], {keys[3]}, keys} {
			if err := r.set(next); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
}

func TestKeyKeepsItsSecret(t *testing.T) {
	k := NewKey()
	text := k.Text()
	back, err := ParseKey(text)
	if err != nil || back != k {
		t.Fatal(back, err)
	}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v %#v %q", k, k, k), fmt.Sprintf("%v", []Key{k}), fmt.Sprintf("%#v", Config{Keys: []Key{k}})} {
		if strings.Contains(s, text) || strings.Contains(s, k.secret) || !strings.Contains(s, "key:") {
			t.Errorf("printed as %s", s)
		}
	}
	if k.String() == NewKey().String() {
		t.Error("fingerprints are equal")
	}
	for _, bad := range []string{"", "AAAA", "not base64!", text + "AAAA", strings.Repeat("A", 43)} {
		if _, err := ParseKey(bad); !errors.Is(err, ErrKey) || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("ParseKey(%q): %v", bad, err)
		}
	}
}

// TestReporterIsBounded: a callback that blocks, and a flood, cost nothing but
// what is dropped and counted; the same alarm comes once a minute.
func TestReporterIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var got []Alarm
		r := newReporter(slog.New(slog.DiscardHandler), func(a Alarm) { <-release; got = append(got, a) })
		for range 3 {
			r.alarm(Alarm{Kind: AlarmAddressConflict, Node: "n1"})
		}
		for i := range 2 * maxAlarmKeys {
			r.alarm(Alarm{Kind: AlarmForeignLabel, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(i))})
		}
		if n := r.alarms.Load(); n != 2 {
			t.Errorf("%d alarms, want 2", n)
		}
		for i := range 2 * maxAlarmKeys {
			r.alarm(Alarm{Kind: AlarmStoreConflict, Node: cluster.NodeID(fmt.Sprint(i))})
		}
		if n := r.alarms.Load(); n != maxAlarmKeys {
			t.Errorf("%d alarms, want %d", n, maxAlarmKeys)
		}
		for range 2 * reportQueue {
			r.put(reportItem{text: "x"})
		}
		if r.dropped.Load() == 0 {
			t.Error("nothing was dropped")
		}
		close(release)
		time.Sleep(alarmRepeat + time.Second)
		r.alarm(Alarm{Kind: AlarmAddressConflict, Node: "n1"})
		r.close()
		if len(got) < 3 || got[0] != got[len(got)-1] {
			t.Errorf("%d alarms handed on", len(got))
		}
		if len(r.last) != 1 {
			t.Errorf("%d alarms remembered", len(r.last))
		}
	})
}

// TestLibraryLines: what the library writes is rewritten, cut and rationed.
func TestLibraryLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		r := newReporter(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
		for range 5 * maxLinesPerSecond {
			fmt.Fprintf(r, "[ERR] memberlist: something %s\n", strings.Repeat("x", 1000))
		}
		r.close()
		if n := strings.Count(out.String(), "something"); n != maxLinesPerSecond {
			t.Errorf("%d lines, want %d", n, maxLinesPerSecond)
		}
		if strings.Contains(out.String(), "ERR") || out.Len() > maxLinesPerSecond*700 {
			t.Errorf("log has %d bytes: %.300s", out.Len(), out.String())
		}
	})
}
