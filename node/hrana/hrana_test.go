package hrana_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/internal/fakeservice"
	"github.com/facetd/facetd/node/service"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		http.DefaultClient.CloseIdleConnections()
		os.Exit(code)
	}))
}

var update = flag.Bool("update", false, "rewrite the golden files")

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

// post sends a body and returns status, headers and answer.
func post(t *testing.T, url, body string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// answer is a pipeline's answer, as far as the tests look into it.
type answer struct {
	Baton   *string `json:"baton"`
	BaseURL *string `json:"base_url"`
	Results []struct {
		Type     string `json:"type"`
		Response struct {
			Type         string          `json:"type"`
			Result       json.RawMessage `json:"result"`
			IsAutocommit *bool           `json:"is_autocommit"`
		} `json:"response"`
		Error struct{ Message, Code string } `json:"error"`
	} `json:"results"`
}

// conn is a stream as a client sees it.
type conn struct {
	t     *testing.T
	url   string // with a trailing slash
	baton string
}

// send sends requests on the stream and follows its baton.
func (c *conn) send(requests ...string) answer {
	c.t.Helper()
	resp, body := post(c.t, c.url+"v3/pipeline", c.body(requests...))
	if resp.StatusCode != http.StatusOK {
		c.t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	var a answer
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		c.t.Fatalf("%v: %s", err, body)
	}
	if len(a.Results) != len(requests) {
		c.t.Fatalf("%d results for %d requests: %s", len(a.Results), len(requests), body)
	}
	c.baton = ""
	if a.Baton != nil {
		c.baton = *a.Baton
	}
	return a
}

func (c *conn) body(requests ...string) string {
	baton, _ := json.Marshal(c.baton)
	if c.baton == "" {
		baton = []byte("null")
	}
	return fmt.Sprintf(`{"baton":%s,"requests":[%s]}`, baton, strings.Join(requests, ","))
}

func execute(sql string) string {
	s, _ := json.Marshal(sql)
	return `{"type":"execute","stmt":{"sql":` + string(s) + `}}`
}

// outcomes is "ok" or the code of the error, for every result.
func (a answer) outcomes() string {
	var out []string
	for _, r := range a.Results {
		if r.Type == "error" {
			out = append(out, r.Error.Code)
			continue
		}
		out = append(out, r.Type)
	}
	return strings.Join(out, " ")
}

func (c *conn) want(outcomes string, requests ...string) answer {
	c.t.Helper()
	a := c.send(requests...)
	if got := a.outcomes(); got != outcomes {
		c.t.Fatalf("%v gave %s, want %s: %+v", requests, got, outcomes, a.Results)
	}
	return a
}

const closeReq, autocommit = `{"type":"close"}`, `{"type":"get_autocommit"}`

func start(t *testing.T) (*conn, *fakeservice.Service) {
	srv, svc := startServer(t, httpapi.Options{})
	return &conn{t: t, url: srv.URL + "/v1/db/acme/notes/"}, svc
}

func (c *conn) other() *conn { return &conn{t: c.t, url: c.url} }

func (c *conn) count(want string) {
	c.t.Helper()
	o := c.other()
	a := o.want("ok ok", execute("SELECT count(*) FROM t"), closeReq)
	if got := string(a.Results[0].Response.Result); !strings.Contains(got, `"value":"`+want+`"`) {
		c.t.Fatalf("count: %s, want %s", got, want)
	}
}

// The golden file holds requests and the answers to them, one stream a block.
func TestGolden(t *testing.T) {
	c, _ := start(t)
	volatile := regexp.MustCompile(`"baton":"[^"]+"|"query_duration_ms":[0-9.e-]+`)
	for _, file := range []string{"pipeline", "cursor"} {
		path := filepath.Join("testdata", file+".golden")
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		for _, line := range strings.Split(strings.TrimSuffix(string(src), "\n"), "\n") {
			if strings.HasPrefix(line, "<") {
				continue
			}
			out.WriteString(line + "\n")
			endpoint, body, ok := strings.Cut(line, " ")
			if !ok || strings.HasPrefix(line, "#") {
				continue
			}
			resp, got := post(t, c.url+endpoint, body)
			if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("%s: content type %q", line, ct)
			}
			got = volatile.ReplaceAllStringFunc(got, func(s string) string { return s[:strings.IndexByte(s, ':')+1] + `"…"` })
			for _, l := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
				if !json.Valid([]byte(l)) {
					t.Errorf("%s: not JSON: %s", line, l)
				}
				fmt.Fprintf(&out, "< %d %s\n", resp.StatusCode, l)
			}
		}
		if *update {
			if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != string(src) && !*update {
			t.Errorf("%s differs (go test -update rewrites it):\n%s", path, out.String())
		}
	}
}

