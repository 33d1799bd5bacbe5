package steward

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/placement"
)

// stage is a part of an operation: which rows it looks at, and what it wants of
// each. An operation looks again and again until no row wants anything: it is not
// a list of moves that could be overtaken by events, and whoever takes it up after
// a change of leader goes on where it is.
type stage struct {
	rows func(*placement.Table) iter.Seq[placement.Facet]
	want func(*view, *placement.Facet) plan
	// patient leaves alone what cannot move now, instead of counting it as failed.
	patient bool
}

// run carries an operation out.
func (t *term) run(ctx context.Context, o *operation) {
	err := t.perform(ctx, o)
	var now Operation
	t.edit(o, func(op *Operation) {
		defer func() { now = *op }()
		op.Ended = time.Now()
		switch {
		case err == nil && op.Failed == 0:
			op.Status, op.Message = Completed, ""
		case err == nil:
			op.Status = Failed
		case t.ctx.Err() != nil:
			op.Status, op.Message = Interrupted, "this node leads no more"
		case ctx.Err() != nil:
			op.Status, op.Message = Cancelled, context.Cause(ctx).Error()
		case errors.Is(err, errSuperseded):
			op.Status, op.Message = Cancelled, err.Error()
		default:
			op.Status, op.Message = Failed, err.Error()
		}
	})
	t.s.log.Info("operation ended", "operation", now.ID, "kind", string(now.Kind), "node", string(now.Node),
		"status", string(now.Status), "done", now.Done, "total", now.Total, "failed", now.Failed, "message", now.Message)
}

