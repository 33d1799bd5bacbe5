package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "facetd-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "facetd")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/facetd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// output collects what a process says, from two pipes at once.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// process is one running facetd.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	out  output
	done chan error
}

// freeAddr finds a loopback address that is free now.
func freeAddr(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs `facetd dev` on dir and waits until it is ready.
func start(t *testing.T, dir, addr string, args ...string) *process {
	t.Helper()
	p := &process{t: t, addr: addr, done: make(chan error, 1)}
	p.cmd = exec.Command(binary, append([]string{"dev", "--data", dir, "--listen", addr}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	deadline := time.Now().Add(30 * time.Second)
	for {
		res, err := http.Get("http://" + addr + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return p
			}
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("facetd ended: %v\n%s", err, p.out.String())
		case <-time.After(5 * time.Millisecond): // a poll of another process, bounded by the deadline
		}
		if time.Now().After(deadline) {
			t.Fatalf("facetd is not ready: %v\n%s", err, p.out.String())
		}
	}
}

// kill is kill -9; the process is gone when it returns.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	err := <-p.done
	p.done <- err
}

// interrupt asks the process to stop and waits for it.
func (p *process) interrupt() error {
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	err := <-p.done
	p.done <- err
	return err
}

func dial(t *testing.T, addr string, opt client.Options) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := client.Open(ctx, []string{addr}, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// facetd runs the binary as a command and returns its output.
func facetd(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