func TestStreams(t *testing.T) {
	c, svc := start(t)
	c.want("ok ok", execute("CREATE TABLE t (a)"), closeReq)
	if c.baton != "" {
		t.Fatal("a baton of a closed stream")
	}

	// Each answer has another baton; a used one is refused.
	c.want("ok", execute("INSERT INTO t VALUES (1)"))
	first := c.baton
	c.want("ok", execute("INSERT INTO t VALUES (2)"))
	if c.baton == first || c.baton == "" {
		t.Fatal("the baton did not change")
	}
	used := &conn{t: t, url: c.url, baton: first}
	resp, body := post(t, used.url+"v3/pipeline", used.body(execute("INSERT INTO t VALUES (3)")))
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, "BATON_USED") {
		t.Fatalf("used baton: %d %s", resp.StatusCode, body)
	}

	// A baton of one facet is none of another, nor is a made-up one.
	for _, bad := range []conn{
		{t: t, url: strings.Replace(c.url, "notes", "other", 1), baton: c.baton},
		{t: t, url: c.url, baton: "abc"},
		{t: t, url: c.url, baton: strings.Repeat("A", len(c.baton))},
	} {
		resp, body := post(t, bad.url+"v2/pipeline", bad.body(execute("SELECT 1")))
		var e map[string]string
		if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != http.StatusBadRequest ||
			e["code"] != "BATON_INVALID" || e["message"] == "" || e["error"] != e["message"] || resp.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("bad baton: %d %s", resp.StatusCode, body)
		}
	}
	if _, err := svc.Stat(t.Context(), facet.Name{Tenant: "acme", Facet: "other"}); err == nil {
		t.Fatal("a refused baton created a facet")
	}

	// Requests after close are refused, and so is the stream.
	last := c.baton
	c.want("ok ok STREAM_CLOSED STREAM_CLOSED", execute("SELECT 1"), closeReq, execute("SELECT 1"), autocommit)
	used.baton = last
	if resp, body := post(t, used.url+"v3/pipeline", used.body(autocommit)); !strings.Contains(body, "BATON_USED") {
		t.Fatalf("closed stream: %d %s", resp.StatusCode, body)
	}
	c.count("2")
}

func TestTransactions(t *testing.T) {
	c, svc := start(t)
	c.want("ok ok", execute("CREATE TABLE t (a UNIQUE)"), closeReq)

	// A transaction over several requests holds the facet and is seen by itself.
	a := c.want("ok ok ok", execute("BEGIN IMMEDIATE"), execute("INSERT INTO t VALUES (1)"), autocommit)
	if *a.Results[2].Response.IsAutocommit {
		t.Fatal("autocommit in a transaction")
	}
	o := c.other()
	o.want("SQLITE_BUSY", execute("SELECT 1"))
	c.want("ok SQLITE_CONSTRAINT_UNIQUE ok", execute("INSERT INTO t VALUES (2)"), execute("INSERT INTO t VALUES (2)"), execute("INSERT INTO t VALUES (3)"))
	a = c.want("ok ok", execute("COMMIT"), autocommit)
	if !*a.Results[1].Response.IsAutocommit {
		t.Fatal("no autocommit after COMMIT")
	}
	c.count("3")

	// Closing rolls back, with and without further requests.
	c.want("ok ok", execute("BEGIN"), execute("DELETE FROM t"))
	c.want("ok", closeReq)
	c.count("3")
	c.want("ok ok ok", execute("BEGIN"), execute("DELETE FROM t"), closeReq)
	c.count("3")
	if svc.OpenTx(notes) {
		t.Fatal("a transaction is still open")
	}

	// READONLY lasts as long as the transaction.
	c.want("ok SQLITE_READONLY", execute("BEGIN TRANSACTION READONLY"), execute("DELETE FROM t"))
	c.want("ok SQLITE_READONLY ok ok", execute("SELECT 1"), execute("DELETE FROM t"), execute("COMMIT"), execute("INSERT INTO t VALUES (4)"))
	c.want("ok", closeReq)
	c.count("4")
}

