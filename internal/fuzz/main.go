// Fuzz runs every fuzz target of the project, one after the other, and says for each how
// often it ran and whether it found something:
//
//	go run ./internal/fuzz -time 30m              all of them, for 30 minutes each
//	go run ./internal/fuzz -time 5m -run Hello    those whose name matches
//	go run ./internal/fuzz -time 30m -done f.txt  goes on behind what f.txt has, and adds to it
//
// What a target found stands in testdata/fuzz of its package, as a test that fails until
// it is mended; it stays there as one that passes. Inputs that reached something new are
// kept in Go's build cache, so that the next run begins where this one ended.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	each := flag.Duration("time", time.Minute, "how long each target runs")
	match := flag.String("run", "", "run the targets whose package and name match `REGEXP`")
	parallel := flag.Int("parallel", runtime.NumCPU(), "processes that fuzz at a time")
	done := flag.String("done", "", "leave out what `FILE` says was run, and add to it")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *each, *match, *parallel, *done); err != nil {
		fmt.Fprintln(os.Stderr, "fuzz:", err)
		os.Exit(1)
	}
}

type target struct{ pkg, name string }

func (t target) String() string { return t.pkg + " " + t.name }

func run(ctx context.Context, each time.Duration, match string, parallel int, done string) error {
	want, err := regexp.Compile(match)
	if err != nil {
		return err
	}
	before, err := os.ReadFile(done)
	if err != nil && done != "" && !os.IsNotExist(err) {
		return err
	}
	list, err := targets(ctx)
	if err != nil {
		return err
	}
	failed := 0
	for _, t := range list {
		if !want.MatchString(t.String()) || bytes.Contains(before, []byte(t.String()+": ")) {
			continue
		}
		line, ok, err := t.fuzz(ctx, each, parallel)
		if err != nil {
			return err
		}
		fmt.Println(line)
		if !ok {
			failed++
		}
		if done != "" && ok {
			if err := add(done, line); err != nil {
				return err
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d targets found something: see testdata/fuzz in their packages", failed)
	}
	return nil
}

func add(file, line string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(f, line); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// targets lists what there is, by the sources: go test -list would build every test first.
func targets(ctx context.Context) (list []target, err error) {
	const format = `{{$p := .}}{{range .TestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$p.ImportPath}} {{$p.Dir}}/{{.}}
{{end}}`
	out, err := exec.CommandContext(ctx, "go", "list", "-f", format, "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("list packages: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for _, m := range declared.FindAllSubmatch(source, -1) {
			list = append(list, target{pkg, string(m[1])})
		}
	}
	return list, nil
}

var declared = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

var executions = regexp.MustCompile(`execs: (\d+) .*new interesting: \d+ \(total: (\d+)\)`)

// fuzz runs one target and gives a line about it.
func (t target) fuzz(ctx context.Context, each time.Duration, parallel int) (line string, ok bool, err error) {
	begun := time.Now()
	cmd := exec.CommandContext(ctx, "go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+each.String(),
		"-parallel="+strconv.Itoa(parallel), t.pkg)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, failed := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return "", false, ctx.Err()
	}
	runs, inputs := "0", "0"
	if all := executions.FindAllSubmatch(out, -1); len(all) > 0 {
		last := all[len(all)-1]
		runs, inputs = string(last[1]), string(last[2])
	}
	verdict := "nothing found"
	if failed != nil {
		verdict = "FOUND\n" + string(out)
	}
	return fmt.Sprintf("%v: %s executions, %s inputs kept, %v: %s", t, runs, inputs, time.Since(begun).Round(time.Second), verdict), failed == nil, nil
}
