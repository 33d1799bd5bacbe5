package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are those of a comparison.
type settings struct {
	Callers  int           `json:"callers"`
	Keys     int           `json:"keys"`
	Create   int           `json:"create"`
	Size     int           `json:"value_size"`
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Idle     time.Duration `json:"idle_ns"`

	etcdTo    string
	only, bin string
	data      string
}

// The main goroutine keeps its thread, which is the parent of the servers.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == "install" {
		err = installCommand(ctx, os.Args[2:], os.Stderr)
	} else {
		err = compareCommand(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// compareCommand runs everything and writes the report.
func compareCommand(ctx context.Context, args []string, stdout, progress io.Writer) error {
	var s settings
	fs := flag.NewFlagSet("peers", flag.ContinueOnError)
	fs.IntVar(&s.Callers, "callers", 64, "keep `N` requests under way")
	fs.IntVar(&s.Keys, "keys", 1000, "spread them over `N` keys; a key of facetd is a facet")
	fs.IntVar(&s.Create, "create", 2000, "first write to `N` keys, where a key is a database of its own")
	fs.IntVar(&s.Size, "value-size", 256, "write values of `N` bytes")
	fs.IntVar(&s.Rounds, "rounds", 3, "measure all peers in turns, `N` times")
	fs.DurationVar(&s.Duration, "duration", 5*time.Second, "measure each workload of each round for this `TIME`")
	fs.DurationVar(&s.Idle, "idle", 3*time.Second, "look for this `TIME` at what the disk gets while nobody calls")
	fs.StringVar(&s.data, "data", ".", "make the data directories under this `DIR`, on the disk to be measured")
	fs.StringVar(&s.only, "only", "", "run the peers with these `NAMES`, with commas between")
	fs.StringVar(&s.bin, "bin", "", "look for the programs in this `DIR`, which install has filled, and then in PATH")
	fs.StringVar(&s.etcdTo, "etcd-endpoints", "leader", "connect etcd's client to the leader, or to all endpoints: `WHICH`")
	out := fs.String("out", "RESULTS.md", "write the report to this `FILE`; empty: to standard output")
	asJSON := fs.String("json", "", "write all figures as JSON to this `FILE` as well")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("%q is neither a flag nor install", fs.Arg(0))
	}
	if err := s.check(); err != nil {
		return err
	}
	r := &report{Settings: s, Command: "peers " + strings.Join(args, " ")}
	if err := compare(ctx, r, progress); err != nil {
		return err
	}
	if *asJSON != "" {
		if err := writeFile(*asJSON, r.writeJSON); err != nil {
			return err
		}
	}
	if *out == "" {
		return r.writeText(stdout)
	}
	return writeFile(*out, r.writeText)
}

func (s *settings) check() error {
	in := func(what string, v, low, high int) error {
		if v < low || v > high {
			return fmt.Errorf("--%s is %d, allowed are %d to %d", what, v, low, high)
		}
		return nil
	}
	err := errors.Join(in("callers", s.Callers, 1, maxCallers), in("keys", s.Keys, 1, maxKeys), in("create", s.Create, 1, maxKeys),
		in("value-size", s.Size, 1, maxSize), in("rounds", s.Rounds, 1, maxRounds))
	if s.Duration <= 0 || s.Duration > maxTime || s.Idle <= 0 || s.Idle > maxTime {
		err = errors.Join(err, fmt.Errorf("--duration and --idle must be above 0 and at most %v", maxTime))
	}
	if s.etcdTo != "all" && s.etcdTo != "leader" {
		err = errors.Join(err, errors.New("--etcd-endpoints is all or leader"))
	}
	known := make(map[string]bool)
	for _, p := range peers(*s) {
		known[p.about().Name] = true
	}
	for _, name := range s.names() {
		if !known[name] {
			err = errors.Join(err, fmt.Errorf("--only: there is no peer %q", name))
		}
	}
	return err
}

// names are those of --only.
func (s *settings) names() []string {
	return strings.FieldsFunc(s.only, func(c rune) bool { return c == ',' })
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// compare visits every peer that is there, in turns. Only one runs at a time, with
// nothing on its disk from before.
func compare(ctx context.Context, r *report, progress io.Writer) error {
	s := r.Settings
	parent, err := filepath.Abs(s.data)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "peers-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r.Started = time.Now().UTC().Format(time.RFC3339)
	if r.Machine, err = look(dir); err != nil {
		return err
	}
	type found struct {
		peer
		path string
	}
	var list []found
	for _, p := range peers(s) {
		if !s.asked(p.about().Name) {
			continue
		}
		path, why := s.find(p.about())
		if why != "" {
			r.Missing = append(r.Missing, why)
			fmt.Fprintln(progress, why)
			continue
		}
		version, err := p.version(ctx, path)
		if err != nil {
			return fmt.Errorf("version of %s: %w", p.about().Name, err)
		}
		list = append(list, found{p, path})
		r.Peers = append(r.Peers, peerReport{about: p.about(), Version: version})
	}
	if len(list) == 0 {
		return errors.New("no peer was found; peers install --dir DIR gets them, --bin DIR finds them there")
	}
	for round := 1; round <= s.Rounds; round++ {
		for i, p := range list {
			v := &visit{settings: s, peer: p.peer, path: p.path, dir: filepath.Join(dir, p.about().Name), round: round, progress: progress}
			if err := v.run(ctx); err != nil {
				return fmt.Errorf("%s, round %d: %w", p.about().Name, round, err)
			}
			r.Measures = append(r.Measures, v.measures...)
			r.Peers[i].Launches = v.shown
		}
	}
	r.compare()
	return nil
}

// asked reports whether a peer is to be run, as far as --only says.
func (s *settings) asked(name string) bool {
	names := s.names()
	return len(names) == 0 || slices.Contains(names, name)
}

// find gives the path of a peer's program, or says why it is left out.
func (s *settings) find(a about) (path, why string) {
	if a.Program == "" {
		return "", ""
	}
	if path = lookPath(s.bin, a.Program); path == "" {
		why = fmt.Sprintf("%s is left out: there is no %s in --bin or PATH", a.Name, a.Program)
	}
	return path, why
}
