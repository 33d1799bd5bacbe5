package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stubMode is the environment variable that makes this test's binary a stub of a
// node, or of a parent of such.
const stubMode = "STUB"

// stub is what a child process of these tests is: "node" is ready, and ends well
// with SIGTERM or its standard input; "broken" ends badly at once; "orphan" is
// ready and ends only if it is killed; "parent" runs a cluster of orphans.
func stub(mode string) int {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	switch mode {
	case "broken":
		fmt.Fprint(os.Stderr, "no luck") // without an end of the line
		return 3
	case "parent":
		d := stubCluster(os.Stderr, "orphan", "orphan")
		err := d.run(context.Background(), &program{stdout: os.Stdout, stderr: os.Stderr}, nil, func(w io.Writer, _ []*devNode) { fmt.Fprintln(w, "ready") })
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "warming up")
	fmt.Println("ready: node x at http://127.0.0.1:7/")
	eof := make(chan struct{})
	if mode == "node" {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			close(eof)
		}()
	} else {
		term = nil
	}
	select {
	case <-term:
	case <-eof:
	case <-time.After(2 * testTimeout):
	}
	return 0
}

// stubCluster is a cluster of stubs.
func stubCluster(log io.Writer, modes ...string) *devCluster {
	d := &devCluster{out: &sharedOutput{w: log}, events: make(chan devEvent)}
	for i, mode := range modes {
		d.nodes = append(d.nodes, &devNode{name: fmt.Sprintf("node-%d", i+1), again: "facetd serve again", command: func() *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), stubMode+"="+mode)
			if mode == "orphan" {
				cmd.ExtraFiles = []*os.File{os.NewFile(3, "alive")} // handed down from the test
			}
			return cmd
		}})
	}
	return d
}

// listener is an output that can be waited for.
type listener struct {
	t     *testing.T
	lines chan string
	rest  []byte
}

func listen(t *testing.T) *listener { return &listener{t: t, lines: make(chan string, 100)} }

func (l *listener) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.lines <- string(l.rest[:i])
		l.rest = l.rest[i+1:]
	}
}

// hear waits for a line.
func (l *listener) hear(want string) string {
	l.t.Helper()
	var heard []string
	for {
		select {
		case line := <-l.lines:
			if strings.Contains(line, want) {
				return line
			}
			heard = append(heard, line)
		case <-time.After(testTimeout):
			l.t.Fatalf("nobody said %q, but\n%s", want, strings.Join(heard, "\n"))
		}
	}
}

// TestDevCluster has one node of three that does not start and one that is killed;
// the third goes on until Ctrl-C.
func TestDevCluster(t *testing.T) {
	log, signals := listen(t), make(chan os.Signal, 2)
	d := stubCluster(log, "node", "broken", "node")
	told := make(chan []*devNode, 1)
	done := make(chan error, 1)
	go func() {
		done <- d.run(t.Context(), &program{stdout: io.Discard, stderr: log, signals: signals}, nil, func(_ io.Writer, list []*devNode) { told <- list })
	}()
	list := <-told
	if list[0].url != "http://127.0.0.1:7" || !list[1].ended || list[2].pid == 0 {
		t.Errorf("ready with %+v, %+v, %+v", list[0], list[1], list[2])
	}
	if err := syscall.Kill(list[0].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	line := log.hear("node-1 (pid")
	if !strings.Contains(line, "has ended with signal: killed; the other one goes on. To start it again: facetd serve again") {
		t.Error(line)
	}
	signals <- syscall.SIGINT
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestDevClusterOutput(t *testing.T) {
	log, eof := listen(t), make(chan struct{})
	d := stubCluster(log, "broken", "node")
	done := make(chan error, 1)
	go func() {
		done <- d.run(t.Context(), &program{stdout: io.Discard, stderr: log}, eof, func(io.Writer, []*devNode) { close(eof) })
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	close(log.lines)
	var all []string
	for line := range log.lines {
		all = append(all, line)
	}
	for _, want := range []string{"node-1 | no luck", "has ended with exit status 3", "node-2 | warming up"} {
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("no %q in\n%s", want, strings.Join(all, "\n"))
		}
	}
}

func TestDevClusterWithoutNodes(t *testing.T) {
	d := stubCluster(io.Discard, "broken", "broken")
	err := d.run(t.Context(), &program{stdout: io.Discard}, nil, func(io.Writer, []*devNode) { t.Error("it is ready") })
	if err == nil || !strings.Contains(err.Error(), "no node runs any more") {
		t.Error(err)
	}
}

// Children that want to live die with their parent, however it ends.
func TestDevClusterDiesWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the system does not do that here")
	}
	alive, theirs, err := os.Pipe() // at its end when nobody has theirs any more
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), stubMode+"=parent")
	parent.ExtraFiles = []*os.File{theirs}
	log := listen(t)
	parent.Stdout, parent.Stderr = log, io.Discard
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	log.hear("ready")
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait() // it was killed
	if err := alive.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(alive).ReadByte(); err != io.EOF {
		t.Errorf("somebody lives: %v", err)
	}
}

