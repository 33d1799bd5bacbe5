package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster/consensus"
	"github.com/facetd/facetd/facet/quorum"
	"github.com/facetd/facetd/node/peer"
)

// TestLease: a lease is granted, survives, and ends its TTL after the last renewal
// was sent.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		w.do(register(2))
		h := w.hold(2)
		defer h.Close()
		time.Sleep(slack)
		for range 100 {
			if !h.Valid() {
				t.Fatal("no lease")
			}
			if d := time.Duration(h.Deadline() - w.clock()); d > ttl {
				t.Fatalf("a lease for %v", d)
			}
			time.Sleep(99 * time.Millisecond)
		}
		if n := len(h.stamps()); n < 24 || n > 27 {
			t.Errorf("%d renewals in 10 s", n)
		}
		if age, ok := w.grants.LeaseAge("n2"); !ok || age > quorum.RenewEvery+slack {
			t.Errorf("granted %v ago, %v", age, ok)
		}
		if _, ok := w.grants.LeaseAge("n1"); ok {
			t.Error("a lease nobody asked for")
		}

		h.Pause() // R32
		synctest.Wait()
		time.Sleep(slack) // answers that are on their way
		last := quorum.Instant(slices.Max(h.stamps()))
		if h.Deadline() != last.Add(ttl) {
			t.Errorf("deadline %v, want %v after the send stamp %v", h.Deadline(), ttl, last)
		}
		time.Sleep(time.Duration(last.Add(ttl)-w.clock()) - 1)
		if !h.Valid() {
			t.Error("over too early")
		}
		time.Sleep(time.Nanosecond)
		if h.Valid() {
			t.Error("valid at its deadline")
		}
		h.Unpause()
		time.Sleep(slack)
		if !h.Valid() {
			t.Error("not renewed after a pause")
		}
		h.Stop()
		if h.Valid() || h.Deadline() != 0 {
			t.Error("valid after it was given up")
		}
		time.Sleep(time.Second)
		if h.Valid() {
			t.Error("renewed after it was given up")
		}
	})
}

// TestNeeded: a node alone renews while it has sessions.
func TestNeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		w.do(register(1))
		var needed atomic.Bool
		h := w.hold(1, func(o *HolderOptions) { o.Needed = needed.Load })
		defer h.Close()
		time.Sleep(5 * time.Second)
		if n := len(h.stamps()); n != 0 {
			t.Fatalf("%d renewals nobody needs", n)
		}
		needed.Store(true)
		h.Wake()
		time.Sleep(slack)
		if !h.Valid() {
			t.Error("no lease as soon as it is needed")
		}
		needed.Store(false)
		time.Sleep(time.Second)
		n := len(h.stamps())
		time.Sleep(5 * time.Second)
		if k := len(h.stamps()); k != n || h.Valid() {
			t.Errorf("%d renewals after it was needed", k-n)
		}
		if len(w.dead()) != 0 {
			t.Error("the leader takes itself for dead")
		}
	})
}

// TestRefused: a holder that must be told more first renews as soon as it is.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Uint64
		clock := bubbleClock()
		var mu sync.Mutex
		var sent []uint64 // guarded by mu
		h, err := NewHolder(HolderOptions{
			Send: func(_ context.Context, r peer.RenewRequest) (peer.Grant, error) {
				mu.Lock()
				sent = append(sent, r.Applied)
				mu.Unlock()
				if r.Applied < 10 {
					return peer.Grant{Stamp: r.Stamp, Apply: 10}, peer.ErrRefused
				}
				return peer.Grant{Stamp: r.Stamp, TTL: ttl}, nil
			},
			Told: told.Load, Clock: clock, Clocks: func() Reading { return Reading{clock(), clock(), clock()} }, Logger: quiet(),
		})
		check(t, err)
		defer h.Close()
		time.Sleep(150 * time.Millisecond)
		told.Store(9)
		h.Wake()
		synctest.Wait()
		if len(sent) != 1 || h.Valid() {
			t.Fatalf("sent %v", sent)
		}
		told.Store(10)
		h.Wake()
		synctest.Wait()
		if len(sent) != 2 || sent[1] != 10 || !h.Valid() {
			t.Errorf("sent %v, valid %v", sent, h.Valid())
		}
	})
}

