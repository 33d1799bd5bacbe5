package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestRunCountsErrors(t *testing.T) {
	boom := errors.New("boom")
	m, err := run(t.Context(), 3, lasting(time.Hour), func(context.Context, int, int, *rand.Rand) error { return boom })
	if !errors.Is(err, boom) || m.Errors < maxErrors || m.Ops != 0 || m.FirstError != "boom" {
		t.Errorf("got %+v, %v", m, err)
	}
	m, err = run(t.Context(), 2, lasting(10*time.Millisecond), func(context.Context, int, int, *rand.Rand) error { return nil })
	if err != nil || m.Ops == 0 || m.OpsPerSecond <= 0 || m.P50 < 1 {
		t.Errorf("got %+v, %v", m, err)
	}
}

// A number of calls is made once each, whatever becomes of them.
func TestRunMakesEachCallOnce(t *testing.T) {
	var seen [100]atomic.Int32
	m, err := run(t.Context(), 7, &pace{calls: int64(len(seen))}, func(_ context.Context, _, i int, _ *rand.Rand) error {
		seen[i].Add(1)
		if i == 50 {
			return errors.New("no")
		}
		return nil
	})
	if err != nil || m.Ops != 99 || m.Errors != 1 {
		t.Errorf("%d operations, %d errors, %v", m.Ops, m.Errors, err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Errorf("call %d was made %d times", i, n)
		}
	}
}

func known(v float64) *float64 { return &v }

func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := report{Peers: []peerReport{{about: about{Name: "facetd", Processes: 3}}, {about: about{Name: "etcd", Processes: 3, Against: "facetd"}},
		{about: about{Name: "sqlite", Against: "facetd-1"}}}}
	for i, x := range [][2]float64{{100, 10}, {90, 30}, {50, 10}} {
		r.Measures = append(r.Measures,
			measure{Round: i + 1, Peer: "facetd", Workload: "write", OpsPerSecond: x[0], ServerCPU: known(1), ClientCPU: 1, Disk: known(100)},
			measure{Round: i + 1, Peer: "etcd", Workload: "write", OpsPerSecond: x[1], ServerCPU: known(4), ClientCPU: 2, Disk: known(250)},
			measure{Round: i + 1, Peer: "sqlite", Workload: "write", OpsPerSecond: x[1]})
	}
	r.compare()
	if len(r.Ratios) != 1 {
		t.Fatalf("got %+v, want one: facetd-1 was not measured", r.Ratios)
	}
	x := r.Ratios[0]
	want := ratio{Ours: "facetd", Peer: "etcd", Workload: "write", Rate: spread{5, 3, 10}, CPU: spread{3, 3, 3},
		ServerCPU: x.ServerCPU, Disk: x.Disk}
	if x != want || *x.ServerCPU != (spread{4, 4, 4}) || *x.Disk != (spread{2.5, 2.5, 2.5}) {
		t.Errorf("got %+v, want %+v", x, want)
	}
	var b strings.Builder
	if err := r.writeText(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| facetd | etcd | write | **5.00** (3.00 to 10.00) | **4.00** (4.00 to 4.00) | **3.00** (3.00 to 3.00) | **2.50** (2.50 to 2.50) |  |",
		"| etcd | 2 | 30.0 | 0.00 | 0.00 | 4.00 | 2.00 | 250 | 0.00 | ? | ? | 0 | 0.0 |",
	} {
		if !strings.Contains(b.String(), line) {
			t.Errorf("the report lacks %s:\n%s", line, b.String())
		}
	}
}

// What the disk got while nobody called is not the load's.
func TestDiskBytesWithoutIdle(t *testing.T) {
	n, cpu := int64(100_000), 30*time.Millisecond
	m := measure{Ops: 100, disk: &n, watched: 2 * time.Second, serverCPU: &cpu}
	m.settle(10_000)
	if *m.Disk != 800 || *m.ServerCPU != 300 || m.Sent != nil {
		t.Errorf("got %v bytes, %v ms", *m.Disk, *m.ServerCPU)
	}
	busy := measure{Ops: 100, disk: &n, watched: 2 * time.Second}
	if busy.settle(2 * busyDisk); busy.Disk != nil {
		t.Errorf("%v bytes are known of a disk that others keep busy", *busy.Disk)
	}
	if n, err := sectorsWritten(" 2141826 274063 122706954 2992080 25887109 3609718 924361856 18181864 0 5730796 25738368 1 2 3 4 5 6"); err != nil || n != 924361856 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := sectorsWritten("1 2 3"); err == nil {
		t.Error("three counters are taken for a disk's")
	}
}

