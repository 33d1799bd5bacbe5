package keeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
)

// idleQueue holds the copies whose owners went to rest, until they are brought to
// their files: then they cost no more memory than their state. An entry that is
// lost is no loss: the log's collection finds the copy when it is in the way.
type idleQueue struct {
	kick chan struct{} // holds at most one token: something came in

	mu     sync.Mutex
	queued map[facet.Incarnation]facet.Seq // where the logs of those in due end
	due    []idleCopy                      // by at
}

// idleCopy is a copy to be checkpointed at a time, if its log still ends at end.
type idleCopy struct {
	r     replica.Replica
	end   facet.Seq
	at    time.Time
	tries int
}

func (q *idleQueue) init() {
	q.kick = make(chan struct{}, 1)
	q.queued = make(map[facet.Incarnation]facet.Seq)
}

func (q *idleQueue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.due)
}

func (q *idleQueue) add(r replica.Replica, end facet.Seq) { q.put(idleCopy{r: r, end: end}) }

// put queues a copy, unless it is queued already or the queue is full.
func (q *idleQueue) put(c idleCopy) {
	c.at = time.Now().Add(settleAfter)
	q.mu.Lock()
	id := c.r.ID()
	_, twice := q.queued[id]
	if !twice && len(q.due) >= maxIdle {
		q.mu.Unlock()
		return
	}
	q.queued[id] = c.end
	if twice {
		q.mu.Unlock()
		return
	}
	q.due = append(q.due, c)
	q.mu.Unlock()
	select {
	case q.kick <- struct{}{}:
	default:
	}
}

// take gives a copy whose time has come, or how long until then.
func (q *idleQueue) take(now time.Time) (c idleCopy, wait time.Duration, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		q.due = nil
		return c, 0, false
	}
	c = q.due[0]
	if wait = c.at.Sub(now); wait > 0 {
		return c, wait, true
	}
	q.due[0] = idleCopy{}
	q.due = q.due[1:]
	c.end = q.queued[c.r.ID()]
	delete(q.queued, c.r.ID())
	return c, 0, true
}

// settle hands idle copies to workers as their time comes.
func (k *Keeper) settle() {
	slots := make(chan struct{}, idleWorkers)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for k.ctx.Err() == nil {
		c, wait, ok := k.idle.take(time.Now())
		switch {
		case !ok:
			select {
			case <-k.idle.kick:
			case <-k.ctx.Done():
			}
		case wait > 0:
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-k.ctx.Done():
			}
		default:
			select {
			case slots <- struct{}{}:
				k.wg.Go(func() {
					k.checkpoint(c)
					<-slots
				})
			case <-k.ctx.Done():
			}
		}
	}
}

// checkpoint brings one copy to its file, if it is idle still.
func (k *Keeper) checkpoint(c idleCopy) {
	m := c.r.Meta()
	switch {
	case m.Open || m.Entries == 0 || m.Last.Seq != c.end:
		return // in use again, or done
	case m.CommitKnown < c.end:
		// Not durable here yet, and what is not durable is not committed here (I4).
		if c.tries++; c.tries < settleTries {
			k.idle.put(c)
		}
		return
	}
	err := c.r.CheckpointIdle(k.ctx)
	switch {
	case err == nil:
		k.counts.checkpoints.Add(1)
	case errors.Is(err, replica.ErrOpen), errors.Is(err, replica.ErrDeleted), errors.Is(err, replica.ErrGap),
		errors.Is(err, context.Canceled), errors.Is(err, replica.ErrClosed):
		// Somebody else has it now.
	case errors.Is(err, facet.ErrCorrupt), errors.Is(err, replica.ErrDamaged):
		// Said loudly when it was found.
	case k.alarm():
		k.log.Warn("checkpoint of an idle copy", "facet", c.r.ID(), "error", err)
	}
}
