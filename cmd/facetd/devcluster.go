package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maxDevNodes bounds a cluster on one machine.
	maxDevNodes = 20

	// devStep is the distance of the API ports of two nodes: scripts rely on it.
	// The ports in between are those for peers and gossip.
	devStep = 10

	// devVoters is how many nodes begin a cluster; those after them join it.
	devVoters = 5

	// minFreePort and maxFreePort are where free ports are looked for.
	minFreePort, maxFreePort = 10_000, 32_000

	// maxOutputLine bounds how much of a child's line is kept back until its end.
	maxOutputLine = 64 << 10

	// underDev is the environment variable that tells a node that it is a child of
	// dev, which has said already what is insecure about it.
	underDev = "FACETD_DEV"
)

// devCluster runs the nodes of a cluster as child processes of this binary: each
// can be killed by itself, as a machine can die.
//
// One goroutine, that of run, decides; one a child starts it and waits for its
// end. All of them have ended when run returns.
type devCluster struct {
	nodes  []*devNode
	out    *sharedOutput
	events chan devEvent
	wait   sync.WaitGroup
}

// devNode is one child.
type devNode struct {
	name    string
	command func() *exec.Cmd
	again   string // the command line that starts it again
	cmd     *exec.Cmd

	// Of the goroutine of run.
	pid   int
	url   string // empty until it is ready
	ended bool
}

// devEvent is what happened to a child: it runs, is ready, or has ended.
type devEvent struct {
	node  *devNode
	pid   int
	url   string
	ended bool
	err   error
}

// devCommandLines gives the arguments of every node of a cluster of n.
func devCommandLines(dir, host string, port, n int, extra []string) [][]string {
	var seeds []string
	for k := range n {
		seeds = append(seeds, net.JoinHostPort(host, strconv.Itoa(port+devStep*k+2)))
	}
	expect := min(n, devVoters)
	var all [][]string
	for k := range n {
		at := func(i int) string { return net.JoinHostPort(host, strconv.Itoa(port+devStep*k+i)) }
		name := fmt.Sprintf("node-%d", k+1)
		args := []string{"serve", "--insecure", "--node-id", name, "--data", filepath.Join(dir, name),
			"--listen", at(0), "--peer-listen", at(1), "--gossip-listen", at(2), "--join", strings.Join(seeds, ",")}
		if k < expect {
			args = append(args, "--bootstrap-expect", strconv.Itoa(expect))
		}
		all = append(all, append(args, extra...))
	}
	return all
}

