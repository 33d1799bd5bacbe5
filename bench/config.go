package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
)

// Config says what to run. Zero fields have defaults.
type Config struct {
	// Node is what is measured: a node or a cluster. Required.
	Node Node
	// Workloads are run in this order; default Canonical.
	Workloads []Workload
	// Duration is how long each workload is measured. Default 10 s.
	Duration time.Duration
	// Facets is how many facets the load is spread over. Default 1,000.
	Facets int
	// Callers is how many requests are under way at a time. Default 64.
	Callers int
	// ValueSize is the size of the value a write writes, in bytes. Default 256.
	ValueSize int
	// Rows is how many rows a facet has before reads begin. Default 100.
	Rows int
	// Conns is how many connections the SDK keeps to a node. Default 2, as the SDK's.
	Conns int
	// Rate makes the loop an open one: that many calls a second are due, whatever
	// became of those before, and their latency counts from when they were due. 0 is
	// a closed loop: every caller calls again when it has its answer. It is for
	// workloads that run for a time.
	Rate float64
	// Queue is how many calls of an open loop may wait for a caller; more are dropped,
	// and counted. Default 16 for each caller.
	Queue int
	// Seed makes every choice of facets and rows the same from run to run. Default 1.
	Seed uint64
	// Theta is the skew of workload zipf, between 0 and 1. Default 0.99, as in YCSB.
	Theta float64
	// Command is what the report says was typed.
	Command string
	// Token is what the SDK shows the node, TLS how it speaks https.
	Token string
	TLS   *tls.Config

	// Settle is how long memory must not have fallen to count as settled. Default
	// 5 s: the runtime gives memory back to the system in its own time.
	Settle time.Duration

	// Limits, if set, measures what this machine could do at best. It runs after
	// the workloads, with the node still up.
	Limits func(ctx context.Context, s Settings, endpoint string, progress func(string)) (Limits, error)
	// Yardstick, if set, gives what workload write_one is compared with. endpoints
	// are those of Node.
	Yardstick func(ctx context.Context, s Settings, endpoints []string) (Yardstick, error)

	// Keep leaves the facets of the run behind.
	Keep bool
	// Progress gets a line for every step; nil for none.
	Progress io.Writer
}

// Node is a node under test, or a cluster of them.
type Node interface {
	// Endpoints are where the APIs of its nodes listen now: at least one.
	Endpoints() []string
	// Restart stops all nodes and starts them again on the same data. They hibernate
	// facets that were idle for so long; 0 is the nodes' default. The answer is
	// how long it took from start to ready. ErrForeign where the nodes are not ours.
	Restart(ctx context.Context, idleAfter time.Duration) (time.Duration, error)
	// Memory tells about the memory of the processes; ErrForeign where it is out of
	// sight.
	Memory() (Memory, error)
}

// Yardstick measures again and again what the shortest way of a durable write
// takes at the moment. Measure is called between parts of a workload, by one
// goroutine, and gives the medians of all it has measured so far.
type Yardstick interface {
	Measure(ctx context.Context) (Reference, error)
	Close() error
}

// Memory of a process, or of several together, in bytes.
type Memory struct {
	Resident int64 // now
	Peak     int64 // the most so far
}

// ErrForeign is the answer of a Node that cannot be restarted or looked into.
var ErrForeign = errors.New("the node was not started by this program")

// Op is what one call of a workload does.
type Op string

// The operations.
const (
	OpCreate Op = "create" // first write to a facet that does not exist
	OpWrite  Op = "write"  // insert one row
	OpOne    Op = "one"    // insert one row, with the yardstick applied in between
	OpRead   Op = "read"   // read one row by primary key
	OpCold   Op = "cold"   // read one row of a facet that hibernates
	OpFirst  Op = "first"  // read one row of each facet after a restart of the node
	OpIdle   Op = "idle"   // many facets, created and left alone

	OpMixed   Op = "mixed"   // read or insert one row
	OpBatch   Op = "batch"   // insert several rows in one transaction, one round trip
	OpTx      Op = "tx"      // read a row and insert one in an interactive transaction
	OpScan    Op = "scan"    // read many rows in one query
	OpLarge   Op = "large"   // write one large value
	OpCounter Op = "counter" // increment a number, with an idempotency key
	OpActive  Op = "active"  // facets that are open
)

// Workload is one kind of load.
type Workload struct {
	Name    string
	Op      Op
	Callers int // 0: Config.Callers
	Facets  int // 0: Config.Facets, which is also the most
	About   string

	Zipf      bool // facets are chosen by Config.Theta, not evenly
	Reads     int  // OpMixed: of a hundred calls
	RowsPerOp int  // OpBatch, OpScan
	Value     int  // OpLarge: size of a value in bytes
}

