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
	n := c.first(k.req.Name)
	if k.req.Read == facet.ReadFollower {
		n = c.home.Load() // the owner is one of many that may answer
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
		if whole {
			k.moved()
		}
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
	a := attempt{effect: k.eff, freshKey: k.ownKey}
	doubt := false
	for {
		a.observe(st, err, c.timeLeft(ctx, begin))
		if a.freshTok = c.renewable(k, a.code); a.freshTok {
			n.retire() // all its connections may be of that token
		}
		var next *node
		if a.code == facet.CodeNotOwner {
			var straight bool
			var ferr error
			if next, straight, doubt, ferr = c.ask(k.req.Name, n, err); ferr != nil {
				return k.fail(giveUp, st, ferr)
			}
			a.detour = !straight
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
			k.event("redirect", next, err)
			a.redirects++
		case again:
			if next == nil {
				next = c.elsewhere(k.req.Name, n, st, a.code)
			}
			k.event("retry", next, err)
			if a.code == facet.CodeKeyExpired {
				k.rekey(ctx, c.keys.next(k.req.Name))
			}
			a.redirects = 0
			a.pauses++
			if werr := sleep(ctx, pause); werr != nil {
				if maybe {
					return k.fail(unknown, st, errors.Join(werr, err))
				}
				return k.fail(giveUp, dropped, errors.Join(werr, err))
			}
		default:
			return k.fail(act, st, err)
		}
		n = next
		a.maybe = maybe
		a.try++
		if st, err = c.try(ctx, k, n, whole); err == nil {
			c.settle(k, n, doubt)
			return nil
		}
	}
}

// observe puts what became of a try into the attempt.
func (a *attempt) observe(st stage, err error, left time.Duration) {
	a.stage, a.code, a.hint, a.detour, a.left = st, 0, 0, false, left
	a.jitter = rand.Float64()
	var e *facet.Error
	if st == answered && errors.As(err, &e) {
		a.code, a.hint = e.Code, e.RetryAfter
	}
}

// ask finds where a redirect leads. One that names nobody leads to anybody else,
// after a pause: the owner is not known yet.
func (c *Client) ask(name facet.Name, n *node, err error) (next *node, straight, doubt bool, ferr error) {
	var e *facet.Error
	errors.As(err, &e) // it has a code
	if e.Owner == "" {
		return c.nodes.after(n), false, false, nil
	}
	return c.follow(name, n, e)
}

// hear takes in what a failure that is not retried tells about where the facet is.
func (c *Client) hear(name facet.Name, n *node, st stage, code facet.Code, err error) {
	switch {
	case code == facet.CodeNotOwner:
		c.ask(name, n, err) // the next call goes where it leads
	case st != answered:
		c.elsewhere(name, n, st, code)
	}
}

// settle remembers who answered a call that was not answered at first.
func (c *Client) settle(k *call, n *node, doubt bool) {
	if k.req.Read == facet.ReadFollower {
		return // who answered need not be the owner
	}
	if k.req.Name == (facet.Name{}) || !doubt && n == c.home.Load() && c.owners.get(k.req.Name) == nil {
		return
	}
	c.owners.settle(k.req.Name, n, k.pos.Epoch, doubt)
}

// timeLeft is how long the call may still be retried.
func (c *Client) timeLeft(ctx context.Context, begin time.Time) time.Duration {
	d, ok := ctx.Deadline()
	left := c.opt.RetryFor - time.Since(begin)
	switch {
	case ctx.Err() != nil:
		return 0
	case c.opt.RetryFor == 0 && ok:
		return time.Until(d)
	case c.opt.RetryFor == 0:
		return defaultRetryFor - time.Since(begin)
	case ok:
		return min(left, time.Until(d))
	}
	return left
}

// fail frees the call and makes the error its caller gets.
func (k *call) fail(act action, st stage, err error) error {
	err = k.failure(act, st, err)
	k.endSpan(err)
	k.free()
	return err
}

// failure is the error a caller gets.
func (k *call) failure(act action, st stage, err error) error {
	var host string
	if k.node != nil {
		host = k.node.at.host
	}
	named := func(code facet.Code, format string, args ...any) *facet.Error {
		e := facet.Errorf(code, format, args...)
		e.Request = k.req.Trace.String()
		return e
	}
	switch act {
	case unknown:
		if errors.Is(err, facet.ErrUnknownOutcome) {
			return err
		}
		return fmt.Errorf("%w: %w", named(facet.CodeUnknownOutcome,
			"the write may or may not have taken effect; look, or use an idempotency key"), err)
	case txGone:
		return fmt.Errorf("%w: %w", named(facet.CodeTxClosed, "the transaction was rolled back with its connection"), err)
	}
	switch st {
	case notSent:
		return fmt.Errorf("%w: %w", named(facet.CodeUnavailable, "reach %s", host), err)
	case lost:
		if k.eff == effRead {
			return fmt.Errorf("%w: %w", named(facet.CodeUnavailable, "no answer from %s", host), err)
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
