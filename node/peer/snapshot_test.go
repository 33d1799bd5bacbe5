package peer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

// book is a snapshot whose pages tell their number, and how often they were read.
type book struct {
	reads atomic.Int64
	torn  uint32 // this page cannot be read, unless zero
}

func (b *book) ReadPage(pgno uint32, dst []byte) error {
	if pgno == b.torn {
		return errors.New("page is torn")
	}
	b.reads.Add(1)
	copy(dst, pageOf(pgno))
	return nil
}

func pageOf(pgno uint32) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint32(nil, pgno*2654435761), facet.PageSize/4)
}

// readBook reads a whole snapshot in pieces of odd sizes and checks every page.
func readBook(pages uint32, src io.Reader) error {
	r := rand.New(rand.NewPCG(uint64(pages), 0))
	var all bytes.Buffer
	for {
		buf := make([]byte, 1+r.IntN(100<<10))
		n, err := src.Read(buf)
		all.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if all.Len() != int(pages)*facet.PageSize {
		return fmt.Errorf("%d bytes, want %d pages", all.Len(), pages)
	}
	for p := uint32(1); p <= pages; p++ {
		if !bytes.Equal(all.Next(facet.PageSize), pageOf(p)) {
			return fmt.Errorf("page %d is not what was sent", p)
		}
	}
	return nil
}

func offerOf(pages uint32) SnapshotOffer { return SnapshotOffer{idA, 8, pos, pages} }

func installs(f func(ctx context.Context, from Remote, o SnapshotOffer, src io.Reader) (facet.Position, error)) func(*Config) {
	return func(cfg *Config) { cfg.Snapshots = &funcs{installFn: f} }
}

func TestSnapshot(t *testing.T) {
	for _, pages := range []uint32{0, 1, 14, 15, 16, 1000} {
		where := newAddresses()
		start(t, "n2", where, installs(func(_ context.Context, from Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
			if from.Node != "n1" || o != offerOf(pages) {
				t.Errorf("from %v: %+v", from, o)
			}
			return facet.Position{Epoch: 7, Seq: 50}, readBook(o.Pages, src)
		}))
		p := start(t, "n1", where, nil).Peer("n2")
		b := new(book)
		to, base, err := p.SendSnapshot(t.Context(), offerOf(pages), b)
		check(t, err)
		if to.Node != "n2" || to.Store.IsZero() || base.Seq != 50 || b.reads.Load() != int64(pages) {
			t.Errorf("%d pages: base %v after %d reads", pages, base, b.reads.Load())
		}
	}
}

// TestSnapshotAnswers: what the receiver says reaches the sender at once, also
// before all was sent.
func TestSnapshotAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer error
		read   int64
	}{
		{"not needed", nil, 0},
		{"not needed any more", nil, 5 << 20},
		{"epoch", &replica.EpochError{Promised: 11}, 100},
		{"full", replica.ErrFull, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			where := newAddresses()
			start(t, "n2", where, installs(func(_ context.Context, _ Remote, _ SnapshotOffer, src io.Reader) (facet.Position, error) {
				_, err := io.CopyN(io.Discard, src, c.read)
				return pos, errors.Join(err, c.answer)
			}))
			p := start(t, "n1", where, nil).Peer("n2")
			b := new(book)
			_, base, err := p.SendSnapshot(t.Context(), offerOf(100_000), b)
			if c.answer == nil && (err != nil || base != pos) {
				t.Errorf("sent: %v, %v", base, err)
			}
			if e, ok := c.answer.(*replica.EpochError); ok {
				if got, ok := errors.AsType[*replica.EpochError](err); !ok || got.Promised != e.Promised {
					t.Errorf("sent: %v, want %v", err, c.answer)
				}
			} else if c.answer != nil && !errors.Is(err, c.answer) {
				t.Errorf("sent: %v, want %v", err, c.answer)
			}
			if n := b.reads.Load(); n > 50_000 {
				t.Errorf("%d pages were sent to somebody who did not want them", n)
			}
		})
	}
}

// TestSnapshotSource: a page that cannot be read ends the transfer on both sides.
func TestSnapshotSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		over := make(chan error, 1)
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(_ context.Context, _ Remote, _ SnapshotOffer, src io.Reader) (facet.Position, error) {
				_, err := io.Copy(io.Discard, src)
				over <- err
				return facet.Position{}, err
			})(cfg)
		})
		n1 := start(t, "n1", where, mem.on("one"))
		defer n1.Close()
		defer n2.Close()
		_, _, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(100), &book{torn: 50})
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("sent: %v", err)
		}
		begin := time.Now()
		if err := <-over; !errors.Is(err, ErrLost) || time.Since(begin) > resumeWithin {
			t.Errorf("received: %v after %v", err, time.Since(begin))
		}
	})
}

// TestSnapshotResumes cuts the connection again and again: no page is fed twice
// or missed, and few are sent twice.
func TestSnapshotResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pages = 3000
		mem, where := newMemNet(), newAddresses()
		var calls, cuts int
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(_ context.Context, _ Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
				calls++
				return pos, readBook(o.Pages, src)
			})(cfg)
		})
		r := rand.New(rand.NewPCG(3, 4))
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				nc, err := mem.dial(ctx, address)
				mem.each(func(w *memWire) {
					w.mu.Lock()
					w.limit = 100<<10 + r.IntN(2<<20)
					w.mu.Unlock()
				})
				cuts++
				return nc, err
			}
		})
		defer n1.Close()
		defer n2.Close()
		b := new(book)
		_, base, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(pages), b)
		check(t, err)
		if base != pos || calls != 1 {
			t.Errorf("base %v after %d installs", base, calls)
		}
		if cuts < 5 {
			t.Errorf("%d connections: nothing was cut", cuts)
		}
		if n := b.reads.Load(); n > int64(pages+60*cuts) {
			t.Errorf("%d pages read for %d, over %d connections", n, pages, cuts)
		}
	})
}

