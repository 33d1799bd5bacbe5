package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// coldIdle is how long facets stay open where the node is ours: short, so that the
// wait between rounds is.
const coldIdle = 500 * time.Millisecond

// cold lets all facets hibernate and reads one row of each, round after round.
func (r *run) cold(ctx context.Context, w Workload) (*sample, error) {
	_, err := r.restart(ctx, coldIdle)
	foreign := errors.Is(err, ErrForeign)
	if err != nil && !foreign {
		return nil, err
	}
	all := &sample{hist: newHistogram()}
	// The first touch after a restart is another thing than leaving hibernation,
	// and does not count.
	if err := r.touch(ctx); err != nil {
		return nil, err
	}
	random := mrand.New(mrand.NewPCG(r.cfg.Seed, 1))
	giveUp := time.Now().Add(2*r.cfg.Duration + time.Second)
	for all.elapsed < r.cfg.Duration && (all.hist.TotalCount() == 0 || time.Now().Before(giveUp)) {
		r.cfg.say("cold: waiting until all facets hibernate")
		if err := r.hibernated(ctx, r.prefix, len(r.set.all)); err != nil {
			return all, err
		}
		order := random.Perm(len(r.set.all))
		s, err := r.measure(ctx, w, all, &times{total: int64(len(order))}, func(ctx context.Context, _, i int, rng *mrand.Rand) error {
			return r.readOne(ctx, order[i], rng)
		})
		all.merge(s)
		if err != nil {
			return all, err
		}
	}
	if !foreign {
		_, err = r.restart(ctx, 0)
	}
	return all, err
}

// touch reads one row of every facet.
func (r *run) touch(ctx context.Context) error {
	s, err := drive(ctx, r.cfg.Callers, &times{total: int64(len(r.set.all))}, func(ctx context.Context, _, i int, rng *mrand.Rand) error {
		return r.readOne(ctx, i, rng)
	})
	if err == nil {
		err = s.firstErr
	}
	return err
}

// first restarts the node and reads one row of every facet.
func (r *run) first(ctx context.Context, w Workload) (*sample, error) {
	if _, err := r.restart(ctx, 0); err != nil {
		return nil, err
	}
	order := mrand.New(mrand.NewPCG(r.cfg.Seed, 1)).Perm(len(r.set.all))
	return r.measure(ctx, w, nil, &times{total: int64(len(order))}, func(ctx context.Context, _, i int, rng *mrand.Rand) error {
		return r.readOne(ctx, order[i], rng)
	})
}

// hibernated waits until none of the facets with the prefix is open at any node.
func (r *run) hibernated(ctx context.Context, prefix string, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, hibernateWait, fmt.Errorf("facets were still open after %v", hibernateWait))
	defer cancel()
	tick := time.NewTicker(hibernatePoll)
	defer tick.Stop()
	for {
		open, err := r.anyOpen(ctx, prefix, n)
		if err == nil && !open {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *run) anyOpen(ctx context.Context, prefix string, n int) (bool, error) {
	for _, api := range r.apis {
		if open, err := r.openAt(ctx, api, prefix, n); open || err != nil {
			return open, err
		}
	}
	return false, nil
}

// openAt reports whether a node has facets with the prefix open. Only the node
// itself knows, so this asks it and not, as the SDK does, whoever answers.
func (r *run) openAt(ctx context.Context, api, prefix string, n int) (bool, error) {
	seen, after := 0, prefix
	for {
		var page struct {
			Facets []struct {
				Facet  string `json:"facet"`
				Active bool   `json:"active"`
			} `json:"facets"`
			More bool `json:"more"`
		}
		q := url.Values{"tenant": {Tenant}, "after": {after}, "limit": {strconv.Itoa(listPage)}}
		if err := r.get(ctx, api+"/v1/facets?"+q.Encode(), &page); err != nil {
			return false, fmt.Errorf("list facets at %s: %w", api, err)
		}
		for _, f := range page.Facets {
			after = f.Facet
			switch {
			case !strings.HasPrefix(f.Facet, prefix):
				continue
			case f.Active:
				return true, nil
			}
			if seen++; seen == n {
				return false, nil
			}
		}
		if !page.More || len(page.Facets) == 0 {
			return false, fmt.Errorf("%s lists %d of %d facets", api, seen, n)
		}
	}
}

func (r *run) get(ctx context.Context, target string, into any) error {
	return r.fetch(ctx, target, func(body io.Reader) error {
		return json.NewDecoder(io.LimitReader(body, maxListBody)).Decode(into)
	})
}

// fetch reads what one node, and no other, answers.
func (r *run) fetch(ctx context.Context, target string, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	if r.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+r.cfg.Token)
	}
	// A connection of its own: one that is kept would outlive the run.
	req.Close = true
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: r.cfg.TLS}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return read(resp.Body)
}