// passedOn lists the flags of this command that its nodes get as they are.
func passedOn(fs *flag.FlagSet) []string {
	own := []string{"data", "listen", "nodes", "config", "pprof", "stop-on-eof", "log-level"}
	args := []string{"--log-level=" + fs.Lookup("log-level").Value.String()}
	fs.Visit(func(f *flag.Flag) {
		if !slices.Contains(own, f.Name) {
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// newDevCluster prepares a cluster of n nodes below dir.
func newDevCluster(p *program, dir, listen string, n int, extra []string) (*devCluster, error) {
	if _, err := os.Stat(filepath.Join(dir, "node.json")); err == nil {
		return nil, usagef("%s holds the data of one node; give the cluster another directory with --data", dir)
	}
	host, portText, err := net.SplitHostPort(listen)
	if err != nil {
		return nil, usagef("--listen: %v", err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil || port < 0 || port+devStep*n > 1<<16-1 {
		return nil, usagef("--listen: node k listens at port + %d*(k-1), so a port between 1 and %d is needed, not %q", devStep, 1<<16-1-devStep*n, portText)
	}
	if port == 0 {
		if port, err = freePorts(host, n); err != nil {
			return nil, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	d := &devCluster{out: &sharedOutput{w: p.stderr}, events: make(chan devEvent)}
	for k, args := range devCommandLines(absolute(dir), host, port, n, extra) {
		d.nodes = append(d.nodes, &devNode{
			name:  fmt.Sprintf("node-%d", k+1),
			again: shellLine("facetd", args),
			command: func() *exec.Cmd {
				cmd := exec.Command(self, append(args, "--stop-on-eof")...)
				cmd.Env = append(childEnv(), underDev+"=1")
				return cmd
			},
		})
	}
	return d, nil
}

// childEnv is this process's environment without the settings for this command.
func childEnv() (env []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "FACETD_") {
			env = append(env, kv)
		}
	}
	return env
}

// shellLine is a command line as one would type it.
func shellLine(name string, args []string) string {
	words := []string{name}
	for _, a := range args {
		if strings.ContainsFunc(a, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_=.,:/+@%[]", r))
		}) || a == "" {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	return strings.Join(words, " ")
}

// freePorts finds a port such that those of n nodes are free. Somebody may take
// one before the nodes do; then they say so.
func freePorts(host string, n int) (int, error) {
	const tries = 50
	free := func(port int) bool {
		for k := range n {
			for i := range 3 {
				addr := net.JoinHostPort(host, strconv.Itoa(port+devStep*k+i))
				l, err := net.Listen("tcp", addr)
				if err != nil {
					return false
				}
				l.Close()
				u, err := net.ListenPacket("udp", addr)
				if err != nil {
					return false
				}
				u.Close()
			}
		}
		return true
	}
	for range tries {
		// Below those that systems give to outgoing connections: such a port would be
		// taken again before a node listens there, on a busy machine often.
		port := minFreePort + rand.IntN(maxFreePort-minFreePort-devStep*n)
		if free(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("find free ports: none in %d tries; name one with --listen", tries)
}

// start runs every node in a goroutine of its own.
func (d *devCluster) start() {
	for _, n := range d.nodes {
		d.wait.Go(func() {
			// The death of the thread that started a child counts as the death of its
			// parent: this one stays until the child has ended.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			d.events <- devEvent{node: n, ended: true, err: n.run(d)}
		})
	}
}

// run starts the child and waits for its end.
func (n *devNode) run(d *devCluster) error {
	cmd := n.command()
	tieToParent(cmd)
	stdout := &linePrefixer{to: d.out, prefix: n.name + " | ", line: func(text string) bool {
		_, url, ok := strings.Cut(text, " at ")
		if ok = ok && strings.HasPrefix(text, "ready: "); ok {
			d.events <- devEvent{node: n, url: strings.TrimSuffix(strings.TrimSpace(url), "/")}
		}
		return ok
	}}
	stderr := &linePrefixer{to: d.out, prefix: n.name + " | "}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stdout, stderr, childStop
	// It ends with its standard input where the system does not end it with us.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	n.cmd = cmd
	d.events <- devEvent{node: n, pid: cmd.Process.Pid}
	err = cmd.Wait()
	stdout.flush()
	stderr.flush()
	return err
}

// run runs the cluster until a signal, the end of eof, or that of all nodes.
func (d *devCluster) run(ctx context.Context, p *program, eof <-chan struct{}, ready func(io.Writer, []*devNode)) error {
	defer d.wait.Wait()
	d.start()
	slow := time.NewTimer(childStart)
	defer slow.Stop()
	told := false
	for {
		select {
		case e := <-d.events:
			d.happened(e, told)
			if len(d.alive()) == 0 {
				return errors.New("no node runs any more")
			}
			if !told && d.settled() {
				told = true
				ready(p.stdout, d.nodes)
			}
			continue
		case <-slow.C:
			if !told {
				d.out.print(fmt.Sprintf("not every node is ready after %v; what they say is above", childStart))
			}
			continue
		case <-p.signals:
		case <-eof:
		case <-ctx.Done():
		}
		return d.stop(p)
	}
}

// happened notes what happened to a node, and reports the end of one.
func (d *devCluster) happened(e devEvent, told bool) {
	n := e.node
	switch {
	case e.pid != 0:
		n.pid = e.pid
	case e.url != "":
		n.url = e.url
		if told {
			d.out.print(fmt.Sprintf("%s is ready at %s/", n.name, n.url))
		}
	case e.ended:
		n.ended = true
		how := "by itself"
		if e.err != nil {
			how = "with " + e.err.Error()
		}
		line := fmt.Sprintf("%s (pid %d) has ended %s", n.name, n.pid, how)
		switch left := len(d.alive()); {
		case left == 1:
			line += "; the other one goes on. To start it again: " + n.again
		case left > 1:
			line += fmt.Sprintf("; the other %d go on. To start it again: %s", left, n.again)
		}
		d.out.print(line)
	}
}

func (d *devCluster) alive() (list []*devNode) {
	for _, n := range d.nodes {
		if !n.ended {
			list = append(list, n)
		}
	}
	return list
}

// settled reports whether every node is ready or has ended.
func (d *devCluster) settled() bool {
	return !slices.ContainsFunc(d.nodes, func(n *devNode) bool { return !n.ended && n.url == "" })
}

// stop stops every node gracefully, and kills what does not stop or when a second
// signal comes.
func (d *devCluster) stop(p *program) error {
	d.signal(syscall.SIGTERM)
	late := time.NewTimer(childStop)
	defer late.Stop()
	var errs []error
	for len(d.alive()) > 0 {
		select {
		case e := <-d.events:
			if e.pid != 0 { // it was only just started
				e.node.pid = e.pid
				e.node.cmd.Process.Signal(syscall.SIGTERM)
			}
			if !e.ended {
				continue
			}
			e.node.ended = true
			if e.err != nil {
				errs = append(errs, fmt.Errorf("%s ended with %w", e.node.name, e.err))
			}
		case <-late.C:
			d.out.print(fmt.Sprintf("killing what has not stopped after %v", childStop))
			d.signal(syscall.SIGKILL)
		case <-p.signals:
			d.signal(syscall.SIGKILL)
		}
	}
	return errors.Join(errs...)
}

// signal sends a signal to every node that runs.
func (d *devCluster) signal(sig os.Signal) {
	for _, n := range d.alive() {
		if n.pid != 0 {
			n.cmd.Process.Signal(sig) // an error means that it has ended
		}
	}
}

// sharedOutput is where several children write, a line at a time.
type sharedOutput struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedOutput) print(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.w, line)
}

// linePrefixer puts a prefix before each line. One goroutine writes.
type linePrefixer struct {
	to     *sharedOutput
	prefix string
	line   func(text string) (taken bool) // sees every line first; may be nil
	rest   []byte                         // of a line that has no end yet
}

// Write implements io.Writer.
func (l *linePrefixer) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			break
		}
		l.emit(append(l.rest, p[:i]...))
		l.rest, p = l.rest[:0], p[i+1:]
	}
	if l.rest = append(l.rest, p...); len(l.rest) > maxOutputLine {
		l.flush()
	}
	return n, nil
}

func (l *linePrefixer) emit(line []byte) {
	text := strings.TrimSuffix(string(line), "\r")
	if l.line == nil || !l.line(text) {
		l.to.print(l.prefix + text)
	}
}

// flush prints a line without an end.
func (l *linePrefixer) flush() {
	if len(l.rest) > 0 {
		l.emit(l.rest)
		l.rest = l.rest[:0]
	}
}
