package bench

import (
	"context"
	"fmt"
	"time"
)

// activeIdle keeps facets open for as long as they are looked at.
const activeIdle = time.Hour

// active measures what facets cost that are open: all of the run's are made, filled
// and read, and none may hibernate meanwhile.
func (r *run) active(ctx context.Context, w Workload) error {
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if _, err := r.restart(ctx, activeIdle); err != nil {
		return err
	}
	r.cfg.say("active: waiting until memory settles")
	out := &Active{}
	var err error
	if out.ClosedBytes, err = r.settle(ctx); err != nil {
		return err
	}
	r.cfg.say("active: opening %s facets", count(w.Facets))
	if err := r.touch(ctx); err != nil {
		return err
	}
	if out.OpenBytes, err = r.settle(ctx); err != nil {
		return err
	}
	u := r.usage(ctx)
	if u.err != nil {
		return u.err
	}
	for _, m := range u.nodes {
		out.Facets += int(m[metricActive])
	}
	if out.Facets == 0 {
		return fmt.Errorf("no node has a facet open after all of %d were read", w.Facets)
	}
	out.PerFacet = round(float64(out.OpenBytes-out.ClosedBytes) / float64(out.Facets))
	r.report.Active = out
	_, err = r.restart(ctx, 0)
	return err
}
