package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/fakeservice"
	"github.com/facetd/facetd/node/service"
)

// request is one exchange of a table.
type request struct {
	method, path, body string
	status             int
	contains           string // in the body, or "Name: value" of a header
	headers            []string
}

func (a *api) table(list []request) {
	a.t.Helper()
	for _, rq := range list {
		resp, body := a.do(rq.method, rq.path, rq.body, rq.headers...)
		name, value, isHeader := strings.Cut(rq.contains, ": ")
		found := strings.Contains(body, rq.contains) || isHeader && strings.Contains(strings.Join(resp.Header.Values(name), ","), value)
		if resp.StatusCode != rq.status || !found {
			a.t.Errorf("%s %s %s: %d, want %d with %q\n%v\n%s", rq.method, rq.path, rq.body, resp.StatusCode, rq.status, rq.contains, resp.Header, body)
		}
		if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			a.t.Errorf("%s %s: headers %v", rq.method, rq.path, resp.Header)
		}
	}
}

func TestFacets(t *testing.T) {
	a := start(t, Options{})
	const f = "/v1/facets/acme/notes"
	a.table([]request{
		{"GET", f, "", 404, `"code":"not_found"`, nil},
		{"GET", f, "", 404, `facet acme/notes does not exist`, nil}, // looking did not create it
		{"DELETE", f, "", 404, `"not_found"`, nil},
		{"GET", f + "/export", "", 404, `"not_found"`, nil},
		{"POST", f + "/move", `{"to":"n1"}`, 404, `"not_found"`, nil},
		{"GET", "/v1/facets?tenant=acme", "", 200, `{"facets":[],"more":false}`, nil},
		{"PUT", f, "", 201, `"tenant":"acme","facet":"notes","incarnation":"`, nil},
		{"PUT", f, "", 200, `"owner":"n1","owner_url":"http://127.0.0.1:7400","epoch":1,"replicas":["n1","n2","n3"],"state":"active","active":true,"pinned":false,"size_bytes":`, nil},
		{"GET", f, "", 200, `"facet":"notes"`, nil},
		{"GET", f + "/", "", 200, `"facet":"notes"`, nil},
		{"GET", "//v1///facets/acme//notes", "", 200, `"facet":"notes"`, nil},
		{"HEAD", f, "", 200, "Content-Type: application/json", nil},
		{"GET", f + "?x=1", "", 400, `unknown query parameter \"x\"`, nil},
		{"POST", f, "", 405, "Allow: GET, PUT, DELETE", nil},
		{"PUT", "/v1/facets/acme/b", "", 201, "", nil},
		{"PUT", "/v1/facets/acme/c", "", 201, "", nil},
		{"PUT", "/v1/facets/other/x", "", 201, "", nil},
		{"GET", "/v1/facets?tenant=acme&limit=2", "", 200, `"more":true,"next":"/v1/facets?tenant=acme&after=c&limit=2"}`, nil},
		{"GET", "/v1/facets?tenant=acme&after=c&limit=2", "", 200, `"facet":"notes"`, nil},
		{"GET", "/v1/facets?tenant=acme&after=notes", "", 200, `{"facets":[],"more":false}`, nil},
		{"GET", "/v1/facets", "", 400, `write /v1/facets?tenant=TENANT`, nil},
		{"GET", "/v1/facets?tenant=A", "", 400, `tenant name \"A\" is not valid`, nil},
		{"GET", "/v1/facets?tenant=acme&limit=0", "", 400, `limit is a number`, nil},
		{"GET", "/v1/facets?tenant=acme&limit=1001", "", 400, `limit is a number`, nil},
		{"GET", "/v1/facets?tenant=acme&after=" + strings.Repeat("a", 129), "", 400, `after`, nil},
		{"PUT", "/v1/facets/acme/_x", "", 400, `facet name \"_x\" is not valid`, nil},
		{"PUT", "/v1/facets/acme", "", 404, "tenant=acme", nil},
		{"GET", "/v1/facets/acme/notes/list", "", 404, "export, import, clone, move, pin and recover", nil},
		{"POST", f + "/move", `{"to":"n1"}`, 200, `"owner":"n1"`, nil}, // it is there
		{"POST", f + "/move", `{"to":"n4"}`, 404, `there is no node n4 in this cluster; the nodes are n1, n2, n3`, nil},
		{"POST", f + "/move", `{"to":"N 2"}`, 400, `node id`, nil},
		{"POST", f + "/move", `{"too":"n2"}`, 400, `unknown field \"too\"`, nil},
		{"POST", f + "/move", `{}`, 400, `send {\"to\":\"NODE\"}`, nil},
		{"POST", f + "/move", ``, 400, `not valid JSON`, nil},
		{"GET", f + "/move", "", 405, "Allow: POST", nil},
		{"DELETE", f, "", 204, "", nil},
		{"GET", f, "", 404, "", nil},
	})
}

