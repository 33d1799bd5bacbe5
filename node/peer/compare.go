package peer

import (
	"context"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/wire"
)

// Digest stands for the copies of many facets.
type Digest [16]byte

// Digests are those of the facets whose ids begin with 0, 1, … 255.
type Digests [256]Digest

// CopyState is what a node has of a facet.
type CopyState struct {
	Held   bool
	Health replica.Health
	Last   facet.Position // end of its log
}

// Comparer serves comparisons of copies (rule R52).
type Comparer interface {
	// Digests are those of the copies here of facets that the asking node owns, as far
	// as both are members. It may walk over everything that is kept here.
	Digests(from Remote) *Digests
	// Copy is what this node has of a facet.
	Copy(facet.Incarnation) CopyState
	// Outvoted hears that a majority of the members have other content at a position.
	// The copy here is taken out of service if it is there still (R51).
	Outvoted(from Remote, id facet.Incarnation, at facet.Position) error
}

// compareKind is what a COMPARE asks for. The list is append-only.
type compareKind uint8

const (
	compareDigests  compareKind = 1
	compareCopies   compareKind = 2
	compareOutvoted compareKind = 3
)

const (
	positionLen  = 8 + 8 + 16
	copyStateLen = 1 + positionLen
)

// compare is a COMPARE.
type compare struct {
	kind compareKind
	ids  []facet.Incarnation
	at   facet.Position // with compareOutvoted
}

func (q *compare) check() error {
	n := len(q.ids)
	switch {
	case q.kind == compareDigests && n == 0 && q.at.IsZero(),
		q.kind == compareCopies && n > 0 && n <= MaxItems && q.at.IsZero(),
		q.kind == compareOutvoted && n == 1 && q.at.Seq > 0 && q.at.Epoch > 0:
		return nil
	}
	return fmt.Errorf("%w: compare of kind %d, %d facets, at %v", ErrInvalid, q.kind, n, q.at)
}

func appendCompare(dst []byte, q *compare) []byte {
	dst = append(dst, byte(q.kind))
	for i := range q.ids {
		dst = append(dst, q.ids[i][:]...)
	}
	if q.kind == compareOutvoted {
		dst = q.at.AppendBinary(dst)
	}
	return dst
}

func decodeCompare(body []byte) (q compare, err error) {
	d := decoder{src: body}
	q.kind = compareKind(d.u8("kind"))
	n := len(d.src) / len(facet.Incarnation{})
	if q.kind == compareOutvoted {
		n = 1
	}
	if n > MaxItems {
		d.fail("number")
		n = 0
	}
	q.ids = make([]facet.Incarnation, n)
	for i := range q.ids {
		q.ids[i] = d.incarnation("incarnation")
	}
	if q.kind == compareOutvoted {
		q.at = d.position("position")
	}
	if d.err == nil {
		if err := q.check(); err != nil {
			d.err = fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return q, d.end("compare")
}

func appendDigests(dst []byte, all *Digests) []byte {
	for i := range all {
		dst = append(dst, all[i][:]...)
	}
	return dst
}

func appendCopyState(dst []byte, c *CopyState) []byte {
	state := byte(0)
	if c.Held {
		state = 1 + byte(c.Health)
	}
	return c.Last.AppendBinary(append(dst, state))
}

// decodeCompared reads the answer to q: into all, or into copies.
func decodeCompared(body []byte, q *compare, all *Digests, copies []CopyState) (answer, err error) {
	d := decoder{src: body}
	if answer = d.outcome(); answer != nil {
		return answer, d.end("compared")
	}
	switch q.kind {
	case compareDigests:
		for i := range all {
			copy(all[i][:], d.take("digest", len(Digest{})))
		}
	case compareCopies:
		for i := range copies {
			state := d.u8("state")
			c := CopyState{Held: state > 0, Last: d.position("position")}
			if state > 0 {
				c.Health = replica.Health(state - 1)
			}
			if c.Health > replica.Diverged || !c.Held && !c.Last.IsZero() {
				d.fail("state")
			}
			copies[i] = c
		}
	}
	return nil, d.end("compared")
}

// Digests asks the peer for digests of its copies of facets this node owns.
func (p *Peer) Digests(ctx context.Context) (*Digests, error) {
	all := new(Digests)
	return all, p.compare(ctx, &compare{kind: compareDigests}, all, nil)
}

// Copies asks what the peer has of facets, at most MaxItems. The answer has one item
// for each.
func (p *Peer) Copies(ctx context.Context, ids []facet.Incarnation) ([]CopyState, error) {
	copies := make([]CopyState, len(ids))
	return copies, p.compare(ctx, &compare{kind: compareCopies, ids: ids}, nil, copies)
}

// Outvoted tells the peer that a majority of the members have other content at a
// position than its copy.
func (p *Peer) Outvoted(ctx context.Context, id facet.Incarnation, at facet.Position) error {
	return p.compare(ctx, &compare{kind: compareOutvoted, ids: []facet.Incarnation{id}, at: at}, nil, nil)
}

func (p *Peer) compare(ctx context.Context, q *compare, all *Digests, copies []CopyState) error {
	if err := q.check(); err != nil {
		return fmt.Errorf("compare with %v: %w", p.node, err)
	}
	_, err := ask(ctx, p, "compare", max(len(q.ids), 1), func(l *link) (struct{}, error) {
		var answer error
		err := l.ask(ctx, typeCompare, typeCompared, 1+len(q.ids)*len(facet.Incarnation{})+positionLen,
			func(dst []byte) []byte { return appendCompare(dst, q) },
			func(f wire.Frame) (bool, error) {
				var err error
				answer, err = decodeCompared(f.Body, q, all, copies)
				return true, err
			})
		if err == nil {
			err = answer
		}
		return struct{}{}, err
	})
	return err
}

// compare answers one COMPARE. One that walks over everything has a goroutine of the
// transport, one at a time for each peer.
func (c *Caller) compare(id uint32, q *compare) {
	var server Comparer
	if c.t.cfg.Comparer != nil {
		server = c.t.cfg.Comparer()
	}
	refuse := func(err error) { c.whole(typeCompared, 0, id, appendOutcome(nil, err)) }
	if server == nil {
		refuse(ErrRefused)
		return
	}
	if c.comparing.Swap(true) {
		refuse(ErrBusy)
		return
	}
	c.t.wg.Go(func() {
		body := appendOutcome(nil, nil)
		switch q.kind {
		case compareDigests:
			body = appendDigests(body, server.Digests(c.remote))
		case compareCopies:
			for _, id := range q.ids {
				s := server.Copy(id)
				body = appendCopyState(body, &s)
			}
		case compareOutvoted:
			body = appendOutcome(nil, server.Outvoted(c.remote, q.ids[0], q.at))
		}
		c.comparing.Store(false)
		c.whole(typeCompared, 0, id, body)
	})
}