// A transaction that the service ended: nothing the client sends for it may run
// outside of it.
func TestTransactionTimeout(t *testing.T) {
	for end, want := range map[string]string{
		"ROLLBACK": "ok", "COMMIT": "TRANSACTION_TIMEOUT", "BEGIN": "ok", "/* x */ rollback;": "ok",
	} {
		c, svc := start(t)
		c.want("ok ok", execute("CREATE TABLE t (a)"), closeReq)
		c.want("ok ok", execute("BEGIN"), execute("INSERT INTO t VALUES (1)"))
		svc.ExpireTx(notes)
		const lost = "TRANSACTION_TIMEOUT"
		c.want(lost+" "+lost, execute("INSERT INTO t VALUES (2)"), execute("INSERT INTO t VALUES (3)"))
		c.want(lost+" "+lost+" "+lost, execute("INSERT INTO t VALUES (4)"),
			`{"type":"batch","batch":{"steps":[{"stmt":{"sql":"INSERT INTO t VALUES (5)"}}]}}`,
			`{"type":"sequence","sql":"INSERT INTO t VALUES (6)"}`)
		c.want(want, execute(end))
		c.want("ok", execute("INSERT INTO t VALUES (7)"))
		if end == "BEGIN" {
			c.want("ok", execute("COMMIT"))
		}
		c.want("ok", closeReq)
		c.count("1")
	}
}

// A client that hangs up in the middle of a request leaves no transaction.
func TestClientGone(t *testing.T) {
	srv, svc := startServer(t, httpapi.Options{})
	c := &conn{t: t, url: srv.URL + "/v1/db/acme/notes/"}
	c.want("ok ok", execute("CREATE TABLE t (a)"), closeReq)
	req, err := http.NewRequest("POST", c.url+"v3/pipeline", strings.NewReader(c.body(execute("BEGIN"),
		execute("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"))))
	if err != nil {
		t.Fatal(err)
	}
	running, rolledBack := make(chan string, 8), make(chan error, 1)
	svc.Hook = func(call *service.Call) bool {
		sql := string(call.Request.Steps[0].SQL)
		if sql == "ROLLBACK" {
			tell := call.Done
			call.Done = func(c *service.Call) {
				rolledBack <- c.Err
				tell(c)
			}
		}
		running <- sql
		return false
	}
	ctx, hangUp := contextOf(t)
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req.WithContext(ctx))
		if err == nil {
			resp.Body.Close()
		}
		done <- err
	}()
	<-running // BEGIN
	<-running // the endless one
	hangUp()
	if err := <-done; err == nil {
		t.Fatal("an answer from an endless statement")
	}
	if sql := <-running; sql != "ROLLBACK" {
		t.Fatalf("after the client was gone: %s", sql)
	}
	if err := <-rolledBack; err != nil {
		t.Fatal(err)
	}
	c.count("0")
}

func TestBaseURLAndSecret(t *testing.T) {
	opts := httpapi.Options{
		BatonSecret: []byte("s"),
		BaseURL: func(_ *http.Request, name facet.Name) string {
			return "http://node1:7400/v1/db/" + name.String() + "/"
		},
	}
	srv, _ := startServer(t, opts)
	c := &conn{t: t, url: srv.URL + "/v1/db/acme/notes/"}
	a := c.want("ok", execute("SELECT 1"))
	if a.BaseURL == nil || *a.BaseURL != "http://node1:7400/v1/db/acme/notes/" {
		t.Fatalf("base_url %v", a.BaseURL)
	}
	// After a restart the stream, which held nothing, goes on.
	srv2, _ := startServer(t, opts)
	c.url = srv2.URL + "/v1/db/acme/notes/"
	old := c.baton
	c.want("ok", execute("SELECT 1"))
	c.baton, old = old, c.baton
	if _, body := post(t, c.url+"v3/pipeline", c.body(autocommit)); !strings.Contains(body, "BATON_USED") {
		t.Fatalf("used after the restart: %s", body)
	}
	c.baton = old
	if a := c.want("ok", closeReq); a.BaseURL != nil {
		t.Fatalf("base_url %v without a baton", *a.BaseURL)
	}
}