func TestExportAndImport(t *testing.T) {
	a := start(t, Options{})
	a.exec(200, "CREATE TABLE t (a); INSERT INTO t VALUES (1), (2)")
	resp, file := a.do("GET", "/v1/facets/acme/notes/export", "")
	if resp.StatusCode != 200 || !strings.HasPrefix(file, "SQLite format 3\x00") || resp.ContentLength != int64(len(file)) ||
		resp.Header.Get("Content-Type") != "application/vnd.sqlite3" || resp.Header.Get("Facet-Position") == "" ||
		resp.Header.Get("Content-Disposition") != `attachment; filename="acme-notes.sqlite"` {
		t.Fatalf("export: %d, %d bytes, %v", resp.StatusCode, len(file), resp.Header)
	}
	const copyPath = "/v1/facets/acme/copy"
	a.table([]request{
		{"HEAD", "/v1/facets/acme/notes/export", "", 200, "Content-Type: application/vnd.sqlite3", nil},
		{"PUT", copyPath + "/import", "no database at all" + strings.Repeat("x", 1000), 422, `"not_acceptable"`, nil},
		{"GET", copyPath, "", 404, "", nil},
		{"PUT", copyPath + "/import", file, 201, `"facet":"copy"`, nil},
		{"PUT", copyPath + "/import", file, 409, `"already_exists"`, nil},
		{"PUT", copyPath + "/import?replace=true", file, 200, `"facet":"copy"`, nil},
		{"PUT", copyPath + "/import?replace=perhaps", file, 400, `replace is true or false`, nil},
		{"POST", copyPath + "/import", file, 405, "Allow: PUT", nil},
		{"POST", "/v1/db/acme/copy/exec", "SELECT sum(a) AS s FROM t", 200, `{"s":3}`, nil},
	})
}

// brokenExport is a file that ends before its size.
type brokenExport struct{ service.Service }

func (brokenExport) Export(context.Context, facet.Name) (service.Export, error) {
	return cutShort{}, nil
}

type cutShort struct{}

func (cutShort) Size() int64              { return 1 << 20 }
func (cutShort) Position() facet.Position { return facet.Position{Epoch: 1, Seq: 1} }
func (cutShort) Close() error             { return nil }
func (cutShort) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(make([]byte, 1<<16))
	return int64(n), errors.Join(err, errors.New("the disk went away"))
}

func TestBrokenExportIsSeen(t *testing.T) {
	svc := fakeservice.New(t.TempDir())
	srv := httptest.NewServer(New(brokenExport{svc}, Options{Log: slog.New(slog.DiscardHandler)}))
	defer srv.Close()
	resp, err := http.Get(srv.URL + "/v1/facets/acme/notes/export")
	if err != nil {
		return // broken off before a byte was sent
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("an export cut short looks whole")
	}
}

func TestOperatorEndpoints(t *testing.T) {
	a := start(t, Options{Version: "v9"})
	a.table([]request{
		{"GET", "/", "", 200, "facetd v9: a SQLite database", nil},
		{"GET", "/", "", 200, a.url + "/v1/db/acme/notes/", nil},
		{"GET", "/livez", "", 200, "ok\n", nil},
		{"HEAD", "/livez", "", 200, "", nil},
		{"GET", "/readyz", "", 200, "ready\n", nil},
		{"GET", "/readyz?verbose", "", 200, "[+] disk\n[+] placement\nready\n", nil},
		{"GET", "/readyz?why", "", 400, "unknown query parameter", nil},
		{"GET", "/metrics", "", 200, "facetd_facets 0", nil},
		{"GET", "/metrics", "", 200, "Content-Type: text/plain; version=0.0.4", nil},
		{"GET", "/v1/cluster", "", 200, `{"id":"c1","self":"n1","leader":"n1","term":3,"applied":42,"facets":0,"replicas":3,"nodes":[`, nil},
		{"GET", "/v1/cluster", "", 200, `{"id":"n2","state":"alive","leader":false,"voter":true,"api":"10.0.0.2:7400","peer":"10.0.0.2:7401","zone":"z2","version":"test","boot_id":"b0000000000000000000000000000002","store_id":"50000000000000000000000000000002","owned":100,"held":200,"lease_age_ms":100}`, nil},
		{"GET", "/v1/db/acme/notes/", "", 200, `"libsql_url":"` + a.url + `/v1/db/acme/notes/"`, nil},
	})
	a.svc.NotReady = errors.New("no leader")
	a.table([]request{
		{"GET", "/readyz", "", 503, "not ready\n", nil},
		{"GET", "/readyz?verbose", "", 503, "[+] disk\n[-] placement: no leader\nnot ready\n", nil},
		{"GET", "/livez", "", 200, "ok\n", nil},
	})
}

