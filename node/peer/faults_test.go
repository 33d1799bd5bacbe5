package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/wire"
)

// TestReconnect cuts the connection under load: it is told once, calls under way
// fail as lost, and what was not acknowledged can be sent again.
func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		mute := true
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			cfg.Handler = &funcs{
				appendFn: func(from *Caller, a *AppendItem) {
					if !mute {
						from.Acked(a.Entry.Incarnation, a.Epoch, a.Entry.Seq)
					}
				},
				prepareFn: func(*Caller, Session, func(replica.Promise, error)) {}, // never
			}
		})
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}))
		lost := make(chan error)
		go func() {
			_, err := p.Prepare(t.Context(), []Session{{idA, 1}})
			lost <- err
		}()
		synctest.Wait()
		mute = false
		mem.each((*memWire).cut)
		if err := <-lost; !errors.Is(err, ErrLost) {
			t.Errorf("call over a lost connection: %v, want ErrLost", err)
		}
		heard.next(t, "lost")
		begin := time.Now()
		heard.next(t, "ready")
		if d := time.Since(begin); d > time.Second {
			t.Errorf("connected again after %v", d)
		}
		check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}))
		if a := heard.next(t, "acked").ack; a.Seq != 1 {
			t.Errorf("ack %+v", a)
		}
		if s := p.Status(); s.Dials != 2 || s.Lost != 1 || !s.Connected {
			t.Errorf("status %+v", s)
		}
	})
}

// TestHalfOpen: a peer that vanishes without a word is noticed within 5 s, on
// both sides.
func TestHalfOpen(t *testing.T) {
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%v", busy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem, where, heard := newMemNet(), newAddresses(), newEars()
				served := make(chan *Caller, 1)
				n2 := start(t, "n2", where, func(cfg *Config) {
					mem.on("two")(cfg)
					cfg.Handler = &funcs{appendFn: func(from *Caller, a *AppendItem) {
						select {
						case served <- from:
						default:
						}
					}}
				})
				n1 := start(t, "n1", where, func(cfg *Config) {
					mem.on("one")(cfg)
					cfg.Acks = heard
				})
				defer n1.Close()
				defer n2.Close()
				p := n1.Peer("n2")
				connect(t, p)
				heard.next(t, "ready")
				check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}))
				caller := <-served
				synctest.Wait()
				mem.each(func(w *memWire) { w.set(swallowing) })
				begin := time.Now()
				stop := make(chan struct{})
				if busy { // bytes that go out are no sign of life
					go func() {
						for seq := facet.Seq(2); ; seq++ {
							p.Append(AppendItem{5, 0, entry(idA, 5, seq, 1000)})
							select {
							case <-time.After(10 * time.Millisecond):
							case <-stop:
								return
							}
						}
					}()
				}
				ev := heard.next(t, "lost")
				if d := time.Since(begin); d < 3*time.Second || d > 5*time.Second || !errors.Is(ev.err, wire.ErrPeerSilent) {
					t.Errorf("lost after %v: %v", d, ev.err)
				}
				<-caller.ctx.Done()
				if d := time.Since(begin); d > 5*time.Second {
					t.Errorf("the serving side noticed after %v", d)
				}
				close(stop)
			})
		})
	}
}

// TestQuiet: a connection nobody uses stays up.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		n2 := start(t, "n2", where, mem.on("two"))
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		time.Sleep(time.Hour)
		if s := p.Status(); !s.Connected || s.Lost != 0 || s.Dials != 1 {
			t.Errorf("status after an hour: %+v", s)
		}
	})
}

