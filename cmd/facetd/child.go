package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/facetd/facetd/bench"
)

const (
	// childStart and childStop bound the start and the stop of a child node; with
	// very many facets a start takes seconds.
	childStart = time.Minute
	childStop  = closeTimeout + 5*time.Second

	// childLogTail is how much of the child's log is shown when it fails.
	childLogTail = 4 << 10
)

// childNode is a node that runs as a child process of this binary. It ends with
// its standard input, so that it does not outlive this process, however that ends.
type childNode struct {
	dir   string
	log   string // file of its messages
	env   func(string) (string, bool)
	pprof string

	cmd   *exec.Cmd
	stdin io.Closer
	ended chan error
	url   string
}

// Endpoints implements bench.Node.
func (c *childNode) Endpoints() []string { return []string{c.url} }

// Restart implements bench.Node.
func (c *childNode) Restart(ctx context.Context, idleAfter time.Duration) (time.Duration, error) {
	if err := c.stop(); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find this program: %w", err)
	}
	args := []string{"serve", "--insecure", "--stop-on-eof", "--node-id", "bench", "--data", c.dir,
		"--listen", "127.0.0.1:0", "--log-level", "warn"}
	if idleAfter > 0 {
		args = append(args, "--idle-after", idleAfter.String())
	}
	if c.pprof != "" {
		args = append(args, "--pprof", c.pprof)
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, fmt.Errorf("open the log of the node: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, args...)
	cmd.Stderr = log
	ownGroup(cmd) // Ctrl-C is for this process, which stops the child when it is done
	cmd.Env = childEnv()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start a node: %w", err)
	}
	c.cmd, c.stdin, c.ended = cmd, stdin, make(chan error, 1)
	ready := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n') // without a line the process has ended
		ready <- line
		io.Copy(io.Discard, r)
		c.ended <- cmd.Wait()
	}()
	wait := time.NewTimer(childStart)
	defer wait.Stop()
	select {
	case line := <-ready:
		_, url, ok := strings.Cut(strings.TrimSpace(line), " at ")
		if !ok {
			c.stop()
			return 0, fmt.Errorf("the node did not start: %s", c.lastLines())
		}
		c.url = strings.TrimSuffix(url, "/")
		return time.Since(begin), nil
	case <-wait.C:
		c.kill()
		return 0, fmt.Errorf("the node was not ready after %v: %s", childStart, c.lastLines())
	case <-ctx.Done():
		c.kill()
		return 0, context.Cause(ctx)
	}
}

// stop stops the child gracefully. It may be called when there is none.
func (c *childNode) stop() error {
	if c.cmd == nil {
		return nil
	}
	c.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	wait := time.NewTimer(childStop)
	defer wait.Stop()
	select {
	case err := <-c.ended:
		c.stdin.Close()
		c.cmd = nil
		if err != nil {
			return fmt.Errorf("the node ended with %w: %s", err, c.lastLines())
		}
		return nil
	case <-wait.C:
		c.kill()
		return fmt.Errorf("the node did not stop within %v and was killed", childStop)
	}
}

func (c *childNode) kill() {
	c.cmd.Process.Kill()
	<-c.ended
	c.stdin.Close()
	c.cmd = nil
}

// Memory implements bench.Node.
func (c *childNode) Memory() (bench.Memory, error) {
	if c.cmd == nil {
		return bench.Memory{}, errors.New("the node does not run")
	}
	return processMemory(c.cmd.Process.Pid)
}

// processMemory reads the memory of a process.
func processMemory(pid int) (bench.Memory, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return bench.Memory{}, fmt.Errorf("read the memory of the node: %w", err)
	}
	return parseStatus(string(raw))
}

// parseStatus reads /proc/PID/status.
func parseStatus(s string) (m bench.Memory, err error) {
	for line := range strings.Lines(s) {
		name, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &m.Resident
		case "VmHWM":
			to = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return m, fmt.Errorf("read the memory of the node: %w", err)
		}
		*to = kib << 10
	}
	if m.Resident == 0 {
		return m, errors.New("read the memory of the node: there is no VmRSS")
	}
	return m, nil
}

func (c *childNode) lastLines() string { return lastLines(c.log) }

// lastLines is the end of a log.
func lastLines(log string) string {
	f, err := os.Open(log)
	if err != nil {
		return "there is no log"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > childLogTail {
		f.Seek(-childLogTail, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, childLogTail))
	if len(b) == 0 {
		return "the log is empty"
	}
	return "the log ends with\n" + strings.TrimSpace(string(b))
}

func (c *childNode) tail(w io.Writer) { fmt.Fprintf(w, "the node: %s\n", c.lastLines()) }

// foreignNodes are nodes somebody else runs: where their APIs listen.
type foreignNodes []string

// Endpoints implements bench.Node.
func (f foreignNodes) Endpoints() []string { return f }

// Restart implements bench.Node.
func (foreignNodes) Restart(context.Context, time.Duration) (time.Duration, error) {
	return 0, bench.ErrForeign
}

// Memory implements bench.Node.
func (foreignNodes) Memory() (bench.Memory, error) { return bench.Memory{}, bench.ErrForeign }
