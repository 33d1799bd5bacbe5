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
}

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