// perform does the work. Facets that could not be moved are in o.Failed; an error
// is about the whole.
func (t *term) perform(ctx context.Context, o *operation) error {
	stages := t.stages(o)
	total := 0
	v, _ := t.look()
	for _, st := range stages {
		for f := range st.rows(t.s.cfg.Table) {
			if p := st.want(v, &f); p.need == wanted || p.need == stuck && !st.patient {
				total++
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	t.edit(o, func(op *Operation) { op.Total = op.Done + total })
	if o.DryRun {
		return nil
	}
	for _, st := range stages {
		if err := t.stage(ctx, o, st); err != nil {
			return err
		}
	}
	if o.Kind == Remove {
		if err := t.s.cfg.RemoveMember(ctx, o.Node); err != nil {
			return fmt.Errorf("let node %s go: %w", o.Node, err)
		}
	}
	return nil
}

// stages are the parts of an operation.
func (t *term) stages(o *operation) []stage {
	node, force := o.Node, o.force
	held := func(table *placement.Table) iter.Seq[placement.Facet] { return table.HeldBy(node) }
	leave := stage{rows: held, want: func(v *view, f *placement.Facet) plan { return v.leave(f, node) }}
	switch o.Kind {
	case Drain:
		return []stage{leave}
	case Decommission:
		return []stage{leave, {rows: held, want: func(v *view, f *placement.Facet) plan { return v.vacate(f, node, force) }}}
	case Repair:
		urgent := !o.Auto
		return []stage{{rows: (*placement.Table).Facets, patient: o.Auto,
			want: func(v *view, f *placement.Facet) plan { return v.repair(f, urgent) }}}
	case Rebalance:
		var hints map[cluster.NodeID]Hint
		if t.s.cfg.Hints != nil {
			hints = t.s.cfg.Hints()
		}
		all := func(v *view, f *placement.Facet) plan { return v.balance(f, hints) }
		owners := func(v *view, f *placement.Facet) plan {
			if p := all(v, f); p.set.IsZero() {
				return p
			}
			return plan{}
		}
		sets := func(v *view, f *placement.Facet) plan {
			if p := all(v, f); !p.set.IsZero() {
				return p
			}
			return plan{}
		}
		return []stage{{rows: (*placement.Table).Facets, want: owners}, {rows: (*placement.Table).Facets, want: sets}}
	}
	return nil // Undrain is done when the table says so, and Remove moves nothing
}

// superseded reports whether an operation's node is in another state than the one
// that stands for the operation.
func (v *view) superseded(o *operation) bool {
	state, about := states[o.Kind]
	n := v.nodes[o.Node]
	return about && (n == nil || n.State != state)
}

// stage walks the table, moves what wants to move, and looks again, until nothing
// is left but what failed too often.
func (t *term) stage(ctx context.Context, o *operation, st stage) error {
	w := &workers{t: t, o: o, st: st, rate: o.Rate, attempts: map[facet.Incarnation]int{}}
	pause := passPause
	for range maxPasses {
		v, _ := t.look()
		if v.superseded(o) {
			return errSuperseded
		}
		todo, again := []facet.Incarnation(nil), true
		for f := range st.rows(t.s.cfg.Table) {
			tried := w.attempts[f.Incarnation]
			if tried >= maxAttempts {
				continue
			}
			switch p := st.want(v, &f); {
			case p.need == nothing, p.need == stuck && st.patient:
				continue
			}
			todo = append(todo, f.Incarnation)
			again = again && tried > 0
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if len(todo) == 0 {
			return nil
		}
		t.edit(o, func(op *Operation) { op.Total = max(op.Total, op.Done+op.Failed+len(todo)) })
		if again { // only what failed before: give the cause some time to go
			t.edit(o, func(op *Operation) {
				op.Message = fmt.Sprintf("%d left, tried again in %v; %s", len(todo), pause, w.trouble())
			})
			if !sleep(ctx, pause) {
				return ctx.Err()
			}
			pause = min(2*pause, maxPause)
		}
		if err := w.all(ctx, todo); err != nil {
			return err
		}
	}
	return errEndless
}

// workers move the facets of one stage, a bounded number at a time.
type workers struct {
	t    *term
	o    *operation
	st   stage
	rate int
	next time.Time // when the next may begin; of the goroutine that hands them out

	mu       sync.Mutex
	attempts map[facet.Incarnation]int // guarded by mu while workers run; failed attempts
	last     string                    // guarded by mu; the failure of the latest of them
}

// trouble is what the last facet that could not be moved waits for.
func (w *workers) trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

func (w *workers) all(ctx context.Context, todo []facet.Incarnation) error {
	every := time.Second / time.Duration(w.rate)
	var g errgroup.Group
	g.SetLimit(w.t.s.cfg.Concurrency)
	for _, id := range todo {
		now := time.Now()
		if !sleep(ctx, w.next.Sub(now)) {
			break
		}
		if w.next = w.next.Add(every); w.next.Before(now) {
			w.next = now.Add(every)
		}
		g.Go(func() error {
			w.count(ctx, id, w.advance(ctx, id))
			return nil
		})
	}
	_ = g.Wait() // they return no errors
	return ctx.Err()
}

// count books the end of one attempt.
func (w *workers) count(ctx context.Context, id facet.Incarnation, err error) {
	if err == nil {
		w.t.edit(w.o, func(op *Operation) { op.Done++ })
		return
	}
	if ctx.Err() != nil {
		return // it did not fail, it was not waited for
	}
	why := fmt.Sprintf("facet %v: %v", id, err)
	if f, ok := w.t.s.cfg.Table.ByIncarnation(id); ok && f.Bound {
		why = fmt.Sprintf("facet %v (%v): %v", f.Name, id, err)
	}
	w.mu.Lock()
	w.attempts[id]++
	last := w.attempts[id] >= maxAttempts
	w.last = why
	w.mu.Unlock()
	w.t.edit(w.o, func(op *Operation) {
		op.Message = why
		if last {
			op.Failed++
		}
	})
	w.t.s.log.Debug("move facet", "operation", w.o.ID, "incarnation", id.String(), "error", err)
}

// advance takes the steps of one facet to where the stage wants it. Every plan goes
// on wanting until its set is activated, so no change is left half done.
func (w *workers) advance(ctx context.Context, id facet.Incarnation) error {
	t := w.t
	if !t.claim(id) {
		return errElsewhere
	}
	defer t.unclaim(id)
	for range maxSteps {
		f, ok := t.s.cfg.Table.ByIncarnation(id)
		if !ok {
			return nil
		}
		v := t.view.Load()
		if v.superseded(w.o) {
			return errSuperseded
		}
		s := v.next(&f, w.st.want(v, &f))
		switch s.kind {
		case stepDone:
			return nil
		case stepStuck:
			return errors.New(s.why)
		case stepFinish:
			if err := t.finish(ctx, f); err != nil {
				return err
			}
			continue
		case stepAcquire:
			res, err := t.propose(ctx, s.acquire)
			if err != nil {
				return fmt.Errorf("give it an owner: %w", err)
			}
			if err := res[0].Err(); err != nil {
				return fmt.Errorf("give it an owner: %w", err)
			}
			continue
		}
		if err := t.order(ctx, s.to, s.order); err != nil {
			return err
		}
		if now, ok := t.s.cfg.Table.ByIncarnation(id); ok && now.Index == f.Index {
			return errUnchanged
		}
	}
	return errSteps
}

// order asks an owner, and waits as long as it may take.
func (t *term) order(ctx context.Context, to cluster.NodeID, o Order) error {
	limit, what := moveTimeout, "have node "+string(to)+" hand it to "+string(o.Owner)
	switch {
	case o.Kind == Wake:
		what = "have node " + string(to) + " open it"
	case !o.Set.IsZero():
		limit, what = fillTimeout, "have node "+string(to)+" move it to "+o.Set.String()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := t.s.cfg.Orders.Order(ctx, to, o); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// finish ends a deletion.
func (t *term) finish(ctx context.Context, f placement.Facet) error {
	if t.s.cfg.Finish == nil {
		return errors.New("its deletion has not ended")
	}
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	if err := t.s.cfg.Finish(ctx, f); err != nil {
		return fmt.Errorf("finish its deletion: %w", err)
	}
	t.s.finished.Add(1)
	return nil
}

// sleep waits, and reports whether it was not interrupted.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
