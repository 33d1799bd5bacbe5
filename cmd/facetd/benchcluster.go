package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"

	"github.com/facetd/facetd/bench"
)

// clusterNodes are the nodes of a cluster, child processes of this binary as those
// of dev are. It implements bench.Node.
type clusterNodes struct {
	dir      string
	logFile  string // of the messages of all nodes
	nodes    int
	replicas int    // 0: the nodes' default
	pprof    string // node k serves profiles at its port + k-1; empty: none do

	listen string // of the first node, the same at every start
	run    *clusterRun
}

// clusterRun is one life of the cluster.
type clusterRun struct {
	list []*devNode // once all are ready; only read
	stop chan struct{}
	over chan error // gets one value
	log  io.Closer
}

// Endpoints implements bench.Node.
func (c *clusterNodes) Endpoints() (urls []string) {
	if c.run != nil {
		for _, n := range c.run.list {
			urls = append(urls, n.url)
		}
	}
	return urls
}

// Restart implements bench.Node.
func (c *clusterNodes) Restart(ctx context.Context, idleAfter time.Duration) (time.Duration, error) {
	if err := c.close(); err != nil {
		return 0, err
	}
	if c.listen == "" {
		port, err := freePorts("127.0.0.1", c.nodes)
		if err != nil {
			return 0, err
		}
		c.listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	extra := []string{"--log-level=warn"}
	if idleAfter > 0 {
		extra = append(extra, "--idle-after="+idleAfter.String())
	}
	if c.replicas > 0 {
		extra = append(extra, "--replicas="+strconv.Itoa(c.replicas))
	}
	log, err := os.OpenFile(c.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fmt.Errorf("open the log of the nodes: %w", err)
	}
	// Its signals are for this process, which stops the nodes when it is done.
	p := &program{stdout: io.Discard, stderr: log}
	d, err := newDevCluster(p, c.dir, c.listen, c.nodes, extra)
	if err == nil {
		err = c.profiled(d)
	}
	if err != nil {
		log.Close()
		return 0, err
	}
	begin := time.Now()
	r := &clusterRun{stop: make(chan struct{}), over: make(chan error, 1), log: log}
	ready := make(chan []*devNode, 1)
	go func() {
		r.over <- d.run(context.WithoutCancel(ctx), p, r.stop, func(_ io.Writer, list []*devNode) { ready <- slices.Clone(list) })
	}()
	c.run = r
	wait := time.NewTimer(childStart)
	defer wait.Stop()
	select {
	case r.list = <-ready:
		if slices.ContainsFunc(r.list, func(n *devNode) bool { return n.url == "" }) {
			return 0, errors.Join(errors.New("not every node has started"), c.close())
		}
		return time.Since(begin), nil
	case err := <-r.over:
		r.over <- err
		return 0, c.close()
	case <-wait.C:
		return 0, errors.Join(fmt.Errorf("not every node was ready after %v", childStart), c.close())
	case <-ctx.Done():
		return 0, errors.Join(context.Cause(ctx), c.close())
	}
}

// profiled adds the addresses of profiles to the nodes' command lines.
func (c *clusterNodes) profiled(d *devCluster) error {
	if c.pprof == "" {
		return nil
	}
	host, portText, err := net.SplitHostPort(c.pprof)
	if err != nil {
		return usagef("--pprof: %v", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 1 || port+c.nodes > 1<<16 {
		return usagef("--pprof: node k serves profiles at port + k-1, so a port is needed, not %q", portText)
	}
	for k, n := range d.nodes {
		plain := n.command
		n.command = func() *exec.Cmd {
			cmd := plain()
			cmd.Args = append(cmd.Args, "--pprof="+net.JoinHostPort(host, strconv.Itoa(port+k)))
			return cmd
		}
	}
	return nil
}

// close stops the nodes gracefully. It may be called when none runs.
func (c *clusterNodes) close() error {
	r := c.run
	if r == nil {
		return nil
	}
	c.run = nil
	close(r.stop)
	return errors.Join(<-r.over, r.log.Close())
}

// Memory implements bench.Node.
func (c *clusterNodes) Memory() (sum bench.Memory, err error) {
	if c.run == nil {
		return sum, errors.New("the cluster does not run")
	}
	for _, n := range c.run.list {
		m, err := processMemory(n.pid)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", n.name, err)
		}
		sum.Resident += m.Resident
		sum.Peak += m.Peak
	}
	return sum, nil
}

func (c *clusterNodes) tail(w io.Writer) { fmt.Fprintf(w, "the nodes: %s\n", lastLines(c.logFile)) }
