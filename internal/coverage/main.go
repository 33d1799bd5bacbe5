// Coverage reports which statements of the data path (what places, owns, replicates and
// stores facets) the tests reach: all of them together, so that a statement of the commit
// log counts when only the simulation of whole clusters comes there.
//
//	go run ./internal/coverage                    about ten minutes on two cores
//	go run ./internal/coverage -e2e               with real processes, ten more
//	go run ./internal/coverage -list open.txt     what is not reached, in FILE
//	go run ./internal/coverage -keep cover.out    keep the profile, for go tool cover
//	go run ./internal/coverage -from cover.out    report on a profile that is there
//
// A block that only hands an error on is counted apart: that errors are handed on is
// what staticcheck and review see to, that they are met is what fault injection tests
// per layer. What a killed process reached is lost, so -e2e tells of less than it does.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/tools/cover"
)

const module = "github.com/facetd/facetd/"

// dataPath is what acknowledges, keeps and reads; tests are what may reach it.
var (
	dataPath = []string{"./facet/...", "./placement/...", "./cluster/consensus", "./internal/disk", "./internal/wire",
		"./node/owner", "./node/keeper", "./node/peer", "./node/lease", "./node/follower", "./node/steward"}
	tests = append([]string{"./internal/sim", "./node", "./node/native", "./node/scrub", "./node/audit"}, dataPath...)
)

func main() {
	e2e := flag.Bool("e2e", false, "run the tests of real processes as well")
	list := flag.String("list", "", "write the blocks that are not reached to `FILE`")
	keep := flag.String("keep", "", "keep the profile in `FILE`")
	from := flag.String("from", "", "report on the profile in `FILE`, run nothing")
	flag.Parse()
	if err := report(*e2e, *from, *keep, *list); err != nil {
		fmt.Fprintln(os.Stderr, "coverage:", err)
		os.Exit(1)
	}
}

func report(e2e bool, from, keep, list string) error {
	files := []string{from}
	if from == "" {
		dir, err := os.MkdirTemp("", "facetd-coverage")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if files, err = measure(dir, e2e); err != nil {
			return err
		}
	}
	blocks, err := merge(files)
	if err != nil {
		return err
	}
	if keep != "" {
		if err := save(keep, blocks); err != nil {
			return err
		}
	}
	return print(blocks, list)
}

// measure runs the tests and gives the profiles they wrote.
func measure(dir string, e2e bool) ([]string, error) {
	covered := "-coverpkg=" + strings.Join(dataPath, ",")
	files := []string{filepath.Join(dir, "packages.out")}
	if err := run(nil, append([]string{"test", covered, "-coverprofile=" + files[0]}, tests...)...); err != nil {
		return nil, err
	}
	if !e2e {
		return files, nil
	}
	counters := filepath.Join(dir, "counters")
	if err := os.Mkdir(counters, 0o700); err != nil {
		return nil, err
	}
	// The tests build the program they start; what it counts goes where the environment says.
	env := append(os.Environ(), "GOFLAGS="+os.Getenv("GOFLAGS")+" -cover "+covered, "GOCOVERDIR="+counters)
	if err := run(env, "test", "./internal/e2e"); err != nil {
		return nil, err
	}
	files = append(files, filepath.Join(dir, "e2e.out"))
	return files, run(nil, "tool", "covdata", "textfmt", "-i="+counters, "-o="+files[1])
}

func run(env []string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	return nil
}

// place is where a block begins and ends.
type place struct {
	file                               string
	line, column, lastLine, lastColumn int
}

type block struct {
	statements, count int
}

// merge adds profiles up. Blocks outside of the data path are left out.
func merge(files []string) (map[place]block, error) {
	all := map[place]block{}
	for _, f := range files {
		profiles, err := cover.ParseProfiles(f)
		if err != nil {
			return nil, err
		}
		for _, p := range profiles {
			name := strings.TrimPrefix(p.FileName, module)
			if !slices.ContainsFunc(dataPath, func(pattern string) bool { return within(path.Dir(name), pattern) }) {
				continue
			}
			for _, b := range p.Blocks {
				at := place{name, b.StartLine, b.StartCol, b.EndLine, b.EndCol}
				all[at] = block{b.NumStmt, all[at].count + b.Count}
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the profile has nothing of the data path")
	}
	return all, nil
}

func within(dir, pattern string) bool {
	base, tree := strings.CutSuffix(strings.TrimPrefix(pattern, "./"), "/...")
	return dir == base || tree && strings.HasPrefix(dir, base+"/")
}

func sorted(blocks map[place]block) []place {
	var list []place
	for at := range blocks {
		list = append(list, at)
	}
	slices.SortFunc(list, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.file, b.file), cmp.Compare(a.line, b.line), cmp.Compare(a.column, b.column))
	})
	return list
}

func save(file string, blocks map[place]block) error {
	var out strings.Builder
	out.WriteString("mode: set\n")
	for _, at := range sorted(blocks) {
		b := blocks[at]
		fmt.Fprintf(&out, "%s%s:%d.%d,%d.%d %d %d\n", module, at.file, at.line, at.column, at.lastLine, at.lastColumn, b.statements, min(b.count, 1))
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}

// tally is what one package has, in statements.
type tally struct{ all, reached, handsOn int }

func print(blocks map[place]block, list string) error {
	sources := map[string][]string{}
	packages := map[string]*tally{}
	var sum tally
	var open strings.Builder
	for _, at := range sorted(blocks) {
		b, dir := blocks[at], path.Dir(at.file)
		if packages[dir] == nil {
			packages[dir] = new(tally)
		}
		for _, t := range []*tally{packages[dir], &sum} {
			t.all += b.statements
		}
		if b.count > 0 {
			packages[dir].reached += b.statements
			sum.reached += b.statements
			continue
		}
		text, err := source(sources, at)
		if err != nil {
			return err
		}
		if handsOn.MatchString(text) {
			packages[dir].handsOn += b.statements
			sum.handsOn += b.statements
			continue
		}
		fmt.Fprintf(&open, "%s:%d: %s\n", at.file, at.line, text)
	}
	line := func(name string, t *tally) {
		fmt.Printf("%-22s %6d %8.1f%% %8.1f%%\n", name, t.all, 100*float64(t.reached)/float64(t.all), 100*float64(t.reached+t.handsOn)/float64(t.all))
	}
	fmt.Printf("%-22s %6s %9s %9s\n", "package", "stmts", "reached", "or hands an error on")
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		line(name, packages[name])
	}
	line("all", &sum)
	if list == "" {
		return nil
	}
	return os.WriteFile(list, []byte(open.String()), 0o644)
}

// handsOn matches a block that does nothing but return an error it was given.
var handsOn = regexp.MustCompile(`^(if |\} else if )?[^{]*\berr\w* != nil \{ (yield\()?return [^;]*\berr\w*\)? \}$`)

// source is the text of a block on one line.
func source(files map[string][]string, at place) (string, error) {
	lines, ok := files[at.file]
	if !ok {
		f, err := os.Open(at.file)
		if err != nil {
			return "", fmt.Errorf("%w; run it from the root of the module", err)
		}
		defer f.Close()
		for in := bufio.NewScanner(f); in.Scan(); {
			lines = append(lines, strings.TrimSpace(in.Text()))
		}
		files[at.file] = lines
	}
	if at.lastLine > len(lines) {
		return "", fmt.Errorf("%s has changed since the profile was made", at.file)
	}
	text := strings.Join(lines[at.line-1:min(at.lastLine, at.line+5)], " ")
	return text, nil
}