// grant knows three tokens: ro and rw of the tenant acme, and one of another.
func grant(tok string) (*token.Grant, error) {
	c := token.Claims{Tenant: "acme", Facets: []string{"*"}, Expires: time.Unix(1, 0)}
	switch tok {
	case "rw":
		c.Access = token.Write
	case "ro":
		c.Access = token.Read
	case "other":
		c.Tenant, c.Access = "bolt", token.Admin
	default:
		return nil, facet.Errorf(facet.CodeUnauthorized, "no valid token")
	}
	return c.Grant()
}

func TestAuthorize(t *testing.T) {
	srv, svc := startServer(t, httpapi.Options{
		Grant: grant,
	})
	send := func(token string) (int, string) {
		req, err := http.NewRequest("POST", srv.URL+"/v1/db/acme/notes/v2/pipeline",
			strings.NewReader(`{"requests":[`+execute("CREATE TABLE IF NOT EXISTS t (a)")+`,`+closeReq+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if code, body := send("none"); code != http.StatusUnauthorized || !strings.Contains(body, `"code":"UNAUTHORIZED"`) {
		t.Errorf("no token: %d %s", code, body)
	}
	if code, body := send("other"); code != http.StatusNotFound || !strings.Contains(body, "facet acme/notes does not exist") {
		t.Errorf("another tenant's token: %d %s", code, body)
	}
	if _, err := svc.Stat(t.Context(), notes); err == nil {
		t.Error("a refused request created a facet")
	}
	if code, body := send("ro"); code != http.StatusOK || !strings.Contains(body, "SQLITE_READONLY") {
		t.Errorf("read-only token: %d %s", code, body)
	}
	if code, body := send("rw"); code != http.StatusOK || strings.Contains(body, "error") {
		t.Errorf("token: %d %s", code, body)
	}
}

// Every code of the service has a name here, and an unknown outcome is no HTTP
// error, for that would make clients drop the stream. For not_owner see
// forward_test.go.
func TestServiceErrors(t *testing.T) {
	c, svc := start(t)
	for _, tc := range []struct {
		err  *facet.Error
		want string
	}{
		{&facet.Error{Code: facet.CodeSQL, SQLite: 1299, Message: "m"}, "SQLITE_CONSTRAINT_NOTNULL"},
		{&facet.Error{Code: facet.CodeSQL, Message: "m"}, "SQLITE_ERROR"},
		{&facet.Error{Code: facet.CodeDenied, Message: "m"}, "SQLITE_AUTH"},
		{&facet.Error{Code: facet.CodeLimit, Message: "m"}, "LIMIT_EXCEEDED"},
		{&facet.Error{Code: facet.CodeFrozen, Message: "m"}, "TENANT_FROZEN"},
		{&facet.Error{Code: facet.CodeThrottled, Message: "m"}, "THROTTLED"},
		{&facet.Error{Code: facet.CodeTimeout, Message: "m"}, "SQLITE_INTERRUPT"},
		{&facet.Error{Code: facet.CodeDiskFull, Message: "m"}, "SQLITE_FULL"},
		{&facet.Error{Code: facet.CodeUnavailable, Message: "m"}, "UNAVAILABLE"},
		{&facet.Error{Code: facet.CodeOverloaded, Message: "m"}, "OVERLOADED"},
		{&facet.Error{Code: facet.CodeUnknownOutcome, Message: "m"}, "OUTCOME_UNKNOWN"},
		{&facet.Error{Code: facet.CodeCorrupt, Message: "m"}, "SQLITE_CORRUPT"},
		{&facet.Error{Code: facet.CodeInternal}, "INTERNAL"},
	} {
		svc.Hook = func(call *service.Call) bool {
			call.Err = tc.err
			call.Done(call)
			return true
		}
		a := c.want(tc.want, execute("SELECT 1"))
		if a.Results[0].Error.Message == "" {
			t.Errorf("%s: no message", tc.want)
		}
	}
}
