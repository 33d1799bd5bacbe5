package owner

import (
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/node/service"
)

// tx is the interactive transaction that holds the facet (rule R46). Its two limits
// share one timer; a facet without one has none.
type tx struct {
	id    facet.TxID
	began time.Time
	until time.Time // when it runs out of time, one way or the other
	timer *time.Timer
	why   string
}

type endedTx struct {
	id  facet.TxID
	why string
}

// checkTx says whether a request may continue the transaction id.
func (d *desk) checkTx(id facet.TxID) error {
	if d.tx != nil && d.tx.id == id || broken.Is(broken.GhostTx) {
		return nil
	}
	for _, e := range d.ended {
		if e.id == id {
			return facet.Errorf(facet.CodeTxClosed, "the transaction was rolled back: %s", e.why)
		}
	}
	return facet.Errorf(facet.CodeTxClosed, "no such transaction is open on %s: it ended, or the facet changed owner since", d.name)
}

// followTx notes what the call just run did to the interactive transaction.
func (d *desk) followTx(call *service.Call) {
	s := d.session
	open := s.db.InTx() && !s.isDead()
	switch {
	case open && d.tx == nil:
		now := d.m.opts.Now()
		d.tx = &tx{id: facet.NewTxID(), began: now}
		d.tx.timer = time.AfterFunc(d.setTxLimit(now), func() { d.post(todoTx) })
		call.Response.Tx = d.tx.id
	case open:
		d.tx.timer.Reset(d.setTxLimit(d.m.opts.Now()))
		call.Response.Tx = d.tx.id
	case d.tx != nil:
		d.endTx("it was committed or rolled back by its own request")
	}
}

// setTxLimit computes when the transaction runs out of time and returns how long
// that is from now.
func (d *desk) setTxLimit(now time.Time) time.Duration {
	t := d.tx
	t.until, t.why = now.Add(d.m.opts.TxIdle), "idle for more than "+d.m.opts.TxIdle.String()
	if end := t.began.Add(d.m.opts.TxTotal); end.Before(t.until) {
		t.until, t.why = end, "open for more than "+d.m.opts.TxTotal.String()
	}
	return t.until.Sub(now)
}

// expireTx rolls back the transaction if its time is really over: a request may
// have renewed it after the timer fired.
func (d *desk) expireTx() {
	if d.tx == nil || d.m.opts.Now().Before(d.tx.until) || broken.Is(broken.EndlessTx) {
		return
	}
	d.rollbackTx(d.tx.why)
}

func (d *desk) rollbackTx(why string) {
	if s := d.session; s != nil && !s.isDead() {
		if err := s.db.Rollback(); err != nil {
			s.die(err)
		}
	}
	d.endTx(why)
}

func (d *desk) endTx(why string) {
	d.tx.timer.Stop()
	if s := d.session; s != nil {
		defer d.resize(s) // behind tx
	}
	d.ended[d.endedAt%recentTx] = endedTx{d.tx.id, why}
	d.endedAt++
	d.tx = nil
}
