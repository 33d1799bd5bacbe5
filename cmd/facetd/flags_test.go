package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/bench"
)

type sampleFlags struct {
	data  string
	idle  time.Duration
	size  byteSize
	join  list
	loud  bool
	count int
}

func declareSample() (*flag.FlagSet, *sampleFlags) {
	var s sampleFlags
	fs := flag.NewFlagSet("sample", flag.ContinueOnError)
	fs.SetOutput(&strings.Builder{})
	fs.StringVar(&s.data, "data", "default", "")
	fs.DurationVar(&s.idle, "idle-after", time.Second, "")
	fs.Var(&s.size, "memory-budget", "")
	fs.Var(&s.join, "join", "")
	fs.BoolVar(&s.loud, "insecure", false, "")
	fs.IntVar(&s.count, "count", 1, "")
	fs.String("config", "", "")
	return fs, &s
}

func envOf(kv ...string) func(string) (string, bool) {
	m := make(map[string]string)
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(k string) (string, bool) { v, ok := m[k]; return v, ok }
}

func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "facetd.conf")
	text := "# a comment\ndata = from-file # another\nidle-after = 3s\nmemory-budget = \"512 MiB\" # quoted\n\njoin = a:1, b:2\ninsecure = true\ncount=3\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	fs, s := declareSample()
	pos, err := parse(fs, []string{"one", "--data", "from-flag", "two", "--config=" + file, "--", "--three"}, envOf("FACETD_DATA", "from-env", "FACETD_IDLE_AFTER", "2s"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "two", "--three"}; !slices.Equal(pos, want) {
		t.Errorf("arguments are %q, want %q", pos, want)
	}
	if s.data != "from-flag" || s.idle != 2*time.Second || s.size != 512<<20 || !slices.Equal(s.join, []string{"a:1", "b:2"}) || !s.loud || s.count != 3 {
		t.Errorf("got %+v; want data of the flag, idle-after of the environment, the rest of the file", *s)
	}

	fs, s = declareSample()
	if _, err := parse(fs, nil, envOf("FACETD_CONFIG", file)); err != nil || s.data != "from-file" {
		t.Errorf("the file the environment names: %v, %+v", err, *s)
	}
	fs, s = declareSample()
	if _, err := parse(fs, nil, envOf()); err != nil || s.data != "default" || s.idle != time.Second {
		t.Errorf("defaults: %v, %+v", err, *s)
	}
}

func TestBadSettings(t *testing.T) {
	dir := t.TempDir()
	conf := func(text string) string {
		f := filepath.Join(dir, "c")
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		args []string
		env  []string
		file string
		want string
	}{
		{args: []string{"--dta", "x"}, want: `unknown flag --dta; did you mean "--data"?`},
		{args: []string{"--data"}, want: "flag --data needs a value"},
		{args: []string{"--count", "x"}, want: `invalid value "x" for flag --count`},
		{args: []string{"-- SELECT 1"}, want: "put -- before it"},
		{args: []string{"--memory-budget", "lots"}, want: "512MiB"},
		{env: []string{"FACETD_IDLE_AFTER", "soon"}, want: `FACETD_IDLE_AFTER="soon"`},
		{file: "idle = 3s", want: `unknown setting "idle"`},
		{file: "data", want: ":1: write name = value"},
		{file: "\ndata = \"x", want: ":2: the quotes"},
		{file: "data = 1\ndata = 2", want: ":2: data was set on line 1"},
		{file: "count = x", want: `:1: count = "x"`},
		{args: []string{"--config", filepath.Join(dir, "none")}, want: "no such file"},
	} {
		fs, _ := declareSample()
		args := c.args
		if c.file != "" {
			args = []string{"--config", conf(c.file)}
		}
		_, err := parse(fs, args, envOf(c.env...))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %q %q: got %v, want %s", c.args, c.env, c.file, err, c.want)
		}
	}
}

