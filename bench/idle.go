package bench

import (
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"time"
)

const (
	// idleAfter is how long the facets of the idle workload stay open.
	idleAfter = time.Second

	// settleWait is the longest wait for memory to settle, settlePoll how often it
	// is looked at.
	settleWait = time.Minute
	settlePoll = 250 * time.Millisecond
)

// idle measures what many facets cost that nobody uses: memory and start-up time.
func (r *run) idle(ctx context.Context, w Workload) error {
	out := &Idle{Facets: w.Facets}
	took, err := r.restart(ctx, idleAfter)
	if err != nil {
		return err
	}
	out.EmptyStart = seconds(took)
	if out.EmptyBytes, err = r.settle(ctx); err != nil {
		return err
	}
	prefix := r.prefix + "i"
	set, err := r.name(prefix, w.Facets)
	if err != nil {
		return err
	}
	r.cfg.say("idle: making %s facets", count(w.Facets))
	s, err := r.measure(ctx, w, nil, &times{total: int64(w.Facets)}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		_, err := set.all[i].Exec(ctx, SchemaSQL)
		return err
	})
	if s.hist.TotalCount() > 0 {
		r.report.Results = append(r.report.Results, s.result(w))
	}
	if err == nil {
		err = s.firstErr
	}
	if err != nil {
		return err
	}
	r.cfg.say("idle: waiting until they hibernate")
	begin := time.Now()
	if err := r.hibernated(ctx, prefix, w.Facets); err != nil {
		return err
	}
	out.Hibernated = seconds(time.Since(begin))
	m, err := r.cfg.Node.Memory()
	if err != nil {
		return err
	}
	out.PeakBytes = m.Peak
	r.cfg.say("idle: waiting until memory settles")
	if out.HibernateBytes, err = r.settle(ctx); err != nil {
		return err
	}
	r.report.Idle = out
	out.PerFacet = round(float64(out.HibernateBytes-out.EmptyBytes) / float64(w.Facets))
	r.cfg.say("idle: restarting with %s facets", count(w.Facets))
	if took, err = r.restart(ctx, 0); err != nil {
		return err
	}
	out.Start = seconds(took)
	out.RestartBytes, err = r.settle(ctx)
	return err
}

// settle waits until the node's memory falls no more, but for less than a hundredth,
// and returns it.
func (r *run) settle(ctx context.Context) (int64, error) {
	tick := time.NewTicker(settlePoll)
	defer tick.Stop()
	begin := time.Now()
	var low int64
	lowSince := begin
	for {
		m, err := r.cfg.Node.Memory()
		if err != nil {
			if errors.Is(err, ErrForeign) {
				err = fmt.Errorf("memory can be measured only of a node bench starts itself: %w", err)
			}
			return 0, err
		}
		if low == 0 || m.Resident < low-low/100 {
			low, lowSince = m.Resident, time.Now()
		}
		if time.Since(lowSince) >= r.cfg.Settle || time.Since(begin) >= settleWait {
			return m.Resident, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}
