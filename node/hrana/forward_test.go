package hrana_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/internal/fakeservice"
	"github.com/facetd/facetd/node/service"
)

// startCluster serves the API ports of several fake nodes. What is made is owned by
// the second.
func startCluster(t *testing.T, n int, edit func(i int, opts *httpapi.Options)) ([]*httptest.Server, *fakeservice.Cluster) {
	t.Helper()
	c := fakeservice.NewCluster(t.TempDir(), n)
	c.Choose(1)
	var servers []*httptest.Server
	var handlers []*httpapi.Handler
	for i := range n {
		opts := httpapi.Options{Log: slog.New(slog.DiscardHandler), BatonSecret: []byte("shared")}
		if edit != nil {
			edit(i, &opts)
		}
		h := httpapi.New(c.Node(i), opts)
		srv := httptest.NewUnstartedServer(h)
		srv.Config = httpapi.NewServer(h, httpapi.ServerOptions{Log: opts.Log})
		c.Node(i).SetAddr(srv.Listener.Addr().String())
		srv.Start()
		servers, handlers = append(servers, srv), append(handlers, h)
	}
	t.Cleanup(func() {
		for _, h := range handlers {
			h.Close()
		}
		for _, srv := range servers {
			srv.Close()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return servers, c
}

func asked(t *testing.T, c *fakeservice.Cluster, want ...int) {
	t.Helper()
	for i := range want {
		if got := c.Node(i).Asked(); got != want[i] {
			t.Errorf("the service of node %d was asked %d times, want %d", i, got, want[i])
		}
	}
}

const path = "/v1/db/acme/notes/"

func through(t *testing.T, srv *httptest.Server) *conn { return &conn{t: t, url: srv.URL + path} }

// count is the rows of table t, asked for on a stream of its own.
func count(t *testing.T, srv *httptest.Server, want int) {
	t.Helper()
	a := through(t, srv).send(execute("SELECT count(*) FROM t"))
	if got := string(a.Results[0].Response.Result); !strings.Contains(got, fmt.Sprintf(`{"type":"integer","value":"%d"}`, want)) {
		t.Errorf("want %d rows: %s", want, got)
	}
}

func TestForwarding(t *testing.T) {
	nodes, cl := startCluster(t, 3, nil)
	// The facet does not exist: node 0 is asked to create it and chooses node 1.
	c := through(t, nodes[0])
	a := c.send(execute("CREATE TABLE t (x)"), execute("INSERT INTO t VALUES (1)"))
	if a.Results[1].Type != "ok" || a.BaseURL == nil || *a.BaseURL != nodes[1].URL+path {
		t.Fatalf("%+v", a)
	}
	asked(t, cl, 1, 2, 0)
	// The owner is known.
	count(t, nodes[0], 1)
	asked(t, cl, 0, 1, 0)
	// The stream goes on anywhere.
	// The body arrives as it was sent: decoding writes over what it reads.
	for _, url := range []string{nodes[0].URL + path, nodes[2].URL + path} {
		c.url = url
		a := c.send(`{"type":"execute","stmt":{"sql":"SELECT \u003f AS \"a\\b\", ?","args":[{"type":"text","value":"\n\ud83d\ude00"},{"type":"blob","base64":"AAECAwQ="}]}}`)
		want := `[{"type":"text","value":"\n😀"},{"type":"blob","base64":"AAECAwQ"}]`
		if got := string(a.Results[0].Response.Result); !strings.Contains(got, want) {
			t.Errorf("want %s: %s", want, got)
		}
	}
	c.send(execute("INSERT INTO t VALUES (2)"))
	c.url = nodes[2].URL + path
	c.send(execute("INSERT INTO t VALUES (3)"))
	c.url = nodes[1].URL + path
	if a := c.send(execute("INSERT INTO t VALUES (4)")); a.BaseURL != nil {
		t.Errorf("base_url %s for a client that is there", *a.BaseURL)
	}
	count(t, nodes[2], 4)
	// And when the facet moves, and comes back.
	for _, to := range []int{2, 0, 1} {
		cl.Move(notes, to)
		c.send(execute("SELECT 1"))
	}
	asked(t, cl, 1, 7, 1)
}

// A node that wrongly believes it is the owner learns better from its service.
func TestForwardingAfterTheFact(t *testing.T) {
	nodes, cl := startCluster(t, 3, nil)
	c := through(t, nodes[0])
	c.send(execute("CREATE TABLE t (x)"))
	cl.Node(0).Believe(notes, 0)
	asked(t, cl, 1, 1, 0)
	c.send(`{"type":"store_sql","sql_id":1,"sql":"INSERT INTO t VALUES (1)"}`, `{"type":"execute","stmt":{"sql_id":1}}`, `{"type":"close_sql","sql_id":1}`)
	asked(t, cl, 1, 1, 0)
	count(t, nodes[2], 1)
	// A cursor goes the same way.
	resp, body := post(t, nodes[0].URL+path+"v3/cursor", `{"batch":{"steps":[{"stmt":{"sql":"SELECT x FROM t"}}]}}`)
	if resp.StatusCode != http.StatusOK || strings.Count(body, "\n") != 4 || !strings.Contains(body, nodes[1].URL+path) {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	if got := resp.Header.Values("Content-Type"); len(got) != 1 || got[0] != "application/json" {
		t.Errorf("content type %q", got)
	}
	if got := resp.Header.Values("X-Request-Id"); len(got) != 1 {
		t.Errorf("request ids %q", got)
	}
}

// What moves in the middle of a pipeline has run in part: the rest is refused.
func TestMoveInAPipeline(t *testing.T) {
	nodes, cl := startCluster(t, 2, nil)
	c := through(t, nodes[1])
	c.send(execute("CREATE TABLE t (x)"))
	cl.Node(1).Hook = func(call *service.Call) bool {
		if string(call.Request.Steps[0].SQL) == "INSERT INTO t VALUES (1)" {
			done := call.Done
			call.Done = func(call *service.Call) { cl.Move(notes, 0); done(call) }
		}
		return false
	}
	a := c.send(execute("INSERT INTO t VALUES (1)"), execute("INSERT INTO t VALUES (2)"))
	if a.Results[0].Type != "ok" || a.Results[1].Error.Code != "NOT_OWNER" {
		t.Fatalf("%+v", a.Results)
	}
	c.send(execute("INSERT INTO t VALUES (2)"))
	count(t, nodes[1], 2)
}

// A transaction does not move with its facet.
func TestForwardingOfATransaction(t *testing.T) {
	nodes, cl := startCluster(t, 3, nil)
	c := through(t, nodes[0])
	c.send(execute("CREATE TABLE t (x)"))
	begin := func() {
		c.send(execute("BEGIN"))
		c.send(execute("INSERT INTO t VALUES (1)"))
	}
	begin()
	c.send(execute("COMMIT"))
	count(t, nodes[2], 1)

	// A client that follows base_url hears of it from the node it was with.
	c.url = nodes[1].URL + path
	begin()
	cl.Move(notes, 2)
	c.want("TRANSACTION_TIMEOUT", execute("INSERT INTO t VALUES (2)"))
	c.want("TRANSACTION_TIMEOUT", execute("INSERT INTO t VALUES (3)"))
	c.send(execute("ROLLBACK"))
	c.send(execute("INSERT INTO t VALUES (4)")) // at the new owner
	count(t, nodes[1], 2)

	// One that does not is told that its stream is gone.
	c = through(t, nodes[0])
	begin()
	cl.Move(notes, 1)
	resp, body := post(t, c.url+"v3/pipeline", c.body(execute("INSERT INTO t VALUES (5)")))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "STREAM_EXPIRED") {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	count(t, nodes[0], 2)
}

// Nodes that name each other pass a request on a few times only.
func TestForwardingLoop(t *testing.T) {
	nodes, cl := startCluster(t, 3, nil)
	through(t, nodes[1]).send(execute("CREATE TABLE t (x)"))
	cl.Move(notes, 2)
	cl.Node(0).Believe(notes, 1)
	cl.Node(1).Believe(notes, 0)
	resp, body := post(t, nodes[0].URL+path+"v2/pipeline", `{"requests":[`+execute("SELECT 1")+`]}`)
	var e struct{ Code, Message, Error string }
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusServiceUnavailable || e.Code != "UNAVAILABLE" || e.Message == "" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	cl.Node(0).Thaw()
	count(t, nodes[0], 0)
}

// A request waits for the next owner when the last one is not there.
func TestForwardingWhenTheOwnerDies(t *testing.T) {
	var cl *fakeservice.Cluster
	var dead atomic.Value
	dials := func(_ int, opts *httpapi.Options) {
		opts.ForwardDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == dead.Load() {
				cl.Move(notes, 2) // the placement leader noticed
				return nil, fmt.Errorf("dial %s: connection refused", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	nodes, c := startCluster(t, 3, dials)
	cl = c
	through(t, nodes[1]).send(execute("CREATE TABLE t (x)"))
	dead.Store(nodes[1].Listener.Addr().String())
	through(t, nodes[0]).send(execute("INSERT INTO t VALUES (1)"))
	count(t, nodes[2], 1)
}

// The owner sees the client's token, and a refusal here comes before anything else.
func TestForwardingKeepsTheToken(t *testing.T) {
	var seen [2]atomic.Int32
	var revoked atomic.Bool
	nodes, _ := startCluster(t, 2, func(i int, opts *httpapi.Options) {
		opts.Grant = func(tok string) (*token.Grant, error) {
			seen[i].Add(1)
			if i == 1 && revoked.Load() {
				return nil, facet.Errorf(facet.CodeUnauthorized, "revoked here already")
			}
			return grant(tok)
		}
	})
	send := func(token, sql string) (int, string) {
		req, err := http.NewRequest(http.MethodPost, nodes[0].URL+path+"v2/pipeline", strings.NewReader(`{"requests":[`+execute(sql)+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Origin", nodes[0].URL) // a page of this very server
		req.Header.Set("Sec-Fetch-Site", "same-origin")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var a answer
		if resp.StatusCode == http.StatusOK {
			if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, a.Results[0].Error.Code
		}
		return resp.StatusCode, ""
	}
	if status, code := send("rw", "CREATE TABLE t (x)"); status != 200 || code != "" {
		t.Errorf("%d %s", status, code)
	}
	if status, code := send("ro", "INSERT INTO t VALUES (1)"); status != 200 || code != "SQLITE_READONLY" {
		t.Errorf("%d %s", status, code)
	}
	before := seen[1].Load()
	if status, _ := send("", "SELECT 1"); status != 401 || seen[1].Load() != before {
		t.Errorf("%d", status)
	}
	if status, _ := send("other", "SELECT 1"); status != 404 || seen[1].Load() != before {
		t.Errorf("another tenant: %d", status)
	}
	// The owner judges for itself: it need not have the same keys at the moment.
	revoked.Store(true)
	if status, _ := send("rw", "INSERT INTO t VALUES (2)"); status != 401 {
		t.Errorf("revoked at the owner: %d", status)
	}
}
