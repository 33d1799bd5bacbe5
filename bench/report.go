package bench

import (
	"encoding/json"
	"io"
	"math"
	"time"
)

// Report is the outcome of a run. Its JSON is a contract with scripts: names may
// be added, never changed.
type Report struct {
	Settings Settings `json:"settings"`
	Results  []Result `json:"results"`
	Limits   *Limits  `json:"limits,omitempty"`
	Ratios   *Ratios  `json:"ratios,omitempty"`
	// Reference is what the results of write_one are compared with.
	Reference *Reference `json:"reference,omitempty"`
	Idle      *Idle      `json:"idle,omitempty"`
	Active    *Active    `json:"active,omitempty"`
	// Interrupted says that the run was ended early and what is here is a part.
	Interrupted bool `json:"interrupted,omitempty"`
}

// Settings are those of the run and of the machine.
type Settings struct {
	Facets    int     `json:"facets"`
	Callers   int     `json:"callers"`
	ValueSize int     `json:"value_size"`
	Rows      int     `json:"rows"`
	Conns     int     `json:"connections"`
	Seconds   float64 `json:"duration_seconds"`
	Nodes     int     `json:"nodes"`
	Replicas  int     `json:"replicas,omitempty"` // copies of a new facet; 0: unknown
	Target    string  `json:"target"`             // endpoints, with commas between
	Data      string  `json:"data,omitempty"`
	Started   string  `json:"started"`
	Version   string  `json:"version,omitempty"`
	Go        string  `json:"go"`
	OS        string  `json:"os"`
	Arch      string  `json:"arch"`
	CPUs      int     `json:"cpus"`

	Rate    float64 `json:"rate_per_second,omitempty"` // 0: a closed loop
	Queue   int     `json:"queue,omitempty"`
	Theta   float64 `json:"theta,omitempty"`
	Seed    uint64  `json:"seed,omitempty"`
	Command string  `json:"command,omitempty"`
	CPU     string  `json:"cpu,omitempty"`
	Memory  int64   `json:"memory_bytes,omitempty"`
}

// Result is the outcome of one workload.
type Result struct {
	Workload     string  `json:"workload"`
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          int64   `json:"p50_us"`
	P90          int64   `json:"p90_us"`
	P99          int64   `json:"p99_us"`
	P999         int64   `json:"p999_us"`
	Max          int64   `json:"max_us"`
	Errors       int64   `json:"errors"`
	Ops          int64   `json:"ops"`
	Seconds      float64 `json:"seconds"`
	Callers      int     `json:"callers"`
	Facets       int     `json:"facets"`
	FirstError   string  `json:"first_error,omitempty"`

	// Mode is "closed", where latency counts from when a caller called, or "open",
	// where it counts from when the call was due.
	Mode    string  `json:"mode,omitempty"`
	Rate    float64 `json:"rate_per_second,omitempty"`
	Due     int64   `json:"due,omitempty"`     // calls that were due in an open loop
	Late    int64   `json:"late,omitempty"`    // of them begun more than 1 ms late
	Dropped int64   `json:"dropped,omitempty"` // of them never begun: the queue was full

	RowsPerOp   int          `json:"rows_per_op,omitempty"`
	Verified    *Verified    `json:"verified,omitempty"`
	Percentiles []Percentile `json:"percentiles,omitempty"`
	Series      []Point      `json:"series,omitempty"`
	Resources   *Resources   `json:"resources,omitempty"`
}

// Percentile is one point of the distribution of latencies.
type Percentile struct {
	Percent float64 `json:"percent"`
	Micros  int64   `json:"us"`
}

// Point is how a workload went in one interval.
type Point struct {
	At      float64 `json:"at_seconds"` // its begin, in time measured
	Seconds float64 `json:"seconds"`
	Ops     int64   `json:"ops"`
	Errors  int64   `json:"errors,omitempty"`
	P50     int64   `json:"p50_us"` // to 2 %
	P99     int64   `json:"p99_us"`
}

