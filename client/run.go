package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/facetd/facetd/facet"
)

// do sends the call and waits for its answer, whole or its first part, trying as
// often as decide allows. On success the caller owns k and frees it; on error k
// is freed already.
func (c *Client) do(ctx context.Context, k *call, whole bool) error {
	n := c.owners.get(k.req.Name)
	if n == nil {
		n = c.endpoints[int(c.preferred.Load())%len(c.endpoints)]
	}
	st, err := c.try(ctx, k, n, whole)
	if err == nil {
		return nil
	}
	return c.retry(ctx, k, n, whole, st, err)
}

// try is one try at one node.
func (c *Client) try(ctx context.Context, k *call, n *node, whole bool) (stage, error) {
	k.node = n
	cn, err := n.connect(ctx)
	if err == nil {
		err = cn.send(ctx, k)
	}
	if err != nil {
		return unsentStage(ctx, err), err
	}
	return k.wait(ctx, cn, whole)
}

// wait awaits the answer and says what an error means.
func (k *call) wait(ctx context.Context, cn *conn, whole bool) (stage, error) {
	err := cn.await(ctx, k, whole)
	switch {
	case err == nil:
		return answered, nil
	case k.isLost:
		return lost, fmt.Errorf("connection to %s: %w", cn.node.at.host, err)
	}
	if _, ok := err.(*facet.Error); ok {
		return answered, err
	}
	return expired, err
}

// unsentStage tells an error that ends the call from one of the connection.
func unsentStage(ctx context.Context, err error) stage {
	var e *facet.Error
	switch {
	case errors.As(err, &e):
		return answered // a limit of this side, or the node's refusal of the connection
	case ctx.Err() != nil:
		return dropped
	}
	return notSent
}

// retry goes on after a first try that failed.
func (c *Client) retry(ctx context.Context, k *call, n *node, whole bool, st stage, err error) error {
	begin := time.Now()
	a := attempt{effect: k.eff}
	for {
		a.stage, a.code, a.hint, a.left = st, 0, 0, c.timeLeft(ctx, begin)
		a.jitter = rand.Float64()
		var e *facet.Error
		if st == answered && errors.As(err, &e) {
			a.code, a.hint = e.Code, e.RetryAfter
		}
		act, pause, maybe := decide(a)
		if act == again && c.ctx.Err() != nil {
			act = giveUp
			if maybe {
				act = unknown
			}
		}
		switch act {
		case redirect:
			next, rerr := c.follow(k.req.Name, e)
			if rerr != nil {
				return k.fail(giveUp, st, rerr)
			}
			n = next
			a.redirects++
		case again:
			n = c.elsewhere(k.req.Name, n, st, a.code)
			a.redirects = 0
			if werr := sleep(ctx, pause); werr != nil {
				if maybe {
					return k.fail(unknown, st, errors.Join(werr, err))
				}
				return k.fail(giveUp, dropped, errors.Join(werr, err))
			}
		default:
			return k.fail(act, st, err)
		}
		a.maybe = maybe
		a.try++
		if st, err = c.try(ctx, k, n, whole); err == nil {
			return nil
		}
	}
}

// timeLeft is how long the call may still be retried.
func (c *Client) timeLeft(ctx context.Context, begin time.Time) time.Duration {
	left := c.opt.RetryFor - time.Since(begin)
	if d, ok := ctx.Deadline(); ok {
		left = min(left, time.Until(d))
	}
	if ctx.Err() != nil {
		return 0
	}
	return left
}

// follow learns the owner a redirect names.
func (c *Client) follow(name facet.Name, e *facet.Error) (*node, error) {
	if e.Owner == "" {
		// It does not know the owner either; any endpoint may, later.
		return c.endpoints[int(c.preferred.Add(1))%len(c.endpoints)], nil
	}
	n, err := c.nodeAt(e.Owner)
	if err != nil {
		return nil, fmt.Errorf("follow redirect: %w", err)
	}
	c.owners.learn(name, n, e.Epoch)
	return n, nil
}

// elsewhere chooses the node of the next try: the same when it answered, another
// endpoint when it could not be reached.
func (c *Client) elsewhere(name facet.Name, n *node, st stage, code facet.Code) *node {
	if st == answered && code != facet.CodeUnavailable {
		return n
	}
	c.owners.forget(name, n)
	if p := c.preferred.Load(); c.endpoints[int(p)%len(c.endpoints)] == n {
		c.preferred.CompareAndSwap(p, p+1)
	}
	return c.endpoints[int(c.preferred.Load())%len(c.endpoints)]
}

// fail frees the call and makes the error its caller gets.
func (k *call) fail(act action, st stage, err error) error {
	eff := k.eff
	var host string
	if k.node != nil {
		host = k.node.at.host
	}
	k.free()
	switch act {
	case unknown:
		if errors.Is(err, facet.ErrUnknownOutcome) {
			return err
		}
		return fmt.Errorf("%w: %w", facet.Errorf(facet.CodeUnknownOutcome,
			"the write may or may not have taken effect; look, or use an idempotency key"), err)
	case txGone:
		return fmt.Errorf("%w: %w", facet.Errorf(facet.CodeTxClosed, "the transaction was rolled back with its connection"), err)
	}
	switch st {
	case notSent:
		return fmt.Errorf("%w: %w", facet.Errorf(facet.CodeUnavailable, "reach %s", host), err)
	case lost:
		if eff == effRead {
			return fmt.Errorf("%w: %w", facet.Errorf(facet.CodeUnavailable, "no answer from %s", host), err)
		}
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