// TestSendTrouble: no leader, a leader that does not answer, answers to something
// else.
func TestSendTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubbleClock()
		var n, under atomic.Int32
		mode := atomic.Int32{}
		h, err := NewHolder(HolderOptions{
			Send: func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) {
				n.Add(1)
				if under.Add(1) > maxInFlight {
					t.Error("too many at once")
				}
				defer under.Add(-1)
				switch mode.Load() {
				case 0:
					return peer.Grant{}, &peer.NotLeaderError{}
				case 1:
					<-ctx.Done()
					return peer.Grant{}, ctx.Err()
				case 2:
					return peer.Grant{Stamp: r.Stamp + 1, TTL: ttl}, nil
				}
				return peer.Grant{Stamp: r.Stamp, TTL: time.Hour}, nil
			},
			Told: func() uint64 { return 1 }, Clock: clock,
			Clocks: func() Reading { return Reading{clock(), clock(), clock()} }, Logger: quiet(),
		})
		check(t, err)
		time.Sleep(time.Second)
		if k := n.Load(); k < 9 || k > 12 {
			t.Errorf("%d tries in a second without a leader", k)
		}
		mode.Store(1)
		time.Sleep(10 * time.Second)
		mode.Store(2)
		time.Sleep(3 * time.Second)
		if h.Valid() {
			t.Error("a grant for another renewal counts")
		}
		mode.Store(3)
		time.Sleep(time.Second)
		if d := time.Duration(h.Deadline() - clock()); d <= 0 || d > ttl {
			t.Errorf("a lease for %v", d)
		}
		mode.Store(1)
		time.Sleep(time.Second)
		check(t, h.Close())
		check(t, h.Close())
		if h.Valid() {
			t.Error("valid after Close")
		}
	})
}

// machine is three clocks of a machine in trouble.
type machine struct {
	boot, mono, raw atomic.Int64
}

func (m *machine) run(d time.Duration) {
	m.boot.Add(int64(d))
	m.mono.Add(int64(d))
	m.raw.Add(int64(d))
}

func (m *machine) read() Reading {
	return Reading{quorum.Instant(m.boot.Load()), quorum.Instant(m.mono.Load()), quorum.Instant(m.raw.Load())}
}

// TestWatchdog: what clocks may do and what they may not (R41).
func TestWatchdog(t *testing.T) {
	run := func(d *watchdog, m *machine, seconds int, drift time.Duration) (v verdict) {
		for range seconds {
			m.run(time.Second)
			m.boot.Add(int64(drift))
			m.mono.Add(int64(drift))
			if w := d.look(m.read()); w != fine {
				v = w
			}
		}
		return v
	}
	start := func() (*watchdog, *machine) {
		d, m := &watchdog{margin: quorum.LeaseMargin}, &machine{}
		m.run(time.Hour)
		d.look(m.read())
		return d, m
	}
	d, m := start()
	if v := run(d, m, 100, 500*time.Microsecond); v != fine {
		t.Errorf("a disciplined clock: %v", v)
	}
	m.boot.Add(int64(time.Hour)) // suspend
	if v := run(d, m, 1, 0); v != suspended || d.bad {
		t.Errorf("suspend: %v", v)
	}
	if v := run(d, m, 100, 0); v != fine {
		t.Errorf("after suspend: %v", v)
	}
	if v := run(d, m, 21, 11*time.Millisecond); v != tripped {
		t.Errorf("1.1 percent fast: %v", v)
	}
	if v := run(d, m, 100, 11*time.Millisecond); v != fine || !d.bad {
		t.Errorf("fast still: %v", v)
	}
	if v := run(d, m, 21, 0); v != cleared || d.bad {
		t.Errorf("agreeing again: %v", v)
	}
	for name, broken := range map[string]func(*machine){
		"monotonic jumps":  func(m *machine) { m.mono.Add(int64(time.Second)); m.boot.Add(int64(time.Second)) },
		"raw jumps":        func(m *machine) { m.raw.Add(int64(time.Second)) },
		"boot goes back":   func(m *machine) { m.boot.Add(-int64(time.Second)) },
		"raw goes back":    func(m *machine) { m.raw.Add(-int64(time.Hour)) },
		"all but raw stop": func(m *machine) { m.mono.Add(-int64(time.Second)); m.boot.Add(-int64(time.Second)) },
	} {
		d, m := start()
		broken(m)
		if v := run(d, m, 1, 0); v != tripped || !d.bad {
			t.Errorf("%s: %v", name, v)
		}
		if v := run(d, m, 9, 0); v != fine || !d.bad {
			t.Errorf("%s: trusted again before a whole window: %v", name, v)
		}
		if v := run(d, m, 2, 0); v != cleared {
			t.Errorf("%s: not trusted again: %v", name, v)
		}
	}
}

// TestDistrust: while the clocks disagree there is no lease, and afterwards there
// is one again. A suspend only ends it.
func TestDistrust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := bubbleClock()
		var apart, slept, sent atomic.Int64
		now := func() quorum.Instant { return clock() + quorum.Instant(slept.Load()) }
		h, err := NewHolder(HolderOptions{
			Send: func(_ context.Context, r peer.RenewRequest) (peer.Grant, error) {
				sent.Add(1)
				return peer.Grant{Stamp: r.Stamp, TTL: ttl}, nil
			},
			Told: func() uint64 { return 1 }, Clock: now,
			Clocks: func() Reading { return Reading{now(), clock(), clock() + quorum.Instant(apart.Load())} },
			Logger: quiet(),
		})
		check(t, err)
		defer h.Close()
		time.Sleep(5 * time.Second)
		if !h.Valid() || !h.Trusted() {
			t.Fatal("no lease")
		}
		slept.Store(int64(time.Hour))
		if h.Valid() {
			t.Error("a lease that outlived a suspend")
		}
		time.Sleep(watchEvery + time.Second)
		if !h.Valid() || !h.Trusted() {
			t.Error("no lease after a suspend")
		}
		apart.Store(int64(time.Second))
		time.Sleep(watchEvery + time.Millisecond)
		if h.Valid() || h.Trusted() || h.Deadline() != 0 {
			t.Error("a lease by clocks that disagree")
		}
		before := sent.Load()
		time.Sleep(5 * time.Second)
		if n := sent.Load() - before; n < 10 || h.Valid() {
			t.Errorf("%d signs of life in 5 s, a lease: %v", n, h.Valid())
		}
		time.Sleep(watchWindow - 5*time.Second + 2*watchEvery)
		if !h.Valid() || !h.Trusted() {
			t.Error("no lease though the clocks agree again")
		}
	})
}

