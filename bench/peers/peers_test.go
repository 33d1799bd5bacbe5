package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestRunCountsErrors(t *testing.T) {
	boom := errors.New("boom")
	m, err := run(t.Context(), 3, time.Hour, func(context.Context, int, *rand.Rand) error { return boom })
	if !errors.Is(err, boom) || m.Errors < maxErrors || m.Ops != 0 || m.FirstError != "boom" {
		t.Errorf("got %+v, %v", m, err)
	}
	m, err = run(t.Context(), 2, 10*time.Millisecond, func(context.Context, int, *rand.Rand) error { return nil })
	if err != nil || m.Ops == 0 || m.OpsPerSecond <= 0 || m.P50 < 1 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	r := report{Peers: []about{{Peer: "facetd"}, {Peer: "etcd"}}}
	for i, x := range [][2]float64{{100, 10}, {90, 30}, {50, 10}} {
		r.Measures = append(r.Measures, measure{Round: i + 1, Peer: "facetd", Workload: "write", OpsPerSecond: x[0], ServerCPU: 1},
			measure{Round: i + 1, Peer: "etcd", Workload: "write", OpsPerSecond: x[1], ServerCPU: 4})
	}
	r.compare()
	want := ratio{Peer: "etcd", Workload: "write", Median: 5, Min: 3, Max: 10, CPU: 4}
	if len(r.Ratios) != 1 || r.Ratios[0] != want {
		t.Errorf("got %+v, want %+v", r.Ratios, want)
	}
	var b strings.Builder
	if err := r.writeText(&b); err != nil || !strings.Contains(b.String(), "| etcd | write | 5.00 | 3.00 | 10.00 | 4.00 |") {
		t.Errorf("%v\n%s", err, b.String())
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
	if err := s.write(t.Context(), 7, []byte("abc"), false); err != nil {
		t.Error(err)
	}
	if n, err := s.read(t.Context(), 7); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := s.read(t.Context(), 8); err == nil || err.Error() != "no such table" {
		t.Error(err)
	}
}

// Every peer gets ports and directories of its own for each process.
func TestCommands(t *testing.T) {
	for _, p := range []peer{facetdPeer{}, etcdPeer{}, rqlitePeer{}} {
		lines := p.commands([]string{"/d/1", "/d/2", "/d/3"}, []int{7000, 7100, 7200})
		if len(lines) != nodes {
			t.Fatalf("%s: %d processes", p.name(), len(lines))
		}
		for k, args := range lines {
			line := strings.Join(args, " ")
			if !strings.Contains(line, "/d/"+string(rune('1'+k))) || !strings.Contains(line, loopback(7000+100*k)) || p.about() == "" {
				t.Errorf("%s: %s", p.name(), line)
			}
		}
	}
}