func TestWrongTurns(t *testing.T) {
	a := start(t, Options{})
	a.table([]request{
		{"GET", "/nothing", "", 404, `GET / lists the endpoints`, nil},
		{"POST", "/", "", 405, "Allow: GET", nil},
		{"POST", "/", "", 405, `"hint":"use GET here"`, nil},
		{"GET", execPath, "", 405, "Allow: POST", nil},
		{"POST", "/v1/db/acme/notes/", "", 405, "Allow: GET", nil},
		{"POST", "/v1/db/acme/notes/query", "", 404, "exec, v2/pipeline", nil},
		{"POST", "/v1/db/acme/no/tes/exec", "", 404, "a facet's name has no slash", nil},
		{"POST", "/v1/db/acme/no%2Ftes/exec", "", 404, "a facet's name has no slash", nil},
		{"POST", "/v1/db/Acme/notes/exec", "", 400, `tenant name \"Acme\"`, nil},
		{"POST", "/v1/db/acme/v2/pipeline", "", 404, `"code":"NO_FACET_IN_URL"`, nil},
		{"POST", "/v1/db/acme/v3/cursor", "", 404, `/v1/db/acme/FACET/, with the slash at its end"`, nil},
		{"POST", "/v1/db/v2/pipeline", "", 404, `/v1/db/TENANT/FACET/`, nil},
		{"POST", "/v1/db/acme/exec", "SELECT 1", 404, `/v1/db/acme/FACET/exec`, nil},
		{"POST", "/v2/pipeline", "", 404, `/v1/db/TENANT/FACET/`, nil},
		{"GET", "/v1/db/acme/v2", "", 404, `NO_FACET_IN_URL`, nil},
		{"GET", "/v1/db/acme/notes/v2", "", 200, `"version":"v2"`, nil},
		{"GET", "/v1/db/acme/notes/v3/", "", 200, `"version":"v3"`, nil},
		{"GET", "/v1/db/acme/notes/v3-protobuf", "", 404, `ENCODING_NOT_SUPPORTED`, nil},
		{"POST", "/v1/db/acme/notes/v3-protobuf/pipeline", "", 404, `ENCODING_NOT_SUPPORTED`, nil},
		{"POST", "/v1/db/acme/notes/v3", "", 405, `METHOD_NOT_ALLOWED`, nil},
		{"GET", "/v1/db/acme/notes/v3/pipeline", "", 405, "Allow: POST", nil},
		{"POST", "/v1/db/Acme/notes/v3/pipeline", "{}", 400, `"error":"tenant name`, nil},
		{"POST", "//v1/db/acme/notes//v2/pipeline", `{"requests":[]}`, 200, `"results":[]`, nil},
		{"POST", "/v1/db/acme/v2/v2/pipeline", `{"requests":[]}`, 200, `"results":[]`, nil}, // a facet may have that name
		{"POST", "/v1/db/acme/v3/exec", `SELECT 1 AS a`, 200, `{"a":1}`, nil},
	})
}

func TestRequestIDs(t *testing.T) {
	a := start(t, Options{})
	seen := map[string]bool{}
	for in, taken := range map[string]bool{"abc-1.2_X": true, "": false, "a b": false, strings.Repeat("x", 65): false, "a\"b": false} {
		var headers []string
		if in != "" {
			headers = []string{"X-Request-Id: " + in}
		}
		resp, _ := a.do("GET", "/livez", "", headers...)
		got := resp.Header.Get("X-Request-Id")
		if (got == in) != taken || got == "" || seen[got] {
			t.Errorf("%q became %q", in, got)
		}
		seen[got] = true
	}
}

func TestPanicsEndOneRequestOnly(t *testing.T) {
	a := start(t, Options{})
	a.svc.Hook = func(call *service.Call) bool {
		if string(call.Request.Steps[0].SQL) == "PANIC" {
			panic("a bug")
		}
		return false
	}
	a.table([]request{
		{"POST", execPath, "PANIC", 500, `"code":"internal","message":"the server made a mistake; its log has it under request req-7"`, []string{"X-Request-Id: req-7"}},
		{"POST", execPath, "SELECT 1 AS a", 200, `{"a":1}`, nil},
	})
	if log := a.log.String(); !strings.Contains(log, "a bug") || !strings.Contains(log, "req-7") || !strings.Contains(log, "goroutine") {
		t.Errorf("log: %s", log)
	}
}

