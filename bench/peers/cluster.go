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
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is a running peer: its processes, none for a library, and a session.
type cluster struct {
	path    string
	shown   []shown
	procs   []*process
	session session
}

// shown is a process as the report shows it.
type shown struct {
	Line  string            `json:"line"`            // as one would type it
	Files map[string]string `json:"files,omitempty"` // it was given, by path
}

type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan error // gets one value
}

// startCluster starts a peer's processes with their data below dir and waits until
// they work, with other ports where one ends at once: another program may have taken
// a port in between. The main goroutine calls it: the processes die with its thread.
func startCluster(ctx context.Context, p peer, path, dir string, s settings) (c *cluster, err error) {
	for try := range startTries {
		sub := filepath.Join(dir, fmt.Sprintf("try-%d", try+1))
		if err := os.Mkdir(sub, 0o755); err != nil {
			return nil, err
		}
		if c, err = tryStart(ctx, p, path, sub, s); !errors.Is(err, errEnded) {
			break
		}
	}
	return c, err
}

// errEnded says that a process has ended by itself.
var errEnded = errors.New("a process has ended")

func tryStart(ctx context.Context, p peer, path, dir string, s settings) (_ *cluster, err error) {
	c := &cluster{path: path}
	at := place{}
	if at.ports, err = freePorts(p.about().Processes); err != nil {
		return nil, err
	}
	for k := range max(p.about().Processes, 1) {
		at.dirs = append(at.dirs, filepath.Join(dir, fmt.Sprintf("data-%d", k+1)))
	}
	launches, err := p.launches(at)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop())
		}
	}()
	for k, l := range launches {
		for name, content := range l.files {
			if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
				return nil, err
			}
		}
		c.shown = append(c.shown, shown{strings.Join(append([]string{filepath.Base(path)}, l.args...), " "), l.files})
		if err := c.start(l.args, at.dirs[k]+".log"); err != nil {
			return nil, err
		}
	}
	deadline := time.Now().Add(startWait)
	for {
		try, cancel := context.WithTimeout(ctx, openTimeout)
		c.session, err = p.open(try, at, s)
		cancel()
		if err == nil {
			return c, nil
		}
		for _, pr := range c.procs {
			select {
			case e := <-pr.ended:
				pr.ended <- e
				return nil, fmt.Errorf("%w (%v): %s", errEnded, e, tail(pr.log))
			default:
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("not ready after %v: %w", startWait, err)
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

// resident is the memory the processes have in use, or this process for a library,
// whose own garbage is given back before.
func (c *cluster) resident() (sum int64, known bool) {
	pids := []string{"self"}
	if len(c.procs) > 0 {
		pids = nil
		for _, p := range c.procs {
			pids = append(pids, strconv.Itoa(p.cmd.Process.Pid))
		}
	} else {
		debug.FreeOSMemory()
	}
	for _, pid := range pids {
		raw, err := os.ReadFile("/proc/" + pid + "/statm")
		if err != nil {
			return 0, false
		}
		fields := strings.Fields(string(raw))
		if len(fields) < 2 {
			return 0, false
		}
		pages, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return 0, false
		}
		sum += pages * int64(os.Getpagesize())
	}
	return sum, true
}

// sent is what the servers have sent to one another; nil where they do not tell.
func (c *cluster) sent(ctx context.Context) *int64 {
	s, ok := c.session.(sender)
	if !ok {
		return nil
	}
	n, err := s.sent(ctx)
	if err != nil {
		return nil
	}
	return &n
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts finds the first ports of every process.
func freePorts(n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		if tries == 100 {
			return nil, errors.New("find free ports: none in 100 tries")
		}
		// Below those that systems give to outgoing connections.
		port := 10_000 + rand.IntN(20_000)
		near := func(p int) bool { return max(p-port, port-p) < portsEach }
		if !slices.ContainsFunc(ports, near) && free(port) {
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