// Resources are what an operation cost while it was measured. Null is unknown. The
// nodes' figures are of their whole processes: what they did for others is in them.
type Resources struct {
	ClientCPU *float64 `json:"client_cpu_seconds_per_1000_ops"`
	NodesCPU  *float64 `json:"nodes_cpu_seconds_per_1000_ops"`
	Log       *float64 `json:"log_bytes_per_op"`        // written into the commit logs of all nodes
	Zeroed    *float64 `json:"log_zeroed_bytes_per_op"` // zeros written into segments before they are used
	Database  *float64 `json:"database_bytes_per_op"`   // written into database files, by the checkpoints of that time
	Peers     *float64 `json:"peer_bytes_per_op"`       // sent from node to node
	Sent      *float64 `json:"client_sent_bytes_per_op"`
	Received  *float64 `json:"client_received_bytes_per_op"`
	Resident  *int64   `json:"nodes_resident_bytes"` // afterwards, all nodes together
	Active    *int64   `json:"facets_active"`        // afterwards, open at some node
	Unknown   string   `json:"unknown,omitempty"`    // why some are null
}

// Verified is what the counters of workload counter rose by.
type Verified struct {
	Acknowledged int64 `json:"acknowledged"`
	Unknown      int64 `json:"outcome_unknown"`
	Found        int64 `json:"found"`
}

// Active is what open facets cost.
type Active struct {
	Facets      int     `json:"facets"`
	ClosedBytes int64   `json:"closed_resident_bytes"` // restarted, none open
	OpenBytes   int64   `json:"open_resident_bytes"`
	PerFacet    float64 `json:"bytes_per_facet"`
}

// percents are the points of a distribution the report keeps.
var percents = []float64{0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100}

// Limits are what the machine could do at best, measured in the same run.
type Limits struct {
	Echo           float64 `json:"echo_per_second"`
	Writes         float64 `json:"engine_writes_per_second"`
	Reads          float64 `json:"engine_reads_per_second"`
	Fsync          float64 `json:"fdatasync_per_second"`
	CombinedWrites float64 `json:"combined_writes_per_second"`
	CombinedReads  float64 `json:"combined_reads_per_second"`

	HotWrites   float64 `json:"engine_hot_writes_per_second"`
	HotReads    float64 `json:"engine_hot_reads_per_second"`
	SDKEcho     float64 `json:"sdk_echo_per_second"`
	FsyncCalls  float64 `json:"fdatasync_calls_per_second"`
	FsyncSingle float64 `json:"fdatasync_single_writer_per_second"`
	Stock       float64 `json:"stock_sqlite_writes_per_second"`
}

// combine fills in the combined limits: the same cores do the work of the engine
// and that of the transport, one after the other.
func (l *Limits) combine() {
	l.CombinedWrites = combined(l.Writes, l.Echo)
	l.CombinedReads = combined(l.Reads, l.Echo)
	for _, x := range []*float64{&l.Echo, &l.Writes, &l.Reads, &l.Fsync, &l.CombinedWrites, &l.CombinedReads,
		&l.HotWrites, &l.HotReads, &l.SDKEcho, &l.FsyncCalls, &l.FsyncSingle, &l.Stock} {
		*x = round(*x)
	}
}

func combined(a, b float64) float64 {
	if a <= 0 || b <= 0 {
		return 0
	}
	return 1 / (1/a + 1/b)
}

// Ratios compare what was reached with the limits; 0 where one was not measured.
type Ratios struct {
	Write      float64 `json:"write_to_combined"`
	Read       float64 `json:"read_to_combined"`
	WriteEcho  float64 `json:"write_to_echo"`
	WriteW     float64 `json:"write_to_engine"`
	WriteSync  float64 `json:"write_to_fdatasync"`
	WriteStock float64 `json:"write_to_stock_sqlite"`
	ReadEcho   float64 `json:"read_to_echo"`
	ReadR      float64 `json:"read_to_engine"`
	HotWrite   float64 `json:"hot_write_to_write"`
	HotRead    float64 `json:"hot_read_to_read"`
}