// TestLazyAndBackoff: nobody is dialled before he is wanted, the pauses between
// the tries are bounded, and a peer nobody asks for is left alone.
func TestLazyAndBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		where := newAddresses()
		where.set("n2", "nowhere")
		mem := newMemNet()
		var dials []time.Time
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Dial = func(context.Context, string) (net.Conn, error) {
				dials = append(dials, time.Now())
				return nil, errors.New("no such address")
			}
		})
		defer n1.Close()
		p := n1.Peer("n2")
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(dials) != 0 {
			t.Fatalf("%d dials before anybody asked", len(dials))
		}
		begin := time.Now()
		if err := p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}); !errors.Is(err, ErrDown) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		for i := 1; i < len(dials); i++ {
			if d := dials[i].Sub(dials[i-1]); d > backoffLast*5/4 || d < backoffFirst*3/4 {
				t.Errorf("try %d after %v", i, d)
			}
		}
		if n := len(dials); n < 30 || n > 60 || dials[n-1].Sub(begin) > redialFor+2*backoffLast {
			t.Errorf("%d tries, the last after %v", n, dials[n-1].Sub(begin))
		}
		n := len(dials)
		if _, err := p.Ping(t.Context()); !errors.Is(err, ErrDown) {
			t.Errorf("ping: %v, want ErrDown", err)
		}
		synctest.Wait()
		if len(dials) != n+1 {
			t.Errorf("a call made %d tries, want 1 and its answer", len(dials)-n)
		}
		synctest.Wait()
		n1.Close()
		if _, err := p.Ping(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("ping after Close: %v", err)
		}
		if err := p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}); !errors.Is(err, ErrClosed) {
			t.Errorf("append after Close: %v", err)
		}
	})
}

// TestSlowReader: a peer that reads slowly fills the queue, no more; what is
// refused may be sent when Ready says so, and everything arrives in order.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		n2 := start(t, "n2", where, mem.on("two"))
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
			cfg.QueueItems, cfg.QueueBytes = 1000, 1<<20
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		synctest.Wait()
		next, acked := facet.Seq(1), facet.Seq(0)
		for _, size := range []int{10, 10 << 10, 3 << 20} { // by number, by bytes, one that is too long alone
			mem.each(func(w *memWire) { w.set(held) })
			n := 0
			for ; ; n++ {
				err := p.Append(AppendItem{5, 0, entry(idA, 5, next, size)})
				if errors.Is(err, ErrBusy) {
					break
				}
				check(t, err)
				if next++; n > 5000 {
					t.Fatal("the queue has no bound")
				}
				if q := p.Status().Queued; q > 1<<20+size+1000 {
					t.Fatalf("%d bytes in the queue", q)
				}
			}
			if n == 0 {
				t.Errorf("no entry of %d bytes was taken", size)
			}
			if err := p.Append(AppendItem{5, 0, entry(idA, 5, next, size)}); !errors.Is(err, ErrBusy) {
				t.Errorf("append to a full queue: %v", err)
			}
			time.Sleep(time.Second) // a pause the connection must survive
			mem.each(func(w *memWire) { w.set(flowing) })
			for ready := false; !ready || acked < next-1; {
				switch ev := <-heard.heard; ev.kind {
				case "ready":
					ready = true
				case "acked":
					if ev.ack.Seq != acked+1 {
						t.Fatalf("ack of %v after %v", ev.ack.Seq, acked)
					}
					acked++
				default:
					t.Fatalf("%v: %v", ev.kind, ev.err)
				}
			}
		}
		if s := p.Status(); s.Lost != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestSlowLink sends one long entry over a link so slow that it takes half a
// minute: the connection is not taken for dead.
func TestSlowLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		n2 := start(t, "n2", where, mem.on("two"))
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
			cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				nc, err := mem.dial(ctx, address)
				return slowConn{nc}, err
			}
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		begin := time.Now()
		check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 12<<20)}))
		for {
			select {
			case ev := <-heard.heard:
				if ev.kind != "acked" {
					t.Fatalf("%v after %v: %v", ev.kind, time.Since(begin), ev.err)
				}
				if d := time.Since(begin); d < 20*time.Second {
					t.Errorf("12 MiB took %v: the link is not slow", d)
				}
				return
			case <-time.After(time.Minute):
				t.Fatal("no ack")
			}
		}
	})
}

