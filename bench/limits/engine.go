package limits

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"sync"

	"github.com/facetd/facetd/bench"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/engine"
	"github.com/facetd/facetd/facet/pages"
)

// alone is a facet with nothing around it: callers take turns, and its commits go
// nowhere.
type alone struct {
	mu   sync.Mutex
	db   *engine.DB
	rows int64
}

// engine measures writes and reads of the engine alone, spread over n facets.
func (cfg *Config) engine(ctx context.Context, n int) (writes, reads float64, err error) {
	all := make([]alone, n)
	defer func() {
		for i := range all {
			if all[i].db != nil {
				err = errors.Join(err, all[i].db.Close())
			}
		}
	}()
	for i := range all {
		if ctx.Err() != nil {
			return 0, 0, context.Cause(ctx)
		}
		if err := all[i].open(cfg); err != nil {
			return 0, 0, err
		}
	}
	callers := make([]caller, cfg.Callers)
	for i := range callers {
		callers[i] = newCaller(i, cfg.ValueSize)
	}
	writes, err = cfg.rate(ctx, cfg.Callers, func(c int) error { return callers[c].write(all) })
	if err != nil {
		return 0, 0, err
	}
	reads, err = cfg.rate(ctx, cfg.Callers, func(c int) error { return callers[c].read(all, cfg.ValueSize) })
	return writes, reads, err
}

func (a *alone) open(cfg *Config) error {
	store := pages.New(pages.Base{}, func() (pages.File, error) {
		return nil, errors.New("a facet that was never checkpointed has no file")
	})
	db, err := engine.Open(engine.Options{
		ID: facet.NewIncarnation(), Epoch: 1, Store: store,
		Commits: func(*facet.Commit) error { return nil },
	})
	if err != nil {
		return err
	}
	a.db = db
	fill := facet.AppendInt(facet.AppendInt(nil, int64(cfg.Rows)), int64(cfg.ValueSize))
	var resp facet.Response
	err = db.Run(&facet.Request{Steps: []facet.Step{
		{SQL: []byte(bench.SchemaSQL)},
		{SQL: []byte(bench.FillSQL), Args: fill, NArgs: 2},
	}}, &resp)
	if err == nil {
		err = failure(resp.Result)
	}
	a.rows = int64(cfg.Rows)
	return err
}

// caller is what one caller keeps from call to call.
type caller struct {
	rng   *mrand.Rand
	req   facet.Request
	resp  facet.Response
	args  facet.Values
	value []byte
}

func newCaller(i, valueSize int) caller {
	c := caller{rng: mrand.New(mrand.NewPCG(uint64(i), 1)), req: facet.Request{Steps: make([]facet.Step, 1)}, value: make([]byte, valueSize)}
	rand.Read(c.value)
	return c
}

func (c *caller) run(a *alone, sql []byte, rows bool) error {
	c.req.Steps[0] = facet.Step{SQL: sql, Args: c.args, NArgs: 1, NoRows: !rows}
	c.resp.Result = c.resp.Result[:0]
	return a.db.Run(&c.req, &c.resp)
}

var (
	writeSQL = []byte(bench.WriteSQL)
	readSQL  = []byte(bench.ReadSQL)
)

func (c *caller) write(all []alone) error {
	a := &all[c.rng.IntN(len(all))]
	c.value[0]++
	c.args = facet.AppendBlob(c.args[:0], c.value)
	c.req.ReadOnly = false
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := c.run(a, writeSQL, false); err != nil {
		return err
	}
	a.rows++
	return failure(c.resp.Result)
}

func (c *caller) read(all []alone, valueSize int) error {
	a := &all[c.rng.IntN(len(all))]
	c.req.ReadOnly = true
	a.mu.Lock()
	defer a.mu.Unlock()
	c.args = facet.AppendInt(c.args[:0], 1+c.rng.Int64N(a.rows))
	if err := c.run(a, readSQL, true); err != nil {
		return err
	}
	if len(c.resp.Result) < valueSize {
		return errors.Join(fmt.Errorf("a read gave %d bytes", len(c.resp.Result)), failure(c.resp.Result))
	}
	return nil
}

// failure is the first error among the items of a result.
func failure(res facet.Result) error {
	for len(res) > 0 {
		it, rest, err := res.Next()
		if err != nil {
			return err
		}
		if it.Kind == facet.ItemError {
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				return err
			}
			return e
		}
		res = rest
	}
	return nil
}
