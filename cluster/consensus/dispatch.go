package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/facetd/facetd/cluster"
)

// dispatcher is the one goroutine that decides where proposals go: into this
// node's Raft while it leads, to the leader while another does.
//
// Here, one entry is on its way to a majority's disks while the next gathers in
// the queue, so the batch grows with the load and an idle node adds no delay.
// To the leader, a few batches are on their way at once, so that one slow
// answer does not hold everybody up.
//
// Invariant: a proposal is taken just before its commands leave this goroutine,
// and waits again only when it is certain that nothing was done with it.
type dispatcher struct {
	n     *Node
	again []*proposal // waiting; go before the queue
	pause time.Time   // nothing goes out before: the last attempt was turned away

	flying   int // batches on their way to the leader
	returned chan []*proposal

	batch    []*proposal
	commands [][]byte
	space    [16]*proposal // of again, when it is short
}

// destination is where proposals go now.
type destination struct {
	here    bool
	leader  cluster.NodeID // zero when nobody is known to lead
	address string
	changed <-chan struct{} // closed when this may have changed
}

func (n *Node) destination() destination {
	n.mu.Lock()
	d := destination{changed: n.rerouted}
	n.mu.Unlock()
	if n.leading.Load() {
		d.here = true
		return d
	}
	if id, address, ok := n.Leader(); ok && id != n.cfg.ID {
		d.leader, d.address = id, address
	}
	return d
}

// reroute tells the dispatcher to look again.
func (n *Node) reroute() {
	n.mu.Lock()
	close(n.rerouted)
	n.rerouted = make(chan struct{})
	n.mu.Unlock()
}

func (n *Node) dispatchLoop() {
	d := &dispatcher{n: n, returned: make(chan []*proposal, forwardsInFlight)}
	defer close(n.stopped)
	defer d.drain()
	for {
		if len(d.again) == 0 {
			select {
			case p := <-n.queue:
				d.again = append(d.again, p)
			case back := <-d.returned:
				d.landed(back)
				continue
			case <-n.closing:
				return
			}
		}
		to := n.destination()
		switch {
		case to.here && d.rested():
			d.gather(MaxBatch)
			if len(d.batch) > 0 {
				d.turnedAway(n.commit(d.batch, d.commands))
			}
		case !to.here && (n.cfg.Forward == nil || to.leader.IsZero() && n.stores.log.noRoom() != nil):
			// A leader whose disk is full steps down: until it has room, or another
			// leads, waiting would only end with the caller's patience.
			d.refuse()
		case !to.leader.IsZero() && d.flying < forwardsInFlight && d.rested():
			d.refuseLocal()
			d.forward(to)
		default:
			d.refuseLocal()
			if !d.wait(to.changed) {
				return
			}
		}
	}
}

// rested is false while the last refusal is too fresh to try again.
func (d *dispatcher) rested() bool { return d.pause.IsZero() || !time.Now().Before(d.pause) }

// turnedAway keeps what has to be tried again, after a while.
func (d *dispatcher) turnedAway(back []*proposal) {
	d.pause = time.Time{}
	if len(back) > 0 {
		d.again = append(back, d.again...)
		d.pause = time.Now().Add(retryPause)
	}
}

func (d *dispatcher) landed(back []*proposal) {
	d.flying--
	d.turnedAway(back)
}

// wait waits for something to do, and takes proposals up meanwhile: those that
// may not wait for a leader must hear of it.
func (d *dispatcher) wait(changed <-chan struct{}) bool {
	queue := d.n.queue
	if len(d.again) >= maxQueue {
		queue = nil
	}
	var rested <-chan time.Time
	if !d.rested() {
		t := time.NewTimer(time.Until(d.pause))
		defer t.Stop()
		rested = t.C
	}
	select {
	case p := <-queue:
		d.again = append(d.again, p)
	case back := <-d.returned:
		d.landed(back)
	case <-changed:
		d.pause = time.Time{}
	case <-rested:
	case <-d.n.closing:
		return false
	}
	return true
}

