package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(stubMode); mode != "" {
		os.Exit(stub(mode))
	}
	testscript.Main(m, map[string]func(){"facetd": main})
}

// testTimeout bounds every wait of a test.
const testTimeout = time.Minute

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"node":    nodeCmd,
			"exits":   exitsCmd,
			"waitfor": waitforCmd,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Values[nodeKey{}] = &testNode{}
			return nil
		},
	})
}

// testNode is the node of a script: a process of its own, as users run it.
type testNode struct {
	cmd   *exec.Cmd // nil when there is none
	stdin io.Closer
	ended chan error
}

type nodeKey struct{}

// nodeCmd is "node start [flags]", "node stop" (SIGTERM, must end well), "node kill"
// (SIGKILL) and "node hangup" (SIGHUP, which does not end it). start sets FACETD_SERVER and ADDR.
func nodeCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: node start|stop|kill")
	}
	n := ts.Value(nodeKey{}).(*testNode)
	switch args[0] {
	case "start":
		ts.Defer(func() { n.end(syscall.SIGKILL) })
		url := n.start(ts, args[1:])
		ts.Setenv("FACETD_SERVER", url)
		_, addr, _ := strings.Cut(url, "://")
		ts.Setenv("ADDR", addr)
	case "stop":
		if err := n.end(syscall.SIGTERM); err != nil {
			ts.Fatalf("node ended with %v", err)
		}
	case "kill":
		n.end(syscall.SIGKILL)
	case "hangup":
		ts.Check(n.cmd.Process.Signal(syscall.SIGHUP))
	default:
		ts.Fatalf("node %s is unknown", args[0])
	}
}

func (n *testNode) start(ts *testscript.TestScript, extra []string) (url string) {
	args := []string{"serve"}
	if !slices.Contains(extra, "--auth-keys") {
		args = append(args, "--insecure")
	}
	args = append(args, "--stop-on-eof", "--data", "data", "--listen", "127.0.0.1:0", "--log-level", "warn")
	args = append(args, extra...)
	path, err := exec.LookPath("facetd") // testscript.Main put it there
	ts.Check(err)
	cmd := exec.Command(path, args...)
	cmd.Dir = ts.Getenv("WORK")
	log, err := os.Create(filepath.Join(cmd.Dir, "node.log"))
	ts.Check(err)
	defer log.Close()
	cmd.Stderr = log
	stdin, err := cmd.StdinPipe()
	ts.Check(err)
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	n.cmd, n.stdin, n.ended = cmd, stdin, ended
	lines := make(chan string, 1)
	go func() {
		r := bufio.NewReader(stdout)
		line, _ := r.ReadString('\n')
		lines <- line
		io.Copy(io.Discard, r)
		ended <- cmd.Wait()
	}()
	select {
	case line := <-lines:
		_, url, ok := strings.Cut(strings.TrimSpace(line), " at ")
		if !ok {
			raw, _ := os.ReadFile(log.Name())
			ts.Fatalf("node is not ready: %q\n%s", line, raw)
		}
		return strings.TrimSuffix(url, "/")
	case <-time.After(testTimeout):
		n.end(syscall.SIGKILL)
		ts.Fatalf("node is not ready after %v", testTimeout)
	}
	return ""
}

// end ends the node, once.
func (n *testNode) end(sig syscall.Signal) error {
	if n.cmd == nil {
		return nil
	}
	n.cmd.Process.Signal(sig)
	n.cmd = nil
	defer n.stdin.Close()
	select {
	case err := <-n.ended:
		return err
	case <-time.After(testTimeout):
		return fmt.Errorf("did not end within %v", testTimeout)
	}
}

// exitsCmd is "exits CODE command…": exec with one exit code in mind.
func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// waitforCmd is "waitfor CODE command…": the command again and again until it exits
// with that code, for what a running node does in its own time.
func waitforCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor CODE command…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for end := time.Now().Add(testTimeout); ; {
		err = ts.Exec(args[1], args[2:]...)
		var exit *exec.ExitError
		if err == nil && want == 0 || errors.As(err, &exit) && exit.ExitCode() == want {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("it ended with %v, want %d, for %v", err, want, testTimeout)
		}
	}
}

// runHere runs a command line in this process.
func runHere(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errOut strings.Builder
	code = run(ctx, &program{args: args, env: func(string) (string, bool) { return "", false }, stdin: strings.NewReader(stdin), stdout: &out, stderr: &errOut})
	return code, out.String(), errOut.String()
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	for _, c := range commands() {
		code, out, _ := runHere(t.Context(), "", append([]string{"help"}, strings.Fields(c.name)...)...)
		if code != exitOK || !strings.Contains(out, "usage: facetd "+c.name) || !strings.Contains(out, "\nexamples:\n") || c.short == "" {
			t.Errorf("help %s: exit code %d\n%s", c.name, code, out)
		}
		code, byFlag, _ := runHere(t.Context(), "", append(strings.Fields(c.name), "--help")...)
		if code != exitOK || byFlag != out {
			t.Errorf("%s --help differs from help %s", c.name, c.name)
		}
		for line := range strings.Lines(out) {
			if len([]rune(line)) > 125 {
				t.Errorf("help %s: line of %d characters: %s", c.name, len([]rune(line)), line)
			}
		}
	}
}
