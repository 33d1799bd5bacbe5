package telemetry

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

// The kinds of requests that are told apart.
const (
	kindRead     = iota // changed nothing
	kindWrite           // committed a change
	kindTx              // a part of an interactive transaction
	kindFollower        // read from a copy, the owner not asked
	kinds
)

var kindNames = [kinds]string{"read", "write", "tx", "follower_read"}

// knownCodes bounds the codes of errors that are counted one by one; those beyond count
// as internal.
const knownCodes = 128

// buckets of all durations, in seconds: from what a read of memory takes to the longest
// a statement may.
var buckets = []float64{
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30,
}

// Options of New.
type Options struct {
	// Slow is how long a request takes that is logged. Zero logs none.
	Slow time.Duration
	// TracerProvider makes spans of requests that their clients want recorded. nil makes
	// none.
	TracerProvider trace.TracerProvider
	// Log gets the slow requests. Default slog.Default().
	Log *slog.Logger
}

// Recorder is told of all requests of a node. Make one with New.
type Recorder struct {
	opt    Options
	slow   pace
	traced pace
	tracer trace.Tracer // nil for none

	count    *prometheus.CounterVec
	total    *prometheus.HistogramVec
	waiting  prometheus.Histogram
	running  prometheus.Histogram
	settling prometheus.Histogram
	slowSeen prometheus.Counter
	untraced prometheus.Counter

	took   [kinds]prometheus.Observer
	counts [kinds][knownCodes]atomic.Pointer[prometheus.Counter]
}

// New makes a Recorder.
func New(opt Options) *Recorder {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	}
	r := &Recorder{
		opt: opt,
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "facetd_requests_total",
			Help: "Requests this node answered, by kind (read, write, tx for a part of an interactive transaction, follower_read) and by code, ok or that of the error.",
		}, []string{"kind", "code"}),
		total: prometheus.NewHistogramVec(histogram("facetd_request_duration_seconds",
			"Time from when a request came to its answer, errors included, by kind."), []string{"kind"}),
		waiting: prometheus.NewHistogram(histogram("facetd_request_wait_seconds",
			"Part of it until the facet's turn came, its opening included; of requests that ran.")),
		running: prometheus.NewHistogram(histogram("facetd_request_execution_seconds",
			"Part of it that SQLite took; of requests that ran.")),
		settling: prometheus.NewHistogram(histogram("facetd_request_commit_seconds",
			"Part of it from then until a majority of the replicas had the commit on disk; of writes.")),
		slowSeen: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "facetd_slow_requests_total",
			Help: "Requests that took longer than --slow-request, logged or, where there were too many, not.",
		}),
	}
	r.untraced = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "facetd_traces_omitted_total",
		Help: "Requests their clients trace that were not told to the collector, because there were too many.",
	})
	if opt.TracerProvider != nil {
		r.tracer = opt.TracerProvider.Tracer(instrumentation)
	}
	for k := range r.took {
		r.took[k] = r.total.WithLabelValues(kindNames[k])
		r.counter(k, 0) // so that rates of success exist from the beginning
	}
	return r
}

// Register adds the metrics to a registry.
func (r *Recorder) Register(to prometheus.Registerer) {
	to.MustRegister(r.count, r.total, r.waiting, r.running, r.settling, r.slowSeen, r.untraced)
}

// counter is that of a kind and a code. Looking a label up takes longer than counting,
// so each is looked up once.
func (r *Recorder) counter(kind int, code facet.Code) prometheus.Counter {
	if code >= knownCodes {
		code = facet.CodeInternal
	}
	at := &r.counts[kind][code]
	if c := at.Load(); c != nil {
		return *c
	}
	name := "ok"
	if code != 0 {
		name = code.String()
	}
	c := r.count.WithLabelValues(kindNames[kind], name)
	at.Store(&c)
	return c
}

// Ended implements service.Watcher.
func (r *Recorder) Ended(call *service.Call) {
	p := &call.Phases
	kind := kindOf(call)
	total := p.Ended - p.Submitted
	r.counter(kind, codeOf(call.Err)).Inc()
	r.took[kind].Observe(total.Seconds())
	if p.Executed != 0 {
		r.waiting.Observe((p.Started - p.Submitted).Seconds())
		r.running.Observe((p.Executed - p.Started).Seconds())
		if p.Wrote {
			r.settling.Observe((p.Ended - p.Executed).Seconds())
		}
	}
	if r.tracer != nil && call.Request.Trace.Sampled {
		if _, ok := r.traced.admit(p.Ended, maxTraced); ok {
			r.record(call, kind)
		} else {
			r.untraced.Inc()
		}
	}
	if r.opt.Slow > 0 && total >= r.opt.Slow {
		r.slowSeen.Inc()
		r.logSlow(call, kind, total)
	}
}

func kindOf(call *service.Call) int {
	switch {
	case !call.Request.Tx.IsZero() || !call.Response.Tx.IsZero():
		return kindTx
	case call.Phases.Wrote:
		return kindWrite
	case call.Request.Read == facet.ReadFollower:
		return kindFollower
	}
	return kindRead
}

// codeOf is the code of an error, 0 for none.
func codeOf(err error) facet.Code {
	if err == nil {
		return 0
	}
	var e *facet.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return facet.CodeInternal
}