// TestSnapshotAbandoned: a sender that stays away ends the Install, and one that
// comes back later begins anew.
func TestSnapshotAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		results := make(chan error, 2)
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(_ context.Context, _ Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
				err := readBook(o.Pages, src)
				results <- err
				return pos, err
			})(cfg)
		})
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				nc, err := mem.dial(ctx, address)
				return slowConn{nc}, err
			}
		})
		defer n1.Close()
		defer n2.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, _, err := n1.Peer("n2").SendSnapshot(ctx, offerOf(2000), new(book)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("sent: %v", err)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("the sender gave up after %v", d)
		}
		if err := <-results; !errors.Is(err, ErrLost) {
			t.Errorf("received: %v", err)
		}
		if d := time.Since(begin); d < resumeWithin || d > resumeWithin+10*time.Second {
			t.Errorf("the receiver gave up after %v", d)
		}
		_, _, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(20), new(book))
		check(t, err)
		check(t, <-results)
	})
}

// TestSnapshotReplaced: a newer snapshot of the same sender takes the place of the
// one under way; one of somebody else is told to wait.
func TestSnapshotReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		first := make(chan struct{})
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(ctx context.Context, _ Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
				if o.Pages == 500 { // the old one gets nowhere
					close(first)
					<-ctx.Done()
					return facet.Position{}, context.Cause(ctx)
				}
				return pos, readBook(o.Pages, src)
			})(cfg)
		})
		n1 := start(t, "n1", where, mem.on("one"))
		n3 := start(t, "n3", where, mem.on("three"))
		defer n1.Close()
		defer n2.Close()
		defer n3.Close()
		old := make(chan error)
		go func() {
			_, _, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(500), new(book))
			old <- err
		}()
		<-first
		if _, _, err := n3.Peer("n2").SendSnapshot(t.Context(), offerOf(20), new(book)); !errors.Is(err, ErrBusy) {
			t.Errorf("somebody else: %v, want ErrBusy", err)
		}
		_, base, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(600), new(book))
		if err != nil || base != pos {
			t.Errorf("the new one: %v, %v", base, err)
		}
		mem.each((*memWire).cut)
		// The old one offers itself again and blocks in its Install; it ends with
		// its transport.
		go n1.Close()
		if err := <-old; err == nil {
			t.Error("the old one was installed")
		}
	})
}

// TestSnapshotSlowDisk: an Install that reads nothing for a while holds the sender
// back, in bounded memory, and the connection lives.
func TestSnapshotSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		b := new(book)
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(_ context.Context, _ Remote, o SnapshotOffer, src io.Reader) (facet.Position, error) {
				time.Sleep(20 * time.Second)
				if n := b.reads.Load(); n > 100 {
					t.Errorf("%d pages under way", n)
				}
				buf := make([]byte, facet.PageSize)
				for p := uint32(1); p <= o.Pages; p++ {
					if _, err := io.ReadFull(src, buf); err != nil || !bytes.Equal(buf, pageOf(p)) {
						return facet.Position{}, fmt.Errorf("page %d: %w", p, err)
					}
					if p == o.Pages/2 {
						time.Sleep(20 * time.Second)
					}
				}
				time.Sleep(20 * time.Second) // the sync at the end
				return pos, nil
			})(cfg)
		})
		dials := 0
		n1 := start(t, "n1", where, func(cfg *Config) {
			mem.on("one")(cfg)
			cfg.Dial = func(ctx context.Context, address string) (net.Conn, error) {
				dials++
				return mem.dial(ctx, address)
			}
		})
		defer n1.Close()
		defer n2.Close()
		_, _, err := n1.Peer("n2").SendSnapshot(t.Context(), offerOf(1000), b)
		check(t, err)
		if dials != 1 {
			t.Errorf("%d connections were needed", dials)
		}
	})
}

// TestSnapshotBound: more than maxTransfers at once are told to wait.
func TestSnapshotBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem, where := newMemNet(), newAddresses()
		hold := make(chan struct{})
		n2 := start(t, "n2", where, func(cfg *Config) {
			mem.on("two")(cfg)
			installs(func(context.Context, Remote, SnapshotOffer, io.Reader) (facet.Position, error) {
				<-hold
				return pos, nil
			})(cfg)
		})
		n1 := start(t, "n1", where, mem.on("one"))
		defer n1.Close()
		defer n2.Close()
		p := n1.Peer("n2")
		results := make(chan error)
		for i := range maxTransfers {
			go func() {
				o := offerOf(1)
				o.Incarnation = testID(i + 1)
				_, _, err := p.SendSnapshot(t.Context(), o, new(book))
				results <- err
			}()
		}
		synctest.Wait()
		if _, _, err := p.SendSnapshot(t.Context(), offerOf(1), new(book)); !errors.Is(err, ErrBusy) {
			t.Errorf("one too many: %v", err)
		}
		close(hold)
		for range maxTransfers {
			check(t, <-results)
		}
		_, _, err := p.SendSnapshot(t.Context(), offerOf(1), new(book))
		check(t, err)
		bad := offerOf(1)
		bad.Epoch = 1
		if _, _, err := p.SendSnapshot(t.Context(), bad, new(book)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a snapshot beyond its session: %v", err)
		}
	})
}