// gather takes a batch. What does not fit stays for the next.
func (d *dispatcher) gather(limit int) {
	d.batch, d.commands = d.batch[:0], d.commands[:0]
	for size := 0; ; {
		var p *proposal
		if len(d.again) > 0 {
			p = d.again[0]
		} else {
			select {
			case p = <-d.n.queue:
				d.again = append(d.again, p)
			default:
				return
			}
		}
		company := len(d.batch) > 0
		if company && (p.alone || d.batch[0].alone) ||
			size+p.size > MaxEntryBytes || len(d.commands)+len(p.commands) > MaxBatch || len(d.batch) >= limit {
			return
		}
		if d.again = d.again[1:]; len(d.again) == 0 {
			d.again = d.space[:0]
		}
		if !p.take() {
			continue
		}
		size += p.size
		d.batch = append(d.batch, p)
		d.commands = append(d.commands, p.commands...)
	}
}

// refuse answers everything that waits.
func (d *dispatcher) refuse() {
	d.gather(MaxBatch)
	for _, p := range d.batch {
		p.done <- reply{err: d.n.turnDown(p)}
	}
}

// refuseLocal answers those that asked this node as the leader, and forgets
// those whose caller has gone.
func (d *dispatcher) refuseLocal() {
	keep := d.again[:0]
	for _, p := range d.again {
		switch {
		case p.state.Load() == abandoned:
		case !p.local:
			keep = append(keep, p)
		case p.take():
			p.done <- reply{err: d.n.notLeader()}
		}
	}
	clear(d.again[len(keep):])
	d.again = keep
}

// forward sends a batch to the leader.
func (d *dispatcher) forward(to destination) {
	// What is in the queue may be local, and then goes nowhere: take only what
	// was looked at.
	for len(d.again) < MaxBatch {
		select {
		case p := <-d.n.queue:
			d.again = append(d.again, p)
			continue
		default:
		}
		break
	}
	d.refuseLocal()
	d.gather(len(d.again))
	if len(d.batch) == 0 {
		return
	}
	batch, commands := d.batch, d.commands
	d.batch, d.commands = nil, nil // they are under way
	d.flying++
	d.n.wg.Go(func() { d.returned <- d.n.forward(to, batch, commands) })
}

// drain waits for what is under way when the node closes. Those who wait find
// out by themselves.
func (d *dispatcher) drain() {
	for d.flying > 0 {
		d.landed(<-d.returned)
	}
}

// forward asks the leader and tells the callers, like commit.
func (n *Node) forward(to destination, batch []*proposal, commands [][]byte) (back []*proposal) {
	ctx, cancel := context.WithTimeout(n.ctx, forwardTimeout)
	defer cancel()
	results, err := n.cfg.Forward(ctx, to.leader, to.address, commands)
	switch {
	case err == nil && len(results) != len(commands):
		err = fmt.Errorf("propose: %w: node %s gave %d results for %d commands", ErrUnknownOutcome, to.leader, len(results), len(commands))
	case err == nil:
	case nothingDone(err):
	case errors.Is(err, ErrClosed):
		err = fmt.Errorf("propose: %w: %w", ErrNotSent, err)
	case errors.Is(err, ErrInvalid):
		if len(batch) > 1 {
			// One command spoiled it for all: each has to go by itself.
			for _, p := range batch {
				p.alone = true
			}
			err = fmt.Errorf("propose: %w: %w", ErrNotSent, err)
		}
	case errors.Is(err, ErrUnknownOutcome):
		err = fmt.Errorf("propose by node %s: %w", to.leader, err)
	default:
		err = fmt.Errorf("propose by node %s: %w: %w", to.leader, ErrUnknownOutcome, err)
	}
	n.forwarded.Add(uint64(len(commands)))
	return n.answer(batch, results, err)
}