func TestDevCommandLines(t *testing.T) {
	lines := devCommandLines("/d", "127.0.0.1", 7400, 3, []string{"--log-level=warn"})
	want := "serve --insecure --node-id node-2 --data /d/node-2 --listen 127.0.0.1:7410 --peer-listen 127.0.0.1:7411 --gossip-listen 127.0.0.1:7412" +
		" --join 127.0.0.1:7402,127.0.0.1:7412,127.0.0.1:7422 --bootstrap-expect 3 --log-level=warn"
	if got := strings.Join(lines[1], " "); len(lines) != 3 || got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// Five begin the cluster, the others join it.
	lines = devCommandLines("/d", "::1", 1, 7, nil)
	if got := strings.Join(lines[4], " "); !strings.Contains(got, "--listen [::1]:41 ") || !strings.HasSuffix(got, "--bootstrap-expect 5") {
		t.Error(got)
	}
	if got := strings.Join(lines[5], " "); strings.Contains(got, "--bootstrap-expect") || !strings.Contains(got, "--join [::1]:3,") {
		t.Error(got)
	}
	if got := shellLine("facetd", []string{"--data", "/my dir/it's", "a=b", ""}); got != `facetd --data '/my dir/it'\''s' a=b ''` {
		t.Error(got)
	}
}

func TestFreePorts(t *testing.T) {
	port, err := freePorts("127.0.0.1", 3)
	if err != nil || port < 1024 {
		t.Fatal(port, err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestLinePrefixer(t *testing.T) {
	var out strings.Builder
	l := &linePrefixer{to: &sharedOutput{w: &out}, prefix: "x | ", line: func(s string) bool { return s == "taken" }}
	for _, s := range []string{"a\nb", "c\r\n", "taken\n\n", "end"} {
		if n, err := l.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.flush()
	l.flush()
	if out.String() != "x | a\nx | bc\nx | \nx | end\n" {
		t.Errorf("%q", out.String())
	}
	out.Reset()
	l.Write(bytes.Repeat([]byte("y"), maxOutputLine+1))
	if out.Len() < maxOutputLine {
		t.Errorf("a line of %d bytes is kept back", maxOutputLine+1)
	}
}

func TestPassedOn(t *testing.T) {
	fs := flag.NewFlagSet("dev", flag.ContinueOnError)
	devCommand().setup(fs)
	args := []string{"--idle-after", "3s", "--memory-budget", "256MiB", "--data", "x", "--nodes", "3"}
	if _, err := parse(fs, args, envOf()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(passedOn(fs), " "); got != "--log-level=WARN --idle-after=3s --memory-budget=256MiB" {
		t.Error(got)
	}
}
