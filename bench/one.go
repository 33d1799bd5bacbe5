package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// one measures the latency of writes by themselves and, turn by turn, the yardstick.
func (r *run) one(ctx context.Context, w Workload) (_ *sample, err error) {
	do := r.write(w)
	if r.cfg.Yardstick == nil {
		return r.steady(ctx, w, do)
	}
	stick, err := r.cfg.Yardstick(ctx, r.report.Settings, r.cfg.Node.Endpoints())
	if err != nil {
		return nil, fmt.Errorf("prepare what it is compared with: %w", err)
	}
	defer func() { err = errors.Join(err, stick.Close()) }()
	all := &sample{hist: newHistogram()}
	var ref Reference
	for range oneRounds {
		if ref, err = stick.Measure(ctx); err != nil {
			return all, fmt.Errorf("measure what it is compared with: %w", err)
		}
		// What was busy with something else gets warm first.
		warm := min(r.cfg.Duration/warmShare, maxWarm) / oneRounds
		if _, err := drive(ctx, w.Callers, &until{deadline: time.Now().Add(warm)}, do); err != nil {
			return all, err
		}
		s, err := r.measure(ctx, w, all, &later{make: func() pacer { return &until{deadline: time.Now().Add(r.cfg.Duration / oneRounds)} }}, do)
		all.merge(s)
		if err != nil {
			return all, err
		}
	}
	ref.finish(float64(all.hist.ValueAtPercentile(50)))
	r.report.Reference = &ref
	return all, nil
}
