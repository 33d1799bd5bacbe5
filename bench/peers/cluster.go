package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is three processes of a peer.
type cluster struct {
	peer    peer
	path    string
	version string
	lines   []string // the command lines, as one would type them
	ports   []int
	procs   []*process
	session session
}

type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan error // gets one value
}

// startCluster starts a peer's processes with their data below dir and waits until
// they work. The main goroutine calls it: the processes die with its thread.
func startCluster(ctx context.Context, p peer, path, dir string) (_ *cluster, err error) {
	c := &cluster{peer: p, path: path}
	out, err := exec.CommandContext(ctx, path, p.versionArgs()...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("version of %s: %w: %s", path, err, out)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	c.version = first
	if c.ports, err = freePorts(); err != nil {
		return nil, err
	}
	var dirs []string
	for k := range nodes {
		dirs = append(dirs, filepath.Join(dir, fmt.Sprintf("%s-%d", p.name(), k+1)))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for k, args := range p.commands(dirs, c.ports) {
		c.lines = append(c.lines, strings.Join(append([]string{filepath.Base(path)}, args...), " "))
		if err := c.start(args, dirs[k]+".log"); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(startWait)
	for {
		try, cancel := context.WithTimeout(ctx, callTimeout/5)
		c.session, err = p.open(try, c.ports)
		cancel()
		if err == nil {
			return c, nil
		}
		for _, pr := range c.procs {
			select {
			case e := <-pr.ended:
				pr.ended <- e
				return nil, fmt.Errorf("a process of %s has ended (%v): %s", p.name(), e, tail(pr.log))
			default:
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%s is not ready after %v: %w", p.name(), startWait, err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(startPoll):
		}
	}
}

func (c *cluster) start(args []string, log string) error {
	f, err := os.Create(log)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(c.path, args...)
	cmd.Stdout, cmd.Stderr = f, f
	tieToParent(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, log: log, ended: make(chan error, 1)}
	c.procs = append(c.procs, p)
	go func() { p.ended <- cmd.Wait() }()
	return nil
}

// stop ends the processes, by their ids: gracefully, and the hard way those that
// take too long.
func (c *cluster) stop() error {
	if c.session != nil {
		c.session.close()
	}
	for _, p := range c.procs {
		p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	}
	late := time.After(stopWait)
	for _, p := range c.procs {
		select {
		case <-p.ended:
		case <-late:
			late = closed
			p.cmd.Process.Kill()
			<-p.ended
		}
	}
	c.procs = nil
	return nil
}

// closed is a time that has come.
var closed = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// processor is the processor time the processes have used.
func (c *cluster) processor() (sum time.Duration, err error) {
	for _, p := range c.procs {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
		if err != nil {
			return 0, err
		}
		// Behind the name, which may hold anything, in parentheses: the 12th and 13th.
		_, rest, _ := strings.Cut(string(raw), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, fmt.Errorf("stat of process %d is too short", p.cmd.Process.Pid)
		}
		for _, f := range fields[11:13] {
			ticks, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * (time.Second / 100)
		}
	}
	return sum, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds the first ports of every process.
func freePorts() ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < nodes; tries++ {
		if tries == 100 {
			return nil, errors.New("find free ports: none in 100 tries")
		}
		// Below those that systems give to outgoing connections.
		port := 10_000 + rand.IntN(20_000)
		if free(port) {
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func free(port int) bool {
	for i := range portsEach {
		l, err := net.Listen("tcp", loopback(port+i))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}