// A browser's simple requests reach any server; those of foreign pages are
// refused, also where a name was made to point here.
func TestForeignPages(t *testing.T) {
	a := start(t, Options{LoopbackHosts: true, TrustedOrigins: []string{"https://app.example"}})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	const drop = "CREATE TABLE evil (a)"
	a.table([]request{
		{"POST", execPath, drop, 403, "another origin", []string{"Origin: https://evil.example"}},
		{"POST", execPath, drop, 403, "another origin", []string{"Sec-Fetch-Site: cross-site"}},
		{"POST", "/v1/db/acme/notes/v2/pipeline", `{"requests":[]}`, 403, "another origin", []string{"Sec-Fetch-Site: cross-site"}},
		{"PUT", "/v1/facets/acme/evil", "", 403, "another origin", []string{"Sec-Fetch-Site: cross-site"}},
		{"POST", execPath, drop, 403, "does not answer to the name", []string{"Host: evil.example:" + port}},
		{"GET", "/v1/facets?tenant=acme", "", 403, "use localhost", []string{"Host: evil.example"}},
		{"GET", "/v1/facets?tenant=acme", "", 200, `"facets":[]`, []string{"Host: localhost:" + port}},
		{"GET", "/livez", "", 200, `ok`, []string{"Host: [::1]:7400"}},
		{"POST", execPath, "SELECT 1 AS a", 200, `{"a":1}`, []string{"Origin: https://app.example", "Sec-Fetch-Site: cross-site"}},
		{"POST", execPath, "SELECT 1 AS a", 200, `{"a":1}`, []string{"Origin: " + a.url, "Sec-Fetch-Site: same-origin"}},
	})
}

// The native protocol gets the bare connection, with its own path below.
func TestNative(t *testing.T) {
	hijacked := make(chan string, 4)
	a := start(t, Options{NativePath: "/v1/native", Native: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		hijacked <- r.URL.Path
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: facet/1\r\n\r\n")
	})})
	for _, path := range []string{"/v1/native", "/v1/native/x"} {
		resp, _ := a.do("GET", path, "", "Connection: Upgrade", "Upgrade: facet/1")
		if resp.StatusCode != 101 || <-hijacked != path {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	a.table([]request{{"GET", "/v1/nativex", "", 404, "", nil}})
	if err := (&Options{NativePath: "x", Native: http.NotFoundHandler()}).Validate(); err == nil {
		t.Error("a path without slash is accepted")
	}
	if err := (&Options{NativePath: "/x"}).Validate(); err == nil {
		t.Error("a path without handler is accepted")
	}
	if err := (&Options{TrustedOrigins: []string{"app.example"}}).Validate(); err == nil {
		t.Error("an origin without scheme is accepted")
	}
}

// HTTP/2 without TLS, for clients that know it is there, on the same port.
func TestHTTP2WithoutTLS(t *testing.T) {
	a := start(t, Options{})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{}}
	defer tr.CloseIdleConnections()
	for range 3 {
		resp, err := (&http.Client{Transport: tr}).Post(a.url+execPath, "application/sql", strings.NewReader("SELECT 1 AS a"))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || !strings.Contains(string(body), `{"a":1}`) {
			t.Fatalf("%s %v: %s", resp.Proto, err, body)
		}
	}
}

// Headers without end do not get far.
func TestHeaderLimit(t *testing.T) {
	a := start(t, Options{})
	resp, _ := a.do("GET", "/livez", "", "X-Long: "+strings.Repeat("x", MaxHeaderBytes+8<<10))
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// A client that goes away interrupts what it asked for.
func TestClientGone(t *testing.T) {
	a := start(t, Options{})
	running, done := make(chan struct{}), make(chan error, 1)
	a.svc.Hook = func(call *service.Call) bool {
		tell := call.Done
		call.Done = func(c *service.Call) {
			done <- c.Err
			tell(c)
		}
		close(running)
		return false
	}
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", a.url+execPath,
		bytes.NewReader([]byte("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r")))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-running
		hangUp()
	}()
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
		t.Error("an endless statement was answered")
	}
	if err := <-done; !errors.Is(err, facet.ErrSQL) && !errors.Is(err, facet.ErrCanceled) && err != nil {
		t.Errorf("it ended with %v", err)
	}
}
