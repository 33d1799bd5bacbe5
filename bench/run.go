package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// The SQL of the workloads. Package bench/limits runs the same.
const (
	SchemaSQL = "CREATE TABLE kv (id INTEGER PRIMARY KEY, v BLOB NOT NULL)"
	FillSQL   = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?1) INSERT INTO kv(v) SELECT randomblob(?2) FROM n"
	WriteSQL  = "INSERT INTO kv(v) VALUES (?)"
	ReadSQL   = "SELECT v FROM kv WHERE id = ?"
)

// Tenant is the tenant whose facets a run uses.
const Tenant = "bench"

// run is one Run under way.
type run struct {
	cfg    Config
	client *client.Client
	apis   []string // where the APIs of all nodes listen
	prefix string   // of the names of this run's facets
	set    *facets
	report Report
}

// facets are the facets the load is spread over.
type facets struct {
	all     []*client.Facet
	rows    []atomic.Int64 // highest id known to be there
	created bool
	filled  bool
}

// Run runs the workloads one after the other. When ctx ends early the report holds
// what was measured until then, and the error is the context's.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.fill(); err != nil {
		return Report{}, fmt.Errorf("bench: %w", err)
	}
	var id [4]byte
	rand.Read(id[:]) // never fails
	r := &run{cfg: cfg, prefix: "b" + hex.EncodeToString(id[:])}
	r.report = Report{
		Settings: Settings{
			Facets: cfg.Facets, Callers: cfg.Callers, ValueSize: cfg.ValueSize, Rows: cfg.Rows, Conns: cfg.Conns,
			Seconds: round(cfg.Duration.Seconds()), Nodes: len(cfg.Node.Endpoints()), Target: strings.Join(cfg.Node.Endpoints(), ","),
			Started: time.Now().UTC().Format(time.RFC3339),
			Go:      runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.GOMAXPROCS(0),
		},
		Results: []Result{},
	}
	err := r.connect(ctx)
	if err == nil {
		err = r.all(ctx)
		r.cleanUp(ctx)
		r.client.Close()
	}
	r.report.compare()
	if err != nil {
		r.report.Interrupted = ctx.Err() != nil
		return r.report, fmt.Errorf("bench: %w", err)
	}
	return r.report, nil
}

func (r *run) connect(ctx context.Context) error {
	c, err := r.cfg.open(ctx)
	if err != nil {
		return err
	}
	r.client = c
	r.look(ctx)
	if r.set == nil {
		r.set, err = r.name(r.prefix, r.cfg.Facets)
		return err
	}
	// The facets are the same, the way to them is new.
	for i, f := range r.set.all {
		if r.set.all[i], err = c.Facet(f.Name().String()); err != nil {
			return err
		}
	}
	return nil
}

// look finds out what the target says of itself. A node that does not is taken as
// it was given.
func (r *run) look(ctx context.Context) {
	r.apis = r.cfg.Node.Endpoints()
	c, err := r.client.Cluster(ctx)
	if err != nil || len(c.Nodes) == 0 {
		return
	}
	r.report.Settings.Nodes, r.report.Settings.Replicas = len(c.Nodes), c.Replicas
	if len(c.Nodes) <= len(r.apis) {
		return
	}
	// More nodes than were named: the others say where they listen.
	r.apis = nil
	for _, n := range c.Nodes {
		if n.API != "" {
			r.apis = append(r.apis, "http://"+n.API)
		}
	}
}

