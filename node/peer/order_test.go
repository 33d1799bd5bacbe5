package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

type orderFunc func(ctx context.Context, from *Caller, o Order) error

func (f orderFunc) Order(ctx context.Context, from *Caller, o Order) error { return f(ctx, from, o) }

// TestOrders has orders carried out, and refused by name and in words.
func TestOrders(t *testing.T) {
	where := newAddresses()
	start(t, "n2", where, func(cfg *Config) {
		cfg.Orders = orderFunc(func(ctx context.Context, from *Caller, o Order) error {
			if from.Remote().Node != "n1" || ctx.Err() != nil {
				t.Errorf("from %v, %v", from.Remote(), ctx.Err())
			}
			switch o.Epoch {
			case 7:
				if want := sampleOrder(); o.Kind != want.Kind || o.Incarnation != want.Incarnation || o.Owner != want.Owner || !o.Set.Equal(want.Set) {
					t.Errorf("order arrives as %+v", o)
				}
				return nil
			case 8:
				return fmt.Errorf("%w: the facet is pinned", ErrRefused)
			case 9:
				return fmt.Errorf("fence: %w", &replica.EpochError{Promised: 11})
			}
			return errors.New("it rains " + strings.Repeat("a lot ", 100))
		})
	})
	start(t, "n3", where, nil) // takes no orders
	tr := start(t, "n1", where, nil)
	p := tr.Peer("n2")
	order := func(e facet.Epoch) error {
		o := *sampleOrder()
		o.Epoch = e
		return p.Order(t.Context(), o)
	}
	check(t, order(7))
	if err := order(8); !errors.Is(err, ErrRefused) || !strings.HasSuffix(err.Error(), "order at n2: refused by peer: the facet is pinned") {
		t.Errorf("refused: %v", err)
	}
	if err := order(9); !errors.Is(err, replica.ErrEpoch) || !strings.Contains(err.Error(), "fence: epoch") {
		t.Errorf("fenced: %v", err)
	} else if e, ok := errors.AsType[*replica.EpochError](err); !ok || e.Promised != 11 {
		t.Errorf("fenced: %v", err)
	}
	if err := order(10); err == nil || !strings.Contains(err.Error(), "order at n2: it rains a lot") || len(err.Error()) > 2*maxText {
		t.Errorf("in words: %v", err)
	}
	if err := tr.Peer("n3").Order(t.Context(), *sampleOrder()); !errors.Is(err, ErrRefused) {
		t.Errorf("at a node that takes none: %v", err)
	}
	if err := p.Order(t.Context(), Order{Kind: OrderWake, Incarnation: idA, Epoch: 1, Owner: "n1"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("an order nobody can give: %v", err)
	}
}

// TestOrdersAreBounded gives more orders than may be under way, and ends the
// connection: those under way end with it.
func TestOrdersAreBounded(t *testing.T) {
	where := newAddresses()
	begun := make(chan struct{}, maxOrders)
	start(t, "n2", where, func(cfg *Config) {
		cfg.Orders = orderFunc(func(ctx context.Context, _ *Caller, _ Order) error {
			begun <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		})
	})
	tr := start(t, "n1", where, nil)
	p := tr.Peer("n2")
	var wg sync.WaitGroup
	for range maxOrders {
		wg.Go(func() {
			if err := p.Order(t.Context(), *sampleOrder()); !errors.Is(err, ErrLost) {
				t.Errorf("order of a connection that ended: %v", err)
			}
		})
	}
	for range maxOrders {
		<-begun
	}
	if err := p.Order(t.Context(), *sampleOrder()); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gaveUp := errors.New("gave up")
	cancel(gaveUp)
	if err := p.Order(ctx, *sampleOrder()); !errors.Is(err, gaveUp) && !errors.Is(err, ErrBusy) {
		t.Errorf("given up: %v", err)
	}
	tr.Forget("n2")
	wg.Wait()
}
