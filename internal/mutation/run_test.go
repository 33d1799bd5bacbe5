package mutation

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

var only = flag.String("mutation.only", "", "run the switches that match this regular expression, and no others")

const (
	root = "../.."
	tag  = "facetd_broken"

	// A test that a switch sends into a loop is ended after childTimeout. Detectors need
	// seconds; a loaded machine makes minutes of them.
	childTimeout = 4 * time.Minute
)

// TestMutations breaks every rule in the code that runs, one at a time, and wants the
// test named for it to fail.
func TestMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("breaking every rule takes a minute or two: run it without -short")
	}
	pattern, err := regexp.Compile("^(?:" + *only + ")$")
	if err != nil {
		t.Fatal(err)
	}
	var todo []mutant
	for _, m := range mutants {
		if *only == "" || pattern.MatchString(string(m.s)) {
			todo = append(todo, m)
		}
	}
	dir := build(t, todo)

	// Unbroken first: a test that fails anyway notices nothing.
	var sound []mutant
	for _, m := range todo {
		m.s, m.says = "", ""
		if !slices.Contains(sound, m) {
			sound = append(sound, m)
		}
	}
	for i, o := range runAll(t, dir, sound) {
		if o.failed || o.trouble != "" {
			t.Errorf("%s of %s does not pass with nothing broken: %s\n%s", sound[i].test, sound[i].pkg, o.trouble, o.output)
		}
	}
	if t.Failed() {
		t.FailNow()
	}

	described := make(map[string]described)
	for _, d := range switches(t) {
		described[string(d.s)] = d
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "rule\tswitch\tpackage\ttest\tseconds\tnoticed by")
	noticed, skipped := 0, 0
	for i, o := range runAll(t, dir, todo) {
		m := todo[i]
		by := o.by
		switch {
		case o.skipped:
			skipped++
			by = "NOT RUN HERE: " + by
		case o.trouble != "":
			by = "TROUBLE: " + o.trouble
			t.Errorf("%s: %s of %s: %s\n%s", m.s, m.test, m.pkg, o.trouble, o.output)
		case !o.failed:
			by = "SURVIVED"
			t.Errorf("%s (%s) is not noticed: %s of %s passes", m.s, described[string(m.s)].what, m.test, m.pkg)
		case !strings.Contains(o.output, m.says):
			by = "FAILED OTHERWISE: " + by
			t.Errorf("%s: %s of %s fails, but does not say %q\n%s", m.s, m.test, m.pkg, m.says, o.output)
		default:
			noticed++
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\t%s\n", strings.Join(described[string(m.s)].rules, " "), m.s, m.pkg, m.test, o.took.Seconds(), by)
	}
	w.Flush()
	t.Logf("%d mutants, %d noticed, %d cannot be tried on this machine\n%s", len(todo), noticed, skipped, &table)
}

// build builds the tests of the packages with rules that can be broken. The flags are
// those of the build of the product in .ci/run, whose packages are in the cache then.
func build(t *testing.T, list []mutant) (dir string) {
	t.Helper()
	dir = t.TempDir()
	args := []string{"test", "-c", "-trimpath", "-tags", tag, "-o", dir + string(filepath.Separator)}
	var pkgs []string
	for _, m := range list {
		if p := "./" + m.pkg; !slices.Contains(pkgs, p) {
			pkgs = append(pkgs, p)
		}
	}
	if len(pkgs) == 0 {
		t.Fatal("no such switch")
	}
	cmd := exec.Command("go", append(args, pkgs...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with -tags %s: %v\n%s", tag, err, out)
	}
	return dir
}

// outcome is what became of a test.
type outcome struct {
	failed  bool   // it noticed something
	skipped bool   // it cannot run on this machine
	trouble string // why that says nothing about the rule
	by      string // the line that tells what was noticed, or why it was skipped
	output  string
	took    time.Duration
}

// runAll runs the tests of mutants, as many at a time as there are processors.
func runAll(t *testing.T, dir string, list []mutant) []outcome {
	t.Helper()
	out := make([]outcome, len(list))
	next := make(chan int, len(list))
	for i := range list {
		next <- i
	}
	close(next)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range next {
				out[i] = run(dir, list[i])
			}
		})
	}
	wg.Wait()
	return out
}

var (
	reported = regexp.MustCompile(`(?m)^ +[a-z_]+_test\.go:\d+: (.*\S)`)
	panicked = regexp.MustCompile(`(?m)^(?:panic|fatal error): (.*\S)`)
	skips    = regexp.MustCompile(`(?m)^ *--- SKIP: `)
)

func run(dir string, m mutant) (o outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), childTimeout+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(dir, filepath.Base(m.pkg)+".test"), "-test.v",
		"-test.run", exact(m.test), "-test.timeout", childTimeout.String())
	cmd.Dir = filepath.Join(root, m.pkg)
	cmd.Env = append(os.Environ(), "FACETD_BREAK="+string(m.s))
	cmd.WaitDelay = 10 * time.Second
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	start := time.Now()
	err := cmd.Run()
	o.took, o.output = time.Since(start), output.String()
	switch {
	case ctx.Err() != nil, strings.Contains(o.output, "panic: test timed out"):
		o.trouble = "it did not end in time"
	case strings.Contains(o.output, "FACETD_BREAK: no rule"):
		o.trouble = "the binary does not know the switch"
	case !strings.Contains(o.output, "=== RUN   "+m.test+"\n"):
		o.trouble = fmt.Sprintf("there is no such test (%v)", err)
	case err == nil && skips.MatchString(o.output):
		o.skipped = true
	case err != nil:
		o.failed = true
	}
	o.by = noticed(o.output, m.says)
	if r := []rune(o.by); len(r) > 160 {
		o.by = string(r[:160]) + "…"
	}
	if n := len(o.output); n > 8<<10 {
		o.output = o.output[:4<<10] + "\n…\n" + o.output[n-4<<10:]
	}
	return o
}

// noticed is the line that says what is wrong: the one the table asks for, or the last
// one of the test, or why the process ended.
func noticed(output, says string) (by string) {
	for _, f := range reported.FindAllStringSubmatch(output, -1) {
		switch line := f[1]; {
		case says != "" && strings.Contains(line, says):
			return line
		case !strings.Contains(line, " level="):
			by = line
		}
	}
	if f := panicked.FindStringSubmatch(output); f != nil && by == "" {
		by = f[1]
	}
	return by
}

// exact is the pattern for one test, of which every level is given whole.
func exact(test string) string {
	levels := strings.Split(test, "/")
	for i, l := range levels {
		levels[i] = "^" + l + "$"
	}
	return strings.Join(levels, "/")
}
