package doctor

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
)

// three is a cluster in which all is well.
func three() *Facts {
	f := &Facts{}
	var nodes []client.Node
	for k := range 3 {
		id := fmt.Sprintf("n%d", k+1)
		nodes = append(nodes, client.Node{ID: id, State: "alive", Voter: true, API: fmt.Sprintf("10.0.0.%d:7400", k+1), Version: "1"})
	}
	for _, n := range nodes {
		f.Nodes = append(f.Nodes, Node{
			URL: "https://" + n.API, ID: n.ID,
			Cluster: &client.Cluster{ID: "c", Self: n.ID, Leader: "n1", Applied: 100, Replicas: 3, Nodes: append([]client.Node(nil), nodes...)},
			Metrics: map[string]float64{
				"facetd_disk_free_bytes": 1e11, "facetd_clocks_trusted": 1, "process_open_fds": 10, "process_max_fds": 1000,
				"facetd_log_batches_total": 1000, "facetd_log_fsync_seconds_total": 1,
			},
		})
	}
	return f
}

// TestJudge makes one thing wrong at a time: it is found, as bad as it is, and nothing
// else is.
func TestJudge(t *testing.T) {
	each := func(f *Facts, do func(c *client.Cluster)) {
		for i := range f.Nodes {
			if f.Nodes[i].Cluster != nil {
				do(f.Nodes[i].Cluster)
			}
		}
	}
	metric := func(name string, v float64) func(f *Facts) {
		return func(f *Facts) { f.Nodes[1].Metrics[name] = v }
	}
	for name, c := range map[string]struct {
		wrong func(f *Facts)
		level Level
		about string
		check string
	}{
		"nothing":          {func(*Facts) {}, OK, "", ""},
		"not reached":      {func(f *Facts) { f.Nodes[1] = Node{URL: f.Nodes[1].URL, ID: "n2", Err: errors.New("refused")} }, Fail, "n2", "reach"},
		"not ready":        {func(f *Facts) { f.Nodes[1].Failing = []string{"placement leader is reachable: no"} }, Fail, "n2", "ready"},
		"token refused":    {func(f *Facts) { f.Nodes[1].Denied = "401" }, Warn, "n2", "token"},
		"open to all":      {func(f *Facts) { f.Nodes[1].Open = true }, Warn, "n2", "tokens"},
		"not encrypted":    {func(f *Facts) { f.Nodes[1].URL = "http://10.0.0.2:7400" }, Warn, "n2", "encryption"},
		"clock":            {func(f *Facts) { f.Nodes[1].Ahead, f.Nodes[1].Within = -5*time.Second, time.Second }, Warn, "n2", "clock"},
		"disk full":        {metric("facetd_disk_full", 1), Fail, "n2", "disk"},
		"disk low":         {metric("facetd_disk_free_bytes", 1<<30), Warn, "n2", "disk"},
		"endangered":       {metric("facetd_facets_endangered", 2), Fail, "n2", "copies"},
		"damaged":          {metric("facetd_copies_damaged", 1), Warn, "n2", "copies"},
		"undecided":        {metric("facetd_facets_undecided_total", 1), Fail, "n2", "copies"},
		"rot":              {metric("facetd_scrub_damaged_total", 1), Warn, "n2", "disk"},
		"clock apart":      {metric("facetd_clocks_trusted", 0), Warn, "n2", "clock"},
		"scrub late":       {metric("facetd_scrub_oldest_seconds", 9*86400), Warn, "n2", "scrub"},
		"fsync slow":       {metric("facetd_log_fsync_seconds_total", 30), Warn, "n2", "disk"},
		"keys":             {metric("facetd_token_keys_unusable_total", 1), Warn, "n2", "keys"},
		"files":            {metric("process_open_fds", 900), Warn, "n2", "files"},
		"certificate":      {metric("facetd_certificate_expires_timestamp_seconds{peer}", float64(time.Now().Add(time.Hour).Unix())), Warn, "n2", "certificate"},
		"certificate over": {metric("facetd_certificate_expires_timestamp_seconds{api}", 1e9), Fail, "n2", "certificate"},
		"credentials":      {metric("facetd_credentials_unusable_total", 1), Warn, "n2", "certificate"},
		"two clusters":     {func(f *Facts) { f.Nodes[1].Cluster.ID = "other" }, Fail, "cluster", "identity"},
		"no leader":        {func(f *Facts) { each(f, func(c *client.Cluster) { c.Leader = "" }) }, Fail, "cluster", "leader"},
		"two leaders":      {func(f *Facts) { f.Nodes[1].Cluster.Leader = "n2" }, Warn, "cluster", "leader"},
		"behind":           {func(f *Facts) { f.Nodes[0].Cluster.Applied = 1e6; f.Nodes[2].Cluster.Applied = 1e6 }, Warn, "cluster", "placement"},
		"versions":         {func(f *Facts) { each(f, func(c *client.Cluster) { c.Nodes[2].Version = "2" }) }, Warn, "cluster", "versions"},
		"gone":             {func(f *Facts) { each(f, func(c *client.Cluster) { c.Nodes[2].State = "gone"; c.Replicas = 1 }) }, Fail, "n3", "state"},
		"too few":          {func(f *Facts) { each(f, func(c *client.Cluster) { c.Replicas = 5 }) }, Warn, "cluster", "nodes"},
		"one copy":         {func(f *Facts) { each(f, func(c *client.Cluster) { c.Replicas = 1 }) }, Warn, "cluster", "nodes"},
		"even voters":      {func(f *Facts) { each(f, func(c *client.Cluster) { c.Nodes[2].Voter = false }) }, Warn, "cluster", "voters"},
		"some zones":       {func(f *Facts) { each(f, func(c *client.Cluster) { c.Nodes[2].Zone = "a" }) }, Warn, "cluster", "zones"},
		"too few zones": {func(f *Facts) {
			each(f, func(c *client.Cluster) { c.Nodes[0].Zone, c.Nodes[1].Zone, c.Nodes[2].Zone = "a", "a", "b" })
		}, Warn, "cluster", "zones"},
		"failed operation": {func(f *Facts) {
			f.Operations = []client.Operation{{Kind: "drain", Node: "n1", State: client.OperationFailed}}
		}, Warn, "cluster", "operations"},
	} {
		t.Run(name, func(t *testing.T) {
			f := three()
			c.wrong(f)
			var bad []Finding
			findings := f.Judge()
			for _, x := range findings {
				if x.Level != OK {
					bad = append(bad, x)
					if x.Do == "" {
						t.Errorf("%v says nothing to do", x)
					}
				}
			}
			if Worst(findings) != c.level {
				t.Fatalf("worst is %s, want %s: %v", Worst(findings), c.level, bad)
			}
			if c.level == OK {
				return
			}
			found := false
			for _, x := range bad {
				found = found || x.Level == c.level && x.About == c.about && x.Check == c.check
			}
			// A node that is gone may be too few at the same time.
			if !found || len(bad) > 1 && name != "gone" {
				t.Errorf("found %v", bad)
			}
		})
	}
}