func TestByteSize(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "4096": 4096, "1k": 1024, "1KiB": 1024, "1kB": 1000, "512MiB": 512 << 20, "2 GB": 2e9, "1t": 1 << 40, "7b": 7} {
		var b byteSize
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("%s: %d, %v, want %d", in, b, err, want)
		}
	}
	for _, in := range []string{"", "-1", "1.5GiB", "9999999TiB", "MiB"} {
		var b byteSize
		if err := b.Set(in); err == nil {
			t.Errorf("%q is accepted as %d", in, b)
		}
	}
	for n, want := range map[byteSize]string{512 << 20: "512MiB", 1 << 30: "1GiB", 1000: "1000", 0: ""} {
		if got := n.String(); got != want {
			t.Errorf("%d is %s, want %s", int64(n), got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"dev", "serve", "sql", "facet", "bench", "version"}
	for in, want := range map[string]string{"srve": "serve", "sreve": "serve", "benhc": "bench", "SQL": "sql", "facets": "facet", "xyzzy": ""} {
		got := didYouMean(in, names, "")
		if want == "" && got != "" || want != "" && !strings.Contains(got, `"`+want+`"`) {
			t.Errorf("%s: got %q, want %s", in, got, want)
		}
	}
}

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{"": "http://127.0.0.1:7400", "http://a": "http://a:7400", "https://a:1": "https://a:1", "a": "a:7400", "a:1": "a:1"} {
		s := server{}
		if in != "" {
			s.urls.Set(in)
		}
		if got := s.endpoints(); len(got) != 1 || got[0] != want {
			t.Errorf("%q: got %q, want %s", in, got, want)
		}
	}
}

func TestParseStatus(t *testing.T) {
	m, err := parseStatus("Name:\tfacetd\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t9\n")
	if err != nil || m != (bench.Memory{Resident: 1 << 20, Peak: 2 << 20}) {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := parseStatus("Name:\tx\n"); err == nil {
		t.Error("a status without VmRSS is accepted")
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{errors.New("x"), exitError},
		{usagef("x"), exitUsage},
		{&connectError{"http://x", errors.New("refused")}, exitConnect},
		{&toldError{errors.New("x")}, exitError},
	} {
		var out strings.Builder
		if got := (&program{stderr: &out}).report(nil, c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, c := range []struct {
		words []string
		want  []string
	}{
		{[]string{"no"}, []string{"node"}},
		{[]string{"node", "d"}, []string{"decommission", "drain"}},
		{[]string{"node", "drain", "--se"}, []string{"--server"}},
		{[]string{"help", "facet", "ex"}, []string{"export"}},
		{[]string{"help", "vers"}, []string{"version"}},
		{[]string{"facet", "export", "acme/notes", ""}, nil},
		{[]string{"bench", "sw"}, []string{"sweep"}},
		{[]string{"version", "--"}, []string{"--help", "--json"}},
		{[]string{"nothing", "like"}, nil},
	} {
		if got := complete(commands(), c.words); !slices.Equal(got, c.want) {
			t.Errorf("%q may become %q, want %q", c.words, got, c.want)
		}
	}
	if got := complete(commands(), nil); !slices.Contains(got, "serve") || !slices.Contains(got, "help") || slices.Contains(got, "node drain") {
		t.Errorf("the commands are %q", got)
	}
}

// TestManPage: every command and flag is in it, and no line of a text is taken for a
// request of roff.
func TestManPage(t *testing.T) {
	page := manPage(commands())
	for _, c := range commands() {
		if !strings.Contains(page, ".SS facetd "+roff(c.usage())+"\n") {
			t.Errorf("%s is missing", c.name)
		}
	}
	known := []string{".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".nf", ".fi", ".RS", ".RE"}
	for line := range strings.Lines(page) {
		if request, _, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(line, ".") && !slices.Contains(known, request) || strings.HasPrefix(line, "'") {
			t.Errorf("line %q", line)
		}
	}
	if got := roff(".x\n'y \\ a-b"); got != "\\&.x\n\\&'y \\e a\\-b" {
		t.Errorf("%q", got)
	}
}