// Reference is the shortest way a durable write can take, measured between parts
// of workload write_one: medians in microseconds.
type Reference struct {
	Owner   float64 `json:"owner_round_trip_p50_us"`   // framed, one caller, a value of the size written
	Replica float64 `json:"replica_round_trip_p50_us"` // the same to a second node; 0 where there is one copy
	Fsync   float64 `json:"fdatasync_p50_us"`          // of 4 KiB into a file written before
	Sum     float64 `json:"sum_us"`
	Write   float64 `json:"write_one_p50_us"`
	Ratio   float64 `json:"write_one_to_sum"`
}

// finish fills in what follows from the rest.
func (r *Reference) finish(write float64) {
	r.Sum, r.Write = r.Owner+r.Replica+r.Fsync, write
	if r.Sum > 0 {
		r.Ratio = r.Write / r.Sum
	}
	for _, x := range []*float64{&r.Owner, &r.Replica, &r.Fsync, &r.Sum, &r.Write, &r.Ratio} {
		*x = round(*x)
	}
}

// Idle is what many idle facets cost.
type Idle struct {
	Facets         int     `json:"facets"`
	EmptyBytes     int64   `json:"empty_resident_bytes"`
	PeakBytes      int64   `json:"peak_resident_bytes"`
	HibernateBytes int64   `json:"hibernated_resident_bytes"`
	RestartBytes   int64   `json:"restarted_resident_bytes"`
	PerFacet       float64 `json:"bytes_per_facet"`
	Hibernated     float64 `json:"hibernate_seconds"`
	EmptyStart     float64 `json:"empty_start_seconds"`
	Start          float64 `json:"start_seconds"`
}

// round keeps four significant digits: more would pretend.
func round(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*scale) / scale
}

func (s *sample) result(w Workload) Result {
	r := Result{Workload: w.Name, Errors: s.errors, Ops: s.hist.TotalCount(), Seconds: round(s.elapsed.Seconds()), Callers: w.Callers, Facets: w.Facets}
	if s.elapsed > 0 {
		r.OpsPerSecond = round(float64(r.Ops) / s.elapsed.Seconds())
	}
	if r.Ops > 0 {
		at := s.hist.ValueAtPercentile
		r.P50, r.P90, r.P99, r.P999, r.Max = at(50), at(90), at(99), at(99.9), s.hist.Max()
	}
	for _, p := range percents {
		if r.Ops > 0 {
			r.Percentiles = append(r.Percentiles, Percentile{p, s.hist.ValueAtPercentile(p)})
		}
	}
	r.Mode, r.RowsPerOp = "closed", w.RowsPerOp
	if s.due > 0 {
		r.Mode, r.Rate, r.Due, r.Late, r.Dropped = "open", s.rate, s.due, s.late, s.dropped
	}
	if s.series != nil {
		r.Series = s.series.report()
	}
	r.Resources = s.spent.report(r.Ops)
	if s.firstErr != nil {
		r.FirstError = s.firstErr.Error()
	}
	return r
}

// compare fills in Ratios.
func (r *Report) compare() {
	if r.Limits == nil {
		return
	}
	rate := func(name string) float64 {
		for _, x := range r.Results {
			if x.Workload == name {
				return x.OpsPerSecond
			}
		}
		return 0
	}
	ratio := func(a, b float64) float64 {
		if b <= 0 {
			return 0
		}
		return round(a / b)
	}
	l, w, rd := r.Limits, rate("write"), rate("read")
	r.Ratios = &Ratios{
		Write: ratio(w, l.CombinedWrites), Read: ratio(rd, l.CombinedReads),
		WriteEcho: ratio(w, l.Echo), WriteW: ratio(w, l.Writes), WriteSync: ratio(w, l.Fsync), WriteStock: ratio(w, l.Stock),
		ReadEcho: ratio(rd, l.Echo), ReadR: ratio(rd, l.Reads),
		HotWrite: ratio(rate("hot_write"), w), HotRead: ratio(rate("hot_read"), rd),
	}
}

// WriteJSON writes the report as scripts read it.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

func seconds(d time.Duration) float64 { return round(d.Seconds()) }
