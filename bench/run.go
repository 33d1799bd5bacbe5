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
	cfg     Config
	client  *client.Client
	apis    []string // where the APIs of all nodes listen
	prefix  string   // of the names of this run's facets
	set     *facets
	traffic traffic
	report  Report
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
			Rate: cfg.Rate, Queue: cfg.Queue, Theta: cfg.Theta, Seed: cfg.Seed, Command: cfg.Command,
		},
		Results: []Result{},
	}
	r.report.Settings.CPU, r.report.Settings.Memory = machine()
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
	c, err := r.cfg.open(ctx, r.traffic.dial)
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
		switch {
		case strings.Contains(n.API, "://"):
			r.apis = append(r.apis, n.API)
		case n.API != "":
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
		w.Facets = min(w.Facets, r.cfg.Facets)
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
	switch w.Op {
	case OpIdle:
		return r.idle(ctx, w)
	case OpActive:
		return r.active(ctx, w)
	}
	if w.Op != OpCreate {
		if err := r.prepare(ctx); err != nil {
			return err
		}
	}
	r.cfg.say("%s: %s", w.Name, w.About)
	var s *sample
	var v *Verified
	var err error
	switch w.Op {
	case OpCreate:
		s, err = r.create(ctx, w, r.set)
	case OpWrite:
		s, err = r.steady(ctx, w, r.write(w))
	case OpOne:
		s, err = r.one(ctx, w)
	case OpRead:
		s, err = r.steady(ctx, w, r.read(w))
	case OpMixed:
		s, err = r.steady(ctx, w, r.mixed(w))
	case OpBatch:
		s, err = r.steady(ctx, w, r.batch(w))
	case OpTx:
		s, err = r.steady(ctx, w, r.tx(w))
	case OpScan:
		s, err = r.made(ctx, w, r.scan)
	case OpLarge:
		s, err = r.made(ctx, w, r.large)
	case OpCounter:
		s, v, err = r.counted(ctx, w)
	case OpCold:
		s, err = r.cold(ctx, w)
	case OpFirst:
		s, err = r.first(ctx, w)
	default:
		return fmt.Errorf("unknown operation %q", w.Op)
	}
	if s != nil && (err == nil || s.hist.TotalCount()+s.errors > 0) {
		res := s.result(w)
		res.Verified = v
		r.report.Results = append(r.report.Results, res)
	}
	return err
}

// made runs a workload that has to be prepared.
func (r *run) made(ctx context.Context, w Workload, ready func(context.Context, Workload) (op, error)) (*sample, error) {
	do, err := ready(ctx, w)
	if err != nil {
		return nil, err
	}
	return r.steady(ctx, w, do)
}