func (r *run) name(prefix string, n int) (*facets, error) {
	b, err := r.client.Bind(Tenant)
	if err != nil {
		return nil, err
	}
	set := &facets{all: make([]*client.Facet, n), rows: make([]atomic.Int64, n)}
	for i := range set.all {
		if set.all[i], err = b.Facet(fmt.Sprintf("%s-%07d", prefix, i)); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// restart restarts the node and connects again.
func (r *run) restart(ctx context.Context, idleAfter time.Duration) (time.Duration, error) {
	r.client.Close()
	took, err := r.cfg.Node.Restart(ctx, idleAfter)
	if err != nil && !errors.Is(err, ErrForeign) {
		return 0, fmt.Errorf("restart the node: %w", err)
	}
	if cerr := r.connect(ctx); cerr != nil {
		return 0, cerr
	}
	return took, err
}

func (r *run) all(ctx context.Context) error {
	for _, w := range r.cfg.Workloads {
		if w.Callers == 0 {
			w.Callers = r.cfg.Callers
		}
		if w.Facets == 0 {
			w.Facets = r.cfg.Facets
		}
		if err := r.workload(ctx, w); err != nil {
			return fmt.Errorf("workload %s: %w", w.Name, err)
		}
	}
	if r.cfg.Limits == nil {
		return nil
	}
	l, err := r.cfg.Limits(ctx, r.report.Settings, r.cfg.Node.Endpoints()[0], func(s string) { r.cfg.say("%s", s) })
	if err != nil {
		return fmt.Errorf("measure limits: %w", err)
	}
	l.combine()
	r.report.Limits = &l
	return nil
}

func (r *run) workload(ctx context.Context, w Workload) error {
	if w.Op == OpIdle {
		return r.idle(ctx, w)
	}
	if w.Op != OpCreate {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	r.cfg.say("%s: %s", w.Name, w.About)
	var s *sample
	var err error
	switch w.Op {
	case OpCreate:
		s, err = r.create(ctx, w.Callers, r.set)
	case OpWrite:
		s, err = r.steady(ctx, w, r.write(w.Facets))
	case OpOne:
		s, err = r.one(ctx, w)
	case OpRead:
		s, err = r.steady(ctx, w, r.read(w.Facets))
	case OpCold:
		s, err = r.cold(ctx, w)
	case OpFirst:
		s, err = r.first(ctx, w)
	default:
		return fmt.Errorf("unknown operation %q", w.Op)
	}
	if s != nil && (err == nil || s.hist.TotalCount()+s.errors > 0) {
		r.report.Results = append(r.report.Results, s.result(w))
	}
	return err
}

// prepare makes the facets and their rows, unless they are there.
func (r *run) prepare(ctx context.Context) error {
	if !r.set.created {
		r.cfg.say("making %s facets", count(len(r.set.all)))
		s, err := r.create(ctx, r.cfg.Callers, r.set)
		if err == nil {
			err = s.firstErr
		}
		if err != nil {
			return fmt.Errorf("make facets: %w", err)
		}
	}
	if r.set.filled {
		return nil
	}
	r.cfg.say("filling them with %s rows each", count(r.cfg.Rows))
	s, err := drive(ctx, r.cfg.Callers, &times{total: int64(len(r.set.all))}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		res, err := r.set.all[i].Exec(ctx, FillSQL, r.cfg.Rows, r.cfg.ValueSize)
		r.set.rows[i].Store(res.LastInsertID)
		return err
	})
	if err == nil {
		err = s.firstErr
	}
	if err != nil {
		return fmt.Errorf("fill facets: %w", err)
	}
	r.set.filled = true
	return nil
}

func (r *run) create(ctx context.Context, callers int, set *facets) (*sample, error) {
	if set.created {
		return nil, errors.New("create comes before workloads that need the facets")
	}
	s, err := drive(ctx, callers, &times{total: int64(len(set.all))}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		_, err := set.all[i].Exec(ctx, SchemaSQL)
		return err
	})
	set.created = err == nil && s.errors == 0
	return s, err
}

// steady runs a workload for its time, after a while that does not count.
func (r *run) steady(ctx context.Context, w Workload, do op) (*sample, error) {
	warm := min(r.cfg.Duration/warmShare, maxWarm)
	if _, err := drive(ctx, w.Callers, &until{deadline: time.Now().Add(warm)}, do); err != nil {
		return nil, err
	}
	return drive(ctx, w.Callers, &until{deadline: time.Now().Add(r.cfg.Duration)}, do)
}

// write inserts one row into one of the first n facets.
func (r *run) write(n int) op {
	values := make([][]byte, max(r.cfg.Callers, 1))
	for i := range values {
		values[i] = make([]byte, r.cfg.ValueSize)
		rand.Read(values[i])
	}
	return func(ctx context.Context, caller, i int, rng *mrand.Rand) error {
		v := values[caller]
		if len(v) >= 8 {
			binary.LittleEndian.PutUint64(v, uint64(i))
		}
		f := rng.IntN(n)
		res, err := r.set.all[f].Exec(ctx, WriteSQL, v)
		if err != nil {
			return err
		}
		if res.RowsAffected != 1 {
			return fmt.Errorf("an insert changed %d rows", res.RowsAffected)
		}
		for was := r.set.rows[f].Load(); was < res.LastInsertID && !r.set.rows[f].CompareAndSwap(was, res.LastInsertID); {
			was = r.set.rows[f].Load()
		}
		return nil
	}
}

// read reads one row of one of the first n facets.
func (r *run) read(n int) op {
	return func(ctx context.Context, _, _ int, rng *mrand.Rand) error { return r.readOne(ctx, rng.IntN(n), rng) }
}

func (r *run) readOne(ctx context.Context, f int, rng *mrand.Rand) error {
	var v []byte
	id := 1 + rng.Int64N(max(1, r.set.rows[f].Load()))
	if err := r.set.all[f].QueryRow(ctx, ReadSQL, id).Scan(&v); err != nil {
		return err
	}
	if len(v) != r.cfg.ValueSize {
		return fmt.Errorf("row %d of %v has a value of %d bytes, want %d", id, r.set.all[f].Name(), len(v), r.cfg.ValueSize)
	}
	return nil
}

// cleanUp deletes the facets of the run from a node that goes on without it.
func (r *run) cleanUp(ctx context.Context) {
	if _, err := r.cfg.Node.Memory(); err == nil || r.cfg.Keep || !r.set.created {
		return // a node of ours is thrown away whole
	}
	r.cfg.say("deleting %s facets", count(len(r.set.all)))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	s, err := drive(ctx, deleters, &times{total: int64(len(r.set.all))}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		if err := r.set.all[i].Delete(ctx); err != nil && !errors.Is(err, facet.ErrNotFound) {
			return err
		}
		return nil
	})
	if err == nil {
		err = s.firstErr
	}
	if err != nil {
		r.cfg.say("not all facets %s-* of tenant %s were deleted: %v", r.prefix, Tenant, err)
	}
}