// TestAsk: nodes are found through each other, and what each says is understood.
func TestAsk(t *testing.T) {
	var addrs []string
	node := func(id string) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
			fmt.Fprintln(w, "ok")
		})
		mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
			if id == "n2" {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, "[-] placement leader is reachable: no answer\n[+] node is serving\nnot ready\n")
			}
		})
		guarded := func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Authorization") == "Bearer good" {
				return true
			}
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"code":"unauthorized","message":"a token is needed here"}}`)
			return false
		}
		mux.HandleFunc("/v1/cluster", func(w http.ResponseWriter, r *http.Request) {
			if guarded(w, r) {
				fmt.Fprintf(w, `{"id":"c","self":%q,"leader":"n1","nodes":[{"id":"n1","api":%q},{"id":"n2","api":%q},{"id":"n3","api":"127.0.0.1:1"}]}`, id, addrs[0], addrs[1])
			}
		})
		mux.HandleFunc("/v1/operations", func(w http.ResponseWriter, r *http.Request) {
			if guarded(w, r) {
				fmt.Fprint(w, `{"operations":[{"id":"1","kind":"drain","state":"failed"}]}`)
			}
		})
		mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
			if guarded(w, r) {
				fmt.Fprint(w, "# TYPE facetd_nodes gauge\nfacetd_nodes{state=\"alive\"} 2\nfacetd_nodes{state=\"gone\"} 1\n# TYPE x counter\nx 7\n")
			}
		})
		return mux
	}
	for _, id := range []string{"n1", "n2"} {
		s := httptest.NewServer(node(id))
		defer s.Close()
		addrs = append(addrs, strings.TrimPrefix(s.URL, "http://"))
	}
	a := &Asker{Client: http.DefaultClient, Token: "good"}
	f := a.Ask(t.Context(), []string{"http://" + addrs[0]})
	if len(f.Nodes) != 3 || f.Nodes[1].ID != "n2" || f.Nodes[2].ID != "n3" {
		t.Fatalf("asked %+v", f.Nodes)
	}
	n1, n2, n3 := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	if n1.Err != nil || len(n1.Failing) > 0 || n1.Denied != "" || n1.Open || n1.Metrics["facetd_nodes"] != 3 || n1.Metrics["x"] != 7 {
		t.Errorf("n1: %+v", n1)
	}
	if d := n1.Ahead - time.Minute; d.Abs() > n1.Within {
		t.Errorf("n1 is ahead by %v, right to %v; it is a minute", n1.Ahead, n1.Within)
	}
	if len(n2.Failing) != 1 || n2.Failing[0] != "placement leader is reachable: no answer" {
		t.Errorf("n2 fails %q", n2.Failing)
	}
	if n3.Err == nil {
		t.Errorf("n3 was reached: %+v", n3)
	}
	if len(f.Operations) != 1 {
		t.Errorf("operations %v", f.Operations)
	}
	// From a node that speaks TLS nobody is led to one that does not, with the token.
	plain := addrs[1]
	addrs[1] = "http://" + plain
	secure := httptest.NewTLSServer(node("n1"))
	defer secure.Close()
	f = (&Asker{Client: secure.Client(), Token: "good"}).Ask(t.Context(), []string{secure.URL})
	for _, n := range f.Nodes {
		if n.URL != secure.URL && (n.Err != errPlain || n.Cluster != nil) {
			t.Errorf("asked in the clear: %+v", n)
		}
	}
	if len(f.Nodes) < 2 {
		t.Errorf("those not asked are not told: %+v", f.Nodes)
	}
	if answers, problems := (&Asker{Client: secure.Client(), Token: "good"}).Each(t.Context(), []string{secure.URL}, "/v1/operations"); len(answers) != 1 || len(problems) != len(f.Nodes)-1 {
		t.Errorf("answers %q, problems %v", answers, problems)
	}
	addrs[1] = plain
	a.Token = ""
	f = a.Ask(t.Context(), []string{"http://" + addrs[0]})
	if len(f.Nodes) != 1 || !strings.Contains(f.Nodes[0].Denied, "a token is needed here") {
		t.Errorf("without a token: %+v", f.Nodes)
	}
}

func TestMachine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := Machine(dir)
	if d.Err != nil || !d.Missing || len(d.Sync) != syncs {
		t.Fatalf("a directory that is to be made: %+v", d)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if d = Machine(dir); d.Err != nil || d.Missing || len(d.Sync) != syncs {
		t.Fatalf("a directory: %+v", d)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if !has(d.Judge(), Warn, "data") {
		t.Errorf("a directory others may read: %v", d.Judge())
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{file, filepath.Join(dir, "no", "such", "place")} {
		if d := Machine(bad); d.Err == nil || !has(d.Judge(), Fail, "data") {
			t.Errorf("%s: %+v", bad, d)
		}
	}
	d = Disk{Dir: dir, Mode: 0o700, System: System{FileSystem: "tmpfs", Free: 1 << 20, Total: 1 << 40, MaxFiles: 1024}, Sync: []time.Duration{time.Microsecond}}
	for check, level := range map[string]Level{"disk": Fail, "fsync": Fail, "files": Warn, "clock": Warn} {
		if !has(d.Judge(), level, check) {
			t.Errorf("%s is not found: %v", check, d.Judge())
		}
	}
}

func has(findings []Finding, level Level, check string) bool {
	for _, f := range findings {
		if f.Level == level && f.Check == check {
			return true
		}
	}
	return false
}
