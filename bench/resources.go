package bench

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The metrics of a node that tell what it used. They count since the node started,
// but for the last two.
const (
	metricCPU      = "process_cpu_seconds_total"
	metricLog      = "facetd_log_written_bytes_total"
	metricZeroed   = "facetd_log_zeroed_bytes_total"
	metricDatabase = "facetd_database_written_bytes_total"
	metricPeers    = "facetd_peer_sent_bytes_total"
	metricResident = "process_resident_memory_bytes"
	metricActive   = "facetd_facets_active"
)

var nodeMetrics = []string{metricCPU, metricLog, metricZeroed, metricDatabase, metricPeers, metricResident, metricActive}

// usage is what was used up to a moment.
type usage struct {
	cpu            time.Duration
	cpuKnown       bool
	sent, received int64
	nodes          []map[string]float64 // by node, in the order of run.apis
	err            error                // why nodes is empty
}

// spent is what the measured parts of a workload used.
type spent struct {
	measured       bool
	cpu            time.Duration
	cpuKnown       bool
	sent, received int64
	nodes          map[string]float64 // of all nodes together; what is not there is unknown
	unknown        string             // why something is
}

// usage asks the nodes what they have used. It costs one small request to each.
func (r *run) usage(ctx context.Context) (u usage) {
	u.cpu, u.cpuKnown = cpuTime()
	u.sent, u.received = r.traffic.sent.Load(), r.traffic.received.Load()
	for _, api := range r.apis {
		m, err := r.metrics(ctx, api)
		if err != nil {
			u.nodes, u.err = nil, fmt.Errorf("read the metrics of %s: %w", api, err)
			return u
		}
		u.nodes = append(u.nodes, m)
	}
	return u
}

// since is what was used between two moments. A figure is known if every node tells
// it, and none of them was restarted.
func (u *usage) since(b *usage) (s spent) {
	s = spent{measured: true, cpu: u.cpu - b.cpu, cpuKnown: u.cpuKnown && b.cpuKnown, sent: u.sent - b.sent, received: u.received - b.received}
	if !s.cpuKnown {
		s.unknown = "this system does not tell a program its processor time"
	}
	switch {
	case u.err != nil || b.err != nil:
		s.unknown = cmp.Or(b.err, u.err).Error()
		return s
	case len(u.nodes) != len(b.nodes):
		s.unknown = "nodes came or went meanwhile"
		return s
	}
	s.nodes = make(map[string]float64)
	for _, name := range nodeMetrics {
		sum, known := 0.0, true
		for i, now := range u.nodes {
			v, ok := now[name]
			if name != metricResident && name != metricActive {
				before, was := b.nodes[i][name]
				v -= before
				ok = ok && was && v >= 0
			}
			sum, known = sum+v, known && ok
		}
		if !known {
			s.unknown = fmt.Sprintf("not every node tells %s, or one was restarted", name)
			continue
		}
		s.nodes[name] = sum
	}
	return s
}

// add adds another round. Unknown and known is unknown.
func (s *spent) add(o *spent) {
	if !o.measured {
		return
	}
	if !s.measured {
		*s = *o
		return
	}
	s.cpu, s.cpuKnown = s.cpu+o.cpu, s.cpuKnown && o.cpuKnown
	s.sent, s.received = s.sent+o.sent, s.received+o.received
	for name := range s.nodes {
		v, ok := o.nodes[name]
		switch {
		case !ok:
			delete(s.nodes, name)
		case name == metricResident || name == metricActive:
			s.nodes[name] = v
		default:
			s.nodes[name] += v
		}
	}
	if s.unknown == "" {
		s.unknown = o.unknown
	}
}

// report gives the figures for each of ops operations.
func (s *spent) report(ops int64) *Resources {
	if !s.measured || ops == 0 {
		return nil
	}
	per := func(v, n float64, known bool) *float64 {
		if !known {
			return nil
		}
		v = round(v * n / float64(ops))
		return &v
	}
	node := func(name string, n float64) *float64 {
		v, ok := s.nodes[name]
		return per(v, n, ok)
	}
	now := func(name string) *int64 {
		v, ok := s.nodes[name]
		if !ok {
			return nil
		}
		n := int64(v)
		return &n
	}
	return &Resources{
		ClientCPU: per(s.cpu.Seconds(), 1000, s.cpuKnown), NodesCPU: node(metricCPU, 1000),
		Log: node(metricLog, 1), Zeroed: node(metricZeroed, 1), Database: node(metricDatabase, 1), Peers: node(metricPeers, 1),
		Sent: per(float64(s.sent), 1, true), Received: per(float64(s.received), 1, true),
		Resident: now(metricResident), Active: now(metricActive), Unknown: s.unknown,
	}
}

// metrics reads the metrics of a node that tell what it used.
func (r *run) metrics(ctx context.Context, api string) (m map[string]float64, err error) {
	err = r.fetch(ctx, api+"/metrics", func(body io.Reader) error {
		m, err = parseMetrics(io.LimitReader(body, maxMetrics))
		return err
	})
	return m, err
}

// parseMetrics reads the Prometheus text format, of which it wants a few lines
// without labels.
func parseMetrics(body io.Reader) (map[string]float64, error) {
	m := make(map[string]float64)
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || !slices.Contains(nodeMetrics, name) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			return nil, fmt.Errorf("%s is %.40q", name, value)
		}
		m[name] = v
	}
	return m, lines.Err()
}

// traffic counts what the SDK sends and receives: one addition for each system call.
type traffic struct{ sent, received atomic.Int64 }

// dial makes the SDK's connections, counted.
func (t *traffic) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := (&net.Dialer{KeepAlive: keepAlive}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: nc, t: t}, nil
}

type countedConn struct {
	net.Conn
	t *traffic
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.received.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.t.sent.Add(int64(n))
	return n, err
}
