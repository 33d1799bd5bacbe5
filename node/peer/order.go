package peer

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/placement"
)

// OrderKind is what the owner of a facet is to do. The list is append-only.
type OrderKind uint8

const (
	// OrderMove: hand the facet over, to another owner, another set, or both.
	OrderMove OrderKind = 1
	// OrderWake: open the facet, so that its replicas hear what is committed when
	// it goes to rest again.
	OrderWake OrderKind = 2
	// OrderWarm: a member that is to become the owner, or has just become it, makes
	// ready. Before, it brings its copy to its file, so that little of the log is to
	// be read then; after, it begins to open the facet, and says so at once: what is
	// asked of it from here on waits there.
	OrderWarm OrderKind = 3
	// OrderTell: the owner tells the asking node what is committed (R10), by a Known
	// that comes behind the entries it speaks of. For a member that is read.
	OrderTell OrderKind = 4
	// OrderHeal: the copy of the node that asks was found to be damaged when it had
	// promised Epoch. The owner opens the facet in a higher one, and fills the copy.
	OrderHeal OrderKind = 5
)

func (k OrderKind) String() string {
	switch k {
	case OrderMove:
		return "move"
	case OrderWake:
		return "wake"
	case OrderWarm:
		return "warm"
	case OrderTell:
		return "tell"
	case OrderHeal:
		return "heal"
	}
	return fmt.Sprintf("order_%d", uint8(k))
}

// Order is what a node is asked to do with a facet it owns, or is about to own.
type Order struct {
	Kind        OrderKind
	Incarnation facet.Incarnation
	// Epoch is the one the asking side saw in its placement table: an order is
	// about that and nothing later. See OrderHeal for its own.
	Epoch facet.Epoch
	// Owner and Set are what a move wants; one of them may be left as it is.
	Owner cluster.NodeID
	Set   placement.Set
}

func (o *Order) check() error {
	wants := o.Owner != "" || !o.Set.IsZero()
	_, err := cluster.ParseNodeID(string(o.Owner))
	switch {
	case o.Incarnation.IsZero() || o.Epoch == 0,
		o.Kind < OrderMove || o.Kind > OrderHeal,
		wants != (o.Kind == OrderMove),
		o.Owner != "" && err != nil:
		return fmt.Errorf("%w: order %v of %v in epoch %v to %q, set %v", ErrInvalid, o.Kind, o.Incarnation, o.Epoch, o.Owner, o.Set)
	}
	return nil
}

// Orders serves what other nodes ask of the owner here.
type Orders interface {
	// Order carries one order out and returns when that is done. Each call has a
	// goroutine of its own and ends with ctx, which ends with the connection. The
	// asking side gets the error's name, if it has one of package peer or replica,
	// and its text.
	Order(ctx context.Context, from *Caller, o Order) error
}

const maxOrder = 1 + 16 + 8 + 1 + cluster.MaxNodeIDLen + 1 + placement.MaxMembers*(1+cluster.MaxNodeIDLen+16)

func appendOrder(dst []byte, o *Order) []byte {
	dst = append(append(dst, byte(o.Kind)), o.Incarnation[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.Epoch))
	dst = append(append(dst, byte(len(o.Owner))), o.Owner...)
	dst = append(dst, byte(o.Set.Len()))
	for _, m := range o.Set.Members() {
		dst = append(append(dst, byte(len(m.Node))), m.Node...)
		dst = append(dst, m.Store[:]...)
	}
	return dst
}

func decodeOrder(body []byte) (o Order, err error) {
	d := decoder{src: body}
	o.Kind = OrderKind(d.u8("kind"))
	o.Incarnation = d.incarnation("incarnation")
	o.Epoch = facet.Epoch(d.u64("epoch"))
	o.Owner = cluster.NodeID(d.take("owner", int(d.u8("owner"))))
	n := int(d.u8("set"))
	if n > placement.MaxMembers {
		d.fail("set")
		n = 0
	}
	list := make([]placement.Member, n)
	for i := range list {
		list[i].Node = cluster.NodeID(d.take("member", int(d.u8("member"))))
		copy(list[i].Store[:], d.take("store", len(list[i].Store)))
		if i > 0 && list[i-1].Node >= list[i].Node {
			d.fail("set") // one encoding for one set
		}
	}
	if d.err == nil {
		if o.Set, err = placement.NewSet(list...); err == nil {
			err = o.check()
		}
		if err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return o, d.end("order")
}

// appendDone appends the answer to an order: an outcome, and in words what the
// outcome does not say.
func appendDone(dst []byte, err error) []byte {
	dst = appendOutcome(dst, err)
	text := ""
	if err != nil {
		text = err.Error()
		text = text[:min(len(text), maxText)]
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(text))), text...)
}

func decodeDone(body []byte) (answer, err error) {
	d := decoder{src: body}
	answer = d.outcome()
	n := int(d.u16("text"))
	if n > maxText || answer == nil && n > 0 {
		d.fail("text")
	}
	if text := string(d.take("text", n)); text != "" {
		answer = &toldError{text: text, err: answer}
	}
	return answer, d.end("done")
}

// toldError is an error of another node in its words; errors.Is finds its name.
type toldError struct {
	text string
	err  error
}

func (e *toldError) Error() string { return e.text }
func (e *toldError) Unwrap() error { return e.err }

// Order asks the peer, which owns a facet, to do something with it, and returns
// when that is done. ErrBusy says that it has many orders under way, ErrRefused
// that it takes none; other errors are those of Prepare or the peer's own. When ctx
// ends first, or with ErrLost, the order may still be carried out.
func (p *Peer) Order(ctx context.Context, o Order) error {
	if err := o.check(); err != nil {
		return fmt.Errorf("order at %v: %w", p.node, err)
	}
	_, err := ask(ctx, p, "order", 1, func(l *link) (struct{}, error) { return struct{}{}, l.order(ctx, &o) })
	return err
}

func (l *link) order(ctx context.Context, o *Order) error {
	var answer error
	err := l.ask(ctx, typeOrder, typeDone, maxOrder,
		func(dst []byte) []byte { return appendOrder(dst, o) },
		func(f wire.Frame) (bool, error) {
			var err error
			answer, err = decodeDone(f.Body)
			return true, err
		})
	if err != nil {
		return err
	}
	return answer
}

// order runs one ORDER in a goroutine of the transport.
func (c *Caller) order(id uint32, o Order) {
	done := func(err error) { c.whole(typeDone, 0, id, appendDone(nil, err)) }
	if c.t.cfg.Orders == nil {
		done(ErrRefused)
		return
	}
	if c.ordered.Add(1) > maxOrders {
		c.ordered.Add(-1)
		done(ErrBusy)
		return
	}
	c.t.wg.Go(func() {
		defer c.ordered.Add(-1)
		done(c.t.cfg.Orders.Order(c.ctx, c, o))
	})
}