// slowConn writes 32 KiB in 64 ms.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n:min(n+32<<10, len(p))])
		n += k
		time.Sleep(64 * time.Millisecond)
	}
	return n, err
}

// TestUnreadAnswers: a caller that does not read its answers is disconnected
// before they fill the memory.
func TestUnreadAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		got := make(chan *Caller, 1)
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			cfg.Handler = &funcs{appendFn: func(from *Caller, _ *AppendItem) { got <- from }}
		})
		heard := newEars()
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		check(t, p.Append(AppendItem{5, 0, entry(idA, 5, 1, 10)}))
		c := <-got
		synctest.Wait()
		mem.each(func(w *memWire) { w.set(held) })
		for seq := facet.Seq(1); c.ctx.Err() == nil; seq++ {
			c.Nacked(idA, 5, seq, errors.New("a text that takes its room in every answer to every append of this test"))
			if seq > maxReplies/10 {
				t.Fatal("answers pile up without a bound")
			}
			if seq%10000 == 0 {
				synctest.Wait()
			}
		}
		mem.each((*memWire).cut)
		heard.next(t, "lost")
		if err := c.conn.Err(); !errors.Is(err, wire.ErrSlowReader) {
			t.Errorf("the connection ended with %v, want ErrSlowReader", err)
		}
	})
}

// TestNonsenseUnderLoad: an answer that cannot be read ends the connection, also
// while more is appended than the peer takes.
func TestNonsenseUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			cfg.Handler = &funcs{appendFn: func(from *Caller, a *AppendItem) {
				time.Sleep(time.Millisecond)
				if a.Entry.Seq == 100 {
					from.whole(typeAck, 0, 0, []byte{1})
				}
			}}
		})
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		stop := make(chan struct{})
		defer close(stop)
		go func() {
			for seq := facet.Seq(1); ; seq++ {
				p.Append(AppendItem{5, 0, entry(idA, 5, seq, 1000)})
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
				}
			}
		}()
		begin := time.Now()
		if ev := heard.next(t, "lost"); !errors.Is(ev.err, ErrMalformed) || time.Since(begin) > 2*time.Second {
			t.Errorf("lost after %v: %v", time.Since(begin), ev.err)
		}
	})
}

// TestLongEntryFetched: while a long entry waits for a slow peer, acknowledgements
// may wait behind it.
func TestLongEntryFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const long = 40 << 20
		mem, where, heard := newMemNet(), newAddresses(), newEars()
		callers := make(chan *Caller, 1)
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			cfg.Handler = &funcs{
				fetchFn: func(_ context.Context, from *Caller, r FetchRequest, out *EntryWriter) error {
					mem.each(func(w *memWire) { w.set(held) })
					for seq := facet.Seq(1); seq <= 3; seq++ { // the writer is stuck with one of these
						from.Acked(idB, 7, seq)
						time.Sleep(time.Millisecond)
					}
					callers <- from
					for seq := r.From; ; seq++ {
						if more, err := out.Write(entry(idA, 7, seq, long)); err != nil || !more {
							return err
						}
					}
				},
			}
		})
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Acks = heard
		})
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		connect(t, p)
		heard.next(t, "ready")
		fetched := make(chan error)
		go func() {
			r, err := p.Fetch(t.Context(), FetchRequest{Incarnation: idA, Epoch: 7, From: 1})
			if err == nil && (len(r.Entries) != 1 || len(r.Entries[0].Pages) != long || !r.More) {
				err = fmt.Errorf("%d entries, more %v", len(r.Entries), r.More)
			}
			fetched <- err
		}()
		from := <-callers
		synctest.Wait()
		for seq := facet.Seq(1); seq <= 1000; seq++ {
			from.Acked(idA, 7, seq)
		}
		time.Sleep(time.Second)
		mem.each(func(w *memWire) { w.set(flowing) })
		for range 3 + 1000 {
			heard.next(t, "acked")
		}
		check(t, <-fetched)
	})
}