// TestClockGoesBack: a lease does not last until a clock that went back is where it
// was, a grant from before is void, and renewing goes on at once (R41).
func TestClockGoesBack(t *testing.T) {
	for _, c := range []struct {
		by    time.Duration
		alone bool // only the clock of leases
	}{{time.Hour, true}, {time.Hour, false}, {300 * time.Millisecond, true}} {
		synctest.Test(t, func(t *testing.T) {
			clock := bubbleClock()
			var back, sent atomic.Int64
			var lost atomic.Bool // grants
			late := make(chan struct{})
			begun := clock()
			others := func() quorum.Instant { return clock() + quorum.Instant(2*time.Hour) - begun }
			now := func() quorum.Instant { return others() - quorum.Instant(back.Load()) }
			h, err := NewHolder(HolderOptions{
				Send: func(ctx context.Context, r peer.RenewRequest) (peer.Grant, error) {
					sent.Add(1)
					if lost.Load() {
						select {
						case <-late:
						case <-ctx.Done():
							return peer.Grant{}, ctx.Err()
						}
					}
					return peer.Grant{Stamp: r.Stamp, TTL: ttl}, nil
				},
				Told: func() uint64 { return 1 }, Clock: now,
				Clocks: func() Reading {
					if c.alone {
						return Reading{now(), others(), others()}
					}
					return Reading{now(), now(), now()}
				},
				Logger: quiet(),
			})
			check(t, err)
			defer h.Close()
			time.Sleep(5 * time.Second)
			if !h.Valid() {
				t.Fatal("no lease")
			}
			lost.Store(true)
			time.Sleep(500 * time.Millisecond) // a renewal is on its way
			before := sent.Load()
			back.Store(int64(c.by))
			time.Sleep(watchEvery)
			if h.Valid() || h.Trusted() {
				t.Errorf("%v: a lease after the clock went back", c.by)
			}
			lost.Store(false)
			close(late)
			synctest.Wait()
			if h.Valid() || h.Trusted() {
				t.Errorf("%v: a lease by a grant from before", c.by)
			}
			time.Sleep(3 * time.Second)
			if n := sent.Load() - before; n < 5 {
				t.Errorf("%v: %d signs of life in 4 s", c.by, n)
			}
			time.Sleep(watchWindow + 2*watchEvery)
			if !h.Valid() || !h.Trusted() {
				t.Errorf("%v: no lease though the clocks agree again", c.by)
			}
		})
	}
}

// TestReadTogether: a reading torn by the scheduler does not count.
func TestReadTogether(t *testing.T) {
	at := quorum.Instant(0)
	torn := 0
	clock := func() quorum.Instant { return at }
	read := func() Reading {
		r := Reading{Boot: at}
		if torn > 0 {
			torn--
			at += quorum.Instant(time.Second)
		}
		r.Mono, r.Raw = at, at
		return r
	}
	torn = 2
	if r, ok := readTogether(read, clock); !ok || r.Boot != r.Raw {
		t.Errorf("%+v, %v", r, ok)
	}
	torn = readTries
	if _, ok := readTogether(read, clock); ok {
		t.Error("a torn reading counts")
	}
}

// TestBootTime: the system's clocks run and agree.
func TestBootTime(t *testing.T) {
	a := BootTime()
	r, ok := readTogether(readClocks, BootTime)
	if ok && (r.Boot < a || r.Boot < r.Mono-quorum.Instant(time.Second)) {
		t.Errorf("%v, then %+v", a, r)
	}
}

// TestHolderOptions: what cannot work is refused.
func TestHolderOptions(t *testing.T) {
	if _, err := NewHolder(HolderOptions{}); err == nil {
		t.Error("a holder that asks nobody")
	}
	if _, err := NewGrants(GrantsOptions{}); err == nil {
		t.Error("grants of nothing")
	}
	if err := peerError(errors.New("other")); !errors.Is(err, peer.ErrUnknownOutcome) {
		t.Error(err)
	}
	if err := peerError(fmt.Errorf("propose: %w", consensus.ErrFull)); !errors.Is(err, peer.ErrBusy) {
		t.Error(err)
	}
}
