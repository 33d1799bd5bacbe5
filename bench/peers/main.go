package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	callers  = flag.Int("callers", 64, "keep `N` requests under way")
	keys     = flag.Int("keys", 1000, "spread them over `N` keys; a key of facetd is a facet")
	size     = flag.Int("value-size", 256, "write values of `N` bytes")
	duration = flag.Duration("duration", 5*time.Second, "measure each workload of each round for this `TIME`")
	rounds   = flag.Int("rounds", 3, "measure all peers in turns, `N` times")
	data     = flag.String("data", ".", "make the data directories under this `DIR`, on the disk to be measured")
	only     = flag.String("only", "", "run the peers with these `NAMES`, with commas between")
	asJSON   = flag.String("json", "peers.json", "write the report as JSON to this `FILE` as well; empty: do not")
	etcdTo   = flag.String("etcd-endpoints", "leader", "connect etcd's client to the leader, or to all endpoints: `WHICH`")
	paths    = map[string]*string{
		"facetd": flag.String("facetd", "", "`PATH` of facetd (default: the one in PATH)"),
		"etcd":   flag.String("etcd", "", "`PATH` of etcd (default: the one in PATH)"),
		"rqlite": flag.String("rqlite", "", "`PATH` of rqlited (default: the one in PATH)"),
	}
)

// workloads in the order they are run in each round.
var workloads = []string{"write", "read"}

// The main goroutine keeps its thread, which is the parent of the servers.
func init() { runtime.LockOSThread() }

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := compare(ctx, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// compare runs everything and writes the report.
func compare(ctx context.Context, stdout, progress io.Writer) (err error) {
	if *callers < 1 || *callers > maxCallers || *keys < 1 || *keys > maxKeys || *size < 1 || *rounds < 1 || *duration <= 0 {
		return errors.New("callers, keys, value-size, rounds and duration must be above 0, and not beyond reason")
	}
	if *etcdTo != "all" && *etcdTo != "leader" {
		return errors.New("--etcd-endpoints is all or leader")
	}
	parent, err := filepath.Abs(*data)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "peers-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := report{Started: time.Now().UTC().Format(time.RFC3339), Nodes: nodes, Callers: *callers, Keys: *keys, Value: *size,
		Seconds: duration.Seconds(), CPUs: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Data: dir}
	var running []*cluster
	defer func() {
		for _, c := range running {
			err = errors.Join(err, c.stop())
		}
	}()
	for _, p := range []peer{facetdPeer{}, etcdPeer{leader: *etcdTo == "leader"}, rqlitePeer{}} {
		path := find(p.name(), progress)
		if path == "" {
			continue
		}
		fmt.Fprintf(progress, "starting %d processes of %s and writing %d keys\n", nodes, p.name(), *keys)
		c, err := startCluster(ctx, p, path, dir)
		if err != nil {
			return fmt.Errorf("start %s: %w", p.name(), err)
		}
		running = append(running, c)
		r.Peers = append(r.Peers, about{Peer: p.name(), Version: c.version, Client: p.about(), Commands: c.lines})
		if err := c.session.prepare(ctx); err != nil {
			return fmt.Errorf("prepare %s: %w", p.name(), err)
		}
		if err := fill(ctx, c.session, *callers, *keys, *size); err != nil {
			return fmt.Errorf("%s: %w", p.name(), err)
		}
	}
	if len(running) == 0 {
		return errors.New("no server was found; give paths with --facetd, --etcd, --rqlite")
	}
	for round := 1; round <= *rounds && ctx.Err() == nil; round++ {
		for _, c := range running {
			for _, w := range workloads {
				m, err := c.measure(ctx, w)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", c.peer.name(), w, err)
				}
				m.Round = round
				r.Measures = append(r.Measures, m)
				fmt.Fprintf(progress, "round %d: %s %s %.0f/s\n", round, c.peer.name(), w, m.OpsPerSecond)
			}
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.compare()
	if *asJSON != "" {
		f, err := os.Create(*asJSON)
		if err != nil {
			return err
		}
		if err := errors.Join(r.writeJSON(f), f.Close()); err != nil {
			return err
		}
	}
	return r.writeText(stdout)
}

// find gives the path of a peer's server, empty where it is not to be had.
func find(name string, progress io.Writer) string {
	if *only != "" && !strings.Contains(","+*only+",", ","+name+",") {
		return ""
	}
	if p := *paths[name]; p != "" {
		return p
	}
	program := name
	if name == "rqlite" {
		program = "rqlited"
	}
	p, err := exec.LookPath(program)
	if err != nil {
		fmt.Fprintf(progress, "%s is not in PATH and left out\n", program)
	}
	return p
}

// measure runs a workload for its time, after a while that does not count.
func (c *cluster) measure(ctx context.Context, workload string) (measure, error) {
	do := reads(c.session, *keys, *size)
	if workload == "write" {
		do = writes(c.session, *callers, *keys, *size)
	}
	if _, err := run(ctx, *callers, *duration/warmShare, do); err != nil {
		return measure{}, err
	}
	load := loadAverage()
	servers, err := c.processor()
	if err != nil {
		return measure{}, err
	}
	own := ownProcessor()
	m, _ := run(ctx, *callers, *duration, do) // its errors are counted
	m.Peer, m.Workload, m.Load = c.peer.name(), workload, load
	after, err := c.processor()
	if m.Ops > 0 {
		per := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(m.Ops) * 1e3 }
		m.ServerCPU, m.ClientCPU = per(after-servers), per(ownProcessor()-own)
	}
	return m, err
}

// ownProcessor is the processor time this process has used.
func ownProcessor() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loadAverage is that of the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(raw), " ")
	x, _ := strconv.ParseFloat(first, 64) // the kernel wrote it
	return x
}
