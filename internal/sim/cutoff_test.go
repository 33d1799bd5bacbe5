package sim

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/disk"
)

// TestCutOff: a whole node that is cut off sends clients elsewhere soon, one that waits
// for an election does not, and one that is back serves.
func TestCutOff(t *testing.T) {
	p := plan{seed: 1, nodes: 3, idleAfter: 5 * time.Second, repairAfter: time.Minute, segment: 256 << 10, logBudget: 1 << 20}
	bubble(t, p, func(w *world) {
		w.form()
		w.fast()
		s := w.session(0)
		write := func(l *life, name string) (time.Duration, error) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(l.ctx, callTimeout)
			defer cancel()
			n := facet.Name{Tenant: "sim", Facet: name}
			_, err := s.call(ctx, l, facet.Request{Name: n, Steps: append(schema(), insert(w.number()))})
			return time.Since(began), err
		}
		l := w.running()[0]
		w.net.set(touching(l.m.id))
		for _, at := range []struct{ wait, within time.Duration }{{0, 6 * time.Second}, {10 * time.Second, 10 * time.Millisecond}} {
			time.Sleep(at.wait)
			if took, err := write(l, "cut"); codeOf(err) != facet.CodeUnavailable || took > at.within {
				w.problem("a node that is cut off: %v after %v, want unavailable within %v", err, took, at.within)
			}
		}
		w.net.set(none)
		if !w.until(20*time.Second, func() bool { _, err := write(l, "cut"); return err == nil || codeOf(err) == facet.CodeNotOwner }) {
			w.problem("a node that is back does not serve")
		}
		// The leader dies: what waits for the next one is not told that.
		lead := w.leader()
		lead.kill("for an election", disk.LoseAll)
		for _, l := range w.running() {
			if took, err := write(l, "elected-"+string(l.m.id)); err != nil && strings.Contains(err.Error(), "cut off") {
				w.problem("an election is taken for a cut: %v after %v", err, took)
			}
		}
	})
}