// counted runs workload counter and looks whether the counters are right.
func (r *run) counted(ctx context.Context, w Workload) (*sample, *Verified, error) {
	c, err := r.counter(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	s, err := r.steady(ctx, w, c.op(r.chooser(w)))
	if err != nil {
		return s, nil, err
	}
	v, err := c.verify(ctx, r.cfg.Callers)
	return s, v, err
}

// prepare makes the facets and their rows, unless they are there.
func (r *run) prepare(ctx context.Context) error {
	if !r.set.created {
		r.cfg.say("making %s facets", count(len(r.set.all)))
		s, err := r.create(ctx, Workload{Name: "create", Callers: r.cfg.Callers}, r.set)
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
		return r.fillOne(ctx, i)
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

// fillOne writes the rows of a facet, as many in each transaction as its limits allow.
func (r *run) fillOne(ctx context.Context, i int) error {
	most := max(1, fillBytes/r.cfg.ValueSize)
	for left := r.cfg.Rows; left > 0; left -= most {
		res, err := r.set.all[i].Exec(ctx, FillSQL, min(left, most), r.cfg.ValueSize)
		if err != nil {
			return err
		}
		r.set.rows[i].Store(res.LastInsertID)
	}
	return nil
}

func (r *run) create(ctx context.Context, w Workload, set *facets) (*sample, error) {
	if set.created {
		return nil, errors.New("create comes before workloads that need the facets")
	}
	s, err := r.measure(ctx, w, nil, &times{total: int64(len(set.all))}, func(ctx context.Context, _, i int, _ *mrand.Rand) error {
		_, err := set.all[i].Exec(ctx, SchemaSQL)
		return err
	})
	set.created = err == nil && s.errors == 0
	return s, err
}

// measure makes the calls of a workload and looks at them over time, and at what
// they cost. so is what was measured in rounds before, nil for none.
func (r *run) measure(ctx context.Context, w Workload, so *sample, p pacer, do op) (*sample, error) {
	l := &load{callers: w.Callers, pacer: p, do: do, seed: r.cfg.Seed, every: max(r.cfg.Duration/progressShare, progressEvery)}
	if so != nil {
		l.series = so.series
	}
	if l.series == nil {
		l.series = newSeries()
	}
	l.tell = func(at time.Duration, s span) {
		failed := ""
		if s.errors > 0 {
			failed = fmt.Sprintf(", %s errors", count(int(s.errors)))
		}
		r.cfg.say("  %-10s %6.1fs %s ops/s  p50 %s  p99 %s%s", w.Name, at.Seconds(),
			right(rate(float64(s.ops)/s.took.Seconds()), 10), micros(s.at(50)), micros(s.at(99)), failed)
	}
	before := r.usage(ctx)
	s, err := l.run(ctx)
	after := r.usage(context.WithoutCancel(ctx))
	s.spent = after.since(&before)
	return s, err
}

// pace is when the calls of a workload of that duration are due. Latency alone is
// what write_one measures: it has no rate.
func (r *run) pace(w Workload, d time.Duration) pacer {
	if r.cfg.Rate > 0 && w.Op != OpOne {
		return newOpenLoop(time.Now(), r.cfg.Rate, d, r.cfg.Queue)
	}
	return &until{deadline: time.Now().Add(d)}
}

// steady runs a workload for its time, after a while that does not count.
func (r *run) steady(ctx context.Context, w Workload, do op) (*sample, error) {
	warm := &load{callers: w.Callers, pacer: r.pace(w, min(r.cfg.Duration/warmShare, maxWarm)), do: do, seed: ^r.cfg.Seed}
	if _, err := warm.run(ctx); err != nil {
		return nil, err
	}
	return r.measure(ctx, w, nil, &later{make: func() pacer { return r.pace(w, r.cfg.Duration) }}, do)
}

// values are what the callers write, one for each.
type values [][]byte

func (r *run) values() values {
	vs := make(values, r.cfg.Callers)
	for i := range vs {
		vs[i] = make([]byte, r.cfg.ValueSize)
		rand.Read(vs[i])
	}
	return vs
}

// of is the caller's value, which differs from call to call.
func (vs values) of(caller, i int) []byte {
	v := vs[caller]
	if len(v) >= 8 {
		binary.LittleEndian.PutUint64(v, uint64(i))
	}
	return v
}

// grew takes note of the highest id known to be in a facet.
func (r *run) grew(f int, id int64) {
	for was := r.set.rows[f].Load(); was < id && !r.set.rows[f].CompareAndSwap(was, id); {
		was = r.set.rows[f].Load()
	}
}

// write inserts one row.
func (r *run) write(w Workload) op {
	values, pick := r.values(), r.chooser(w)
	return func(ctx context.Context, caller, i int, rng *mrand.Rand) error {
		f := pick(rng)
		res, err := r.set.all[f].Exec(ctx, WriteSQL, values.of(caller, i))
		if err != nil {
			return err
		}
		if res.RowsAffected != 1 {
			return fmt.Errorf("an insert changed %d rows", res.RowsAffected)
		}
		r.grew(f, res.LastInsertID)
		return nil
	}
}

// read reads one row.
func (r *run) read(w Workload) op {
	pick := r.chooser(w)
	return func(ctx context.Context, _, _ int, rng *mrand.Rand) error { return r.readOne(ctx, pick(rng), rng) }
}

// row is the id of a row that is there.
func (r *run) row(f int, rng *mrand.Rand) int64 { return 1 + rng.Int64N(max(1, r.set.rows[f].Load())) }

func (r *run) readOne(ctx context.Context, f int, rng *mrand.Rand) error {
	var v []byte
	id := r.row(f, rng)
	if err := r.set.all[f].QueryRow(ctx, ReadSQL, id).Scan(&v); err != nil {
		return err
	}
	return r.rightSize(f, id, v)
}

func (r *run) rightSize(f int, id int64, v []byte) error {
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