// Workloads are all there are, in the order they are best run.
var Workloads = []Workload{
	{Name: "create", Op: OpCreate, About: "first write to facets that do not exist (a table)"},
	{Name: "write", Op: OpWrite, About: "single-row inserts, spread over all facets, durable"},
	{Name: "read", Op: OpRead, About: "point reads by primary key, spread over all facets"},
	{Name: "hot_write", Op: OpWrite, Facets: 1, About: "the same inserts, all on one facet"},
	{Name: "hot_read", Op: OpRead, Facets: 1, About: "the same reads, all on one facet"},
	{Name: "write_one", Op: OpOne, Callers: 1, Facets: 1, About: "the same inserts by one caller into one facet: latency alone"},
	{Name: "cold", Op: OpCold, Callers: 1, About: "reads of facets that hibernate, one after the other"},
	{Name: "first", Op: OpFirst, About: "first read of every facet after a restart of the node"},
	{Name: "mixed", Op: OpMixed, Reads: mixedReads, About: "nine point reads to one insert, spread over all facets"},
	{Name: "zipf", Op: OpWrite, Zipf: true, About: "the inserts of write, but the facets are chosen by a Zipf distribution"},
	{Name: "batch", Op: OpBatch, RowsPerOp: batchRows, About: "10 inserts in one transaction and one round trip"},
	{Name: "tx", Op: OpTx, About: "interactive transactions: begin, read a row, insert one, commit"},
	{Name: "scan", Op: OpScan, Facets: scanFacets, RowsPerOp: scanRows, About: "queries of 1,000 rows, spread over 16 facets"},
	{Name: "large", Op: OpLarge, Facets: largeFacets, Value: largeValue, About: "writes of 64 KiB values over rows that exist, spread over 64 facets"},
	{Name: "counter", Op: OpCounter, About: "increments with idempotency keys; the counters must be right in the end"},
	{Name: "active", Op: OpActive, About: "memory of facets that are open"},
	{Name: "idle", Op: OpIdle, About: "memory and start-up time with many facets that hibernate"},
}

// canonical are the names of the workloads run unless others are asked for.
var canonical = []string{"create", "write", "read", "hot_write", "hot_read", "write_one", "cold"}

// Canonical are the workloads run unless others are asked for.
func Canonical() []Workload {
	ws, _ := Select(canonical...)
	return ws
}

// Select finds workloads by name; write-one is write_one, and all is every one but
// active and idle, which measure memory.
func Select(names ...string) ([]Workload, error) {
	var out []Workload
	for _, name := range names {
		if name == "all" {
			for _, w := range Workloads {
				if w.Op != OpIdle && w.Op != OpActive {
					out = append(out, w)
				}
			}
			continue
		}
		i := slices.IndexFunc(Workloads, func(w Workload) bool { return w.Name == strings.ReplaceAll(name, "-", "_") })
		if i < 0 {
			var all []string
			for _, w := range Workloads {
				all = append(all, w.Name)
			}
			return nil, fmt.Errorf("unknown workload %.40q: there are %s, and all", name, strings.Join(all, ", "))
		}
		out = append(out, Workloads[i])
	}
	return out, nil
}

func (c *Config) fill() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.Facets, 1000)
	def(&c.Callers, 64)
	def(&c.ValueSize, 256)
	def(&c.Rows, 100)
	def(&c.Conns, 2)
	if c.Rate > 0 {
		def(&c.Queue, min(16*max(c.Callers, 1), MaxQueue))
	}
	c.Seed = cmp.Or(c.Seed, 1)
	c.Theta = cmp.Or(c.Theta, 0.99)
	if c.Duration == 0 {
		c.Duration = 10 * time.Second
	}
	if c.Settle <= 0 {
		c.Settle = 5 * time.Second
	}
	if len(c.Workloads) == 0 {
		c.Workloads = Canonical()
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	var errs []error
	in := func(what string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s is %d, allowed are %d to %d", what, v, low, high))
		}
	}
	in("facets", c.Facets, 1, MaxFacets)
	in("callers", c.Callers, 1, MaxCallers)
	in("value size", c.ValueSize, 1, MaxValueSize)
	in("rows", c.Rows, 1, 1_000_000)
	in("connections", c.Conns, 1, 64)
	if c.Duration < time.Millisecond || c.Duration > MaxDuration {
		errs = append(errs, fmt.Errorf("duration is %v, allowed are 1ms to %v", c.Duration, MaxDuration))
	}
	if !(c.Rate >= 0 && c.Rate <= MaxRate) {
		errs = append(errs, fmt.Errorf("rate is %v, allowed are 0 to %d calls a second", c.Rate, MaxRate))
	}
	if !(c.Theta > 0 && c.Theta < 1) {
		errs = append(errs, fmt.Errorf("theta is %v, allowed is what lies between 0 and 1", c.Theta))
	}
	if c.Rate > 0 {
		in("queue", c.Queue, 1, MaxQueue)
	}
	if c.Node == nil {
		errs = append(errs, errors.New("no node is given"))
	}
	made := false
	for _, w := range c.Workloads {
		if w.Op == OpCreate && made {
			errs = append(errs, errors.New("workload create comes before those that need its facets, and once"))
		}
		made = made || w.Op != OpIdle && w.Op != OpActive
	}
	return errors.Join(errs...)
}

func (c *Config) open(ctx context.Context, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*client.Client, error) {
	return client.Open(ctx, c.Node.Endpoints(), client.Options{ConnsPerNode: c.Conns, Token: c.Token, TLS: c.TLS, Software: "facetd bench", Dial: dial})
}

func (c *Config) say(format string, args ...any) { fmt.Fprintf(c.Progress, format+"\n", args...) }