func TestParsers(t *testing.T) {
	mounts := "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n23 22 0:21 / /proc rw - proc proc rw\n"
	if got := fileSystem(mounts, "254:0"); got != "ext4" {
		t.Errorf("the file system is %q", got)
	}
	if got := fileSystem(mounts, "9:9"); got != "" {
		t.Errorf("a device that is not mounted has %q", got)
	}
	text := "# HELP a_total x\na_total{To=\"1\"} 1.5e+03\na_total{To=\"2\"} 500\na_total_more 7\nb 1\n"
	if n, err := sumOf([]byte(text), "a_total"); err != nil || n != 2000 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := sumOf([]byte("b soon\n"), "b"); err == nil {
		t.Error("a figure that is none is accepted")
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"--callers", "0"}, {"--keys", "2000000"}, {"--idle", "0s"}, {"--etcd-endpoints", "some"},
		{"--only", "facetd,nope"}, {"instal"}} {
		if err := compareCommand(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	for _, args := range [][]string{nil, {"--dir", "x", "more"}} {
		if err := installCommand(t.Context(), args, io.Discard); err == nil {
			t.Errorf("install %q is accepted", args)
		}
	}
}

// The requests of rqlite's client, against a server that answers as its
// documentation says.
func TestRqliteClient(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body [][]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		switch r.URL.String() {
		case "/db/execute":
			if body[0][0] == upsertSQL && (len(body[0]) != 3 || body[0][1] != float64(7) || body[0][2] != "abc") {
				t.Errorf("got %v", body)
			}
			io.WriteString(w, `{"results":[{"last_insert_id":1,"rows_affected":1}]}`)
		case "/db/query?level=linearizable":
			if body[0][1] == float64(8) {
				io.WriteString(w, `{"results":[{"error":"no such table"}]}`)
				return
			}
			io.WriteString(w, `{"results":[{"columns":["v"],"types":["blob"],"values":[["abc"]]}]}`)
		default:
			t.Errorf("asked for %s", r.URL)
		}
	}))
	defer srv.Close()
	s := &rqliteSession{http: srv.Client(), leader: srv.URL}
	if err := s.prepare(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.write(t.Context(), 7, []byte("abc")); err != nil {
		t.Error(err)
	}
	if n, err := s.read(t.Context(), 7); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.read(t.Context(), 8); err == nil || err.Error() != "no such table" {
		t.Error(err)
	}
}

// Every process has ports and a directory of its own.
func TestLaunches(t *testing.T) {
	for _, p := range peers(settings{}) {
		a := p.about()
		dir := t.TempDir()
		at := place{}
		for k := range a.Processes {
			at.dirs, at.ports = append(at.dirs, filepath.Join(dir, fmt.Sprintf("data-%d", k+1))), append(at.ports, 7000+100*k)
		}
		launches, err := p.launches(at)
		if err != nil || len(launches) != a.Processes {
			t.Fatalf("%s: %d processes, %v", a.Name, len(launches), err)
		}
		for k, l := range launches {
			text := strings.Join(l.args, " ")
			for _, content := range l.files {
				text += content
			}
			if !strings.Contains(text, at.dirs[k]) || !strings.Contains(text, loopback(at.ports[k])) {
				t.Errorf("%s: %s", a.Name, text)
			}
		}
		if a.Client == "" || a.Durable == "" || a.Key == "" {
			t.Errorf("%s does not say how it is run", a.Name)
		}
	}
}

// A whole comparison, small, of what needs no program: plain SQLite.
func TestCompareLibrary(t *testing.T) {
	dir := t.TempDir()
	out, js := filepath.Join(dir, "RESULTS.md"), filepath.Join(dir, "peers.json")
	err := compareCommand(t.Context(), []string{"--only", "sqlite,sqlite-each", "--data", dir, "--out", out, "--json", js, "--callers", "4",
		"--keys", "5", "--create", "8", "--rounds", "2", "--duration", "30ms", "--idle", "10ms"}, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(js)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	for _, peer := range []string{"sqlite", "sqlite-each"} {
		for _, w := range workloadNames() {
			want := 2
			if w == createName && peer == "sqlite" {
				want = 0 // a row is no database
			}
			got := r.of(peer, w)
			if len(got) != want {
				t.Errorf("%s %s: %d measurements, want %d", peer, w, len(got), want)
			}
			for _, m := range got {
				if m.Ops == 0 || m.Errors > 0 || m.ServerCPU != nil || (w == createName && m.Ops != 8) {
					t.Errorf("got %+v", m)
				}
			}
		}
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"### hot_write", "| sqlite-each | 2 |", "synchronous=FULL", "fdatasync of 4 KiB"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "peers-*")); len(left) > 0 {
		t.Errorf("%q was left behind", left)
	}
}
