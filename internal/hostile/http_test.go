package hostile

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// request is one hostile HTTP request and the refusal it is answered with.
type request struct {
	name    string
	method  string
	path    string
	body    string
	headers []string // "Name: value"
	status  int      // 0: any refusal
	code    string
	text    string // in message, hint or limit
}

const (
	den     = "/v1/db/mallory/den/"
	denExec = den + "exec"
	asJSON  = "Content-Type: application/json"
)

// refuse sends requests with mallory's token and wants each refused as the table says.
func (w *world) refuse(list []request) {
	t := w.t
	defer func() { w.t = t }()
	for i := range list {
		rq := &list[i]
		t.Run(rq.name, func(t *testing.T) {
			w.t = t
			w.refuseOne(w.mallory, rq)
			w.unharmed()
		})
	}
}

func (w *world) refuseOne(tok string, rq *request) {
	w.t.Helper()
	status, body, head := w.call(tok, rq.method, rq.path, rq.body, rq.headers...)
	switch {
	case rq.status != 0 && status != rq.status, status < 300:
		w.t.Errorf("%s %.100s: %d %.300s, want %d", rq.method, rq.path, status, body, rq.status)
		return
	case rq.method == http.MethodHead:
		return
	case head.Get("X-Request-Id") == "":
		w.t.Errorf("no request id: %v", head)
	}
	code, message := w.clear(body)
	if !strings.EqualFold(code, rq.code) || !strings.Contains(message, rq.text) {
		w.t.Errorf("%s %.100s: %s: %.300s; want %s and %q", rq.method, rq.path, code, message, rq.code, rq.text)
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(s))
	z.Close()
	return b.String()
}

func httpInputs() []request {
	const key = `"key":{"client":"00112233445566778899aabbccddeeff","n":1}`
	list := []request{
		// The body of exec.
		{"empty body", "POST", denExec, "", nil, 400, badRequest, "no SQL"},
		{"empty JSON", "POST", denExec, "", []string{asJSON}, 400, badRequest, "JSON"},
		{"JSON cut off", "POST", denExec, `{"sql":"SELECT`, []string{asJSON}, 400, badRequest, "JSON"},
		{"JSON and more", "POST", denExec, `{"sql":"SELECT 1"} {"sql":"DROP TABLE t"}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"JSON array", "POST", denExec, `["SELECT 1"]`, []string{asJSON}, 400, badRequest, ""},
		{"JSON null", "POST", denExec, `null`, []string{asJSON}, 400, badRequest, ""},
		{"sql twice", "POST", denExec, `{"sql":"SELECT 1","sql":"DROP TABLE t"}`, []string{asJSON}, 400, badRequest, "sql"},
		{"sql twice, escaped", "POST", denExec, `{"sql":"SELECT 1","\u0073ql":"DROP TABLE t"}`, []string{asJSON}, 400, badRequest, "sql"},
		{"sql and statements", "POST", denExec, `{"sql":"SELECT 1","statements":["SELECT 2"]}`, []string{asJSON}, 400, badRequest, "statements"},
		{"args twice", "POST", denExec, `{"sql":"SELECT ?","args":[1],"args":[2]}`, []string{asJSON}, 400, badRequest, "args"},
		{"unknown field", "POST", denExec, `{"sql":"SELECT 1","__proto__":{}}`, []string{asJSON}, 400, badRequest, "__proto__"},
		{"unknown field of 100 KB", "POST", denExec, `{"` + rep("x", 100_000) + `":1}`, []string{asJSON}, 400, badRequest, "unknown field"},
		{"deep JSON", "POST", denExec, rep(`{"args":[`, 50_000), []string{asJSON}, 400, badRequest, ""},
		{"deep arguments", "POST", denExec, `{"sql":"SELECT ?","args":[` + rep("[", 100_000) + rep("]", 100_000) + `]}`, []string{asJSON}, 400, badRequest, ""},
		{"object as an argument", "POST", denExec, `{"sql":"SELECT ?","args":[{"a":1}]}`, []string{asJSON}, 400, badRequest, ""},
		{"NaN", "POST", denExec, `{"sql":"SELECT ?","args":[NaN]}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"NaN as text", "POST", denExec, `{"sql":"SELECT ?","args":[{"float":"NaN"}]}`, []string{asJSON}, 400, badRequest, ""},
		{"Infinity", "POST", denExec, `{"sql":"SELECT ?","args":[-Infinity]}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"integer of 65 bits", "POST", denExec, `{"sql":"SELECT ?","args":[18446744073709551616]}`, []string{asJSON}, 400, badRequest, "64"},
		{"leading zero", "POST", denExec, `{"sql":"SELECT ?","args":[007]}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"a number of 100,000 digits", "POST", denExec, `{"sql":"SELECT ?","args":[` + rep("9", 100_000) + `]}`, []string{asJSON}, 400, badRequest, ""},
		{"hexadecimal", "POST", denExec, `{"sql":"SELECT ?","args":[0x10]}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"base64 nonsense", "POST", denExec, `{"sql":"SELECT ?","args":[{"blob":"!!!!"}]}`, []string{asJSON}, 400, badRequest, "base64"},
		{"lone surrogate", "POST", denExec, `{"sql":"SELECT '\ud800'","sq":1}`, []string{asJSON}, 400, badRequest, ""},
		{"bad escape", "POST", denExec, `{"sql":"\x"}`, []string{asJSON}, 400, badRequest, "JSON"},
		{"control character in a string", "POST", denExec, "{\"sql\":\"SELECT\x001\"}", []string{asJSON}, 400, badRequest, "JSON"},
		{"invalid UTF-8 in JSON", "POST", denExec, "{\"sql\":\"SELECT '\xff\xfe'\"}", []string{asJSON}, 400, badRequest, ""},
		{"invalid UTF-8 as SQL", "POST", denExec, "SELECT \xff\xfe", []string{"Content-Type: application/sql"}, 422, codeSQL, ""},
		{"UTF-16", "POST", denExec, "\xff\xfeS\x00E\x00L\x00", []string{asJSON}, 400, badRequest, "JSON"},
		{"5,000 statements", "POST", denExec, `{"statements":["SELECT 1"` + rep(`,"SELECT 1"`, 5000) + `]}`, []string{asJSON}, 413, tooMuch, "4096"},
		{"100,000 arguments", "POST", denExec, `{"sql":"SELECT 1","args":[1` + rep(",1", 100_000) + `]}`, []string{asJSON}, 413, tooMuch, "32766"},
		{"no statements", "POST", denExec, `{"statements":[]}`, []string{asJSON}, 400, badRequest, ""},
		{"negative time", "POST", denExec, `{"sql":"SELECT 1","timeout_ms":-1}`, []string{asJSON}, 400, badRequest, "timeout_ms"},
		{"huge time", "POST", denExec + "?timeout_ms=99999999999999999999", "SELECT 1", nil, 400, badRequest, "timeout_ms"},
		{"atomic with commit", "POST", denExec, `{"statements":["SELECT 1","COMMIT"],"atomic":true}`, []string{asJSON}, 0, denied, "BEGIN"},
		{"transaction of nobody", "POST", denExec, `{"tx":"00112233445566778899aabbccddeeff","sql":"SELECT 1"}`, []string{asJSON}, 409, "tx_closed", "transaction"},
		{"transaction that is none", "POST", denExec, `{"tx":"../../etc","sql":"SELECT 1"}`, []string{asJSON}, 400, badRequest, "tx"},
		{"commit and roll back", "POST", denExec, `{"begin":true,"commit":true,"rollback":true,"sql":"SELECT 1"}`, []string{asJSON}, 400, badRequest, "begin"},
		{"key in a transaction", "POST", denExec, `{"begin":true,"sql":"SELECT 1",` + key + `}`, []string{asJSON}, 400, badRequest, ""},
		{"key number 0", "POST", denExec, `{"sql":"SELECT 1","key":{"client":"00112233445566778899aabbccddeeff","n":0}}`, []string{asJSON}, 400, badRequest, ""},
		{"key of 300 bytes", "POST", denExec, "SELECT 1", []string{"Idempotency-Key: " + rep("k", 300)}, 413, tooMuch, "255"},
		{"two keys", "POST", denExec, `{"sql":"SELECT 1",` + key + `}`, []string{asJSON, "Idempotency-Key: a"}, 400, badRequest, ""},
		{"read mode", "POST", denExec + "?read=dirty", "SELECT 1", nil, 400, badRequest, "read"},
		{"unknown parameter", "POST", denExec + "?admin=true", "SELECT 1", nil, 400, badRequest, "admin"},
		{"malformed query", "POST", denExec + "?a=%zz", "SELECT 1", nil, 400, badRequest, "query"},
		{"read-only write", "POST", denExec + "?read_only=true", "CREATE TABLE w(x)", nil, 403, "read_only", "writes"},
		{"content type XML", "POST", denExec, "<sql/>", []string{"Content-Type: application/xml"}, 415, badRequest, "application/json"},
		{"content type protobuf", "POST", denExec, "x", []string{"Content-Type: application/x-protobuf"}, 415, badRequest, "application/json"},
		{"form with files", "POST", denExec, "--x\r\n", []string{"Content-Type: multipart/form-data; boundary=x"}, 415, badRequest, "application/json"},
		{"gzip", "POST", denExec, zipped("SELECT 1"), []string{"Content-Encoding: gzip"}, 415, badRequest, "Content-Encoding"},
		{"gzip bomb", "POST", denExec, zipped(rep("SELECT 1;", 1<<20)), []string{"Content-Encoding: gzip", asJSON}, 415, badRequest, "Content-Encoding"},
		{"gzip twice", "POST", denExec, zipped(zipped("SELECT 1")), []string{"Content-Encoding: gzip, gzip"}, 415, badRequest, "Content-Encoding"},
		{"brotli", "POST", denExec, "\x1b", []string{"Content-Encoding: br"}, 415, badRequest, "Content-Encoding"},
		{"gzip to a management request", "POST", "/v1/facets/mallory/den/clone", zipped(`{"to":"mallory/x"}`), []string{"Content-Encoding: gzip"}, 415, badRequest, "Content-Encoding"},

		// Paths and names.
		{"dots in the path", "GET", "/v1/facets/mallory/../victim/vault", "", nil, 400, badRequest, "not valid"},
		{"dots, encoded", "GET", "/v1/facets/mallory/%2e%2e/victim/vault", "", nil, 400, badRequest, "not valid"},
		{"slash in a name, encoded", "GET", "/v1/facets/mallory%2F..%2Fvictim/vault", "", nil, 400, badRequest, "not valid"},
		{"NUL in a name", "GET", "/v1/facets/mallory/den%00vault", "", nil, 400, badRequest, "not valid"},
		{"line break in a name", "GET", "/v1/facets/mallory/a%0d%0aX-Evil:%201", "", nil, 400, badRequest, "not valid"},
		{"ten kilobytes of name", "GET", "/v1/facets/mallory/" + rep("a", 10_000), "", nil, 400, badRequest, "not valid"},
		{"name in Cyrillic", "GET", "/v1/facets/victi%D0%BC/vault", "", nil, 400, badRequest, "not valid"},
		{"name in capitals", "GET", "/v1/facets/VICTIM/vault", "", nil, 400, badRequest, "not valid"},
		{"name of invalid UTF-8", "GET", "/v1/facets/%ff%fe/x", "", nil, 400, badRequest, "not valid"},
		{"name of dots", "PUT", "/v1/facets/mallory/..", "", nil, 0, badRequest, ""},
		{"name of facetd", "PUT", "/v1/facets/mallory/_facetd", "", nil, 400, badRequest, "not valid"},
		{"Windows path", "GET", `/v1/facets/mallory/..%5c..%5cvictim`, "", nil, 400, badRequest, "not valid"},
		{"tenant of all", "GET", "/v1/facets?tenant=*", "", nil, 400, badRequest, "not valid"},
		{"two tenants", "GET", "/v1/facets?tenant=mallory&tenant=victim", "", nil, 400, badRequest, "tenant"},
		{"limit", "GET", "/v1/facets?tenant=mallory&limit=1e9", "", nil, 400, badRequest, "limit"},
		{"no endpoint", "GET", "/debug/pprof/heap", "", nil, 404, "not_found", "GET / lists"},
		{"environment", "GET", "/debug/vars", "", nil, 404, "not_found", "GET / lists"},
		{"absolute path of a file", "GET", "/etc/passwd", "", nil, 404, "not_found", "GET / lists"},
		{"method", "PROPFIND", denExec, "", nil, 405, badRequest, "POST"},
		{"method of 200 bytes", rep("X", 200), denExec, "", nil, 405, badRequest, "POST"},
		{"GET with SQL", "GET", denExec + "?sql=DROP", "", nil, 405, badRequest, "POST"},
		{"TRACE", "TRACE", "/", "", nil, 405, badRequest, "GET"},
		{"override of the method", "POST", "/v1/facets/mallory/den", "", []string{"X-Http-Method-Override: DELETE"}, 405, badRequest, "GET"},

		// What is for supervisors.
		{"move", "POST", "/v1/facets/mallory/den/move", `{"to":"node-1"}`, nil, 403, "forbidden", "supervisor"},
		{"pin", "PUT", "/v1/facets/mallory/den/pin", "", nil, 403, "forbidden", "supervisor"},
		{"recover", "POST", "/v1/facets/mallory/den/recover", `{"from":"node-1"}`, nil, 403, "forbidden", "supervisor"},
		{"drain", "POST", "/v1/operations", `{"kind":"drain","node":"node-1"}`, nil, 403, "forbidden", "supervisor"},
		{"metrics", "GET", "/metrics", "", nil, 403, "forbidden", "supervisor"},
		{"own limits", "PATCH", "/v1/tenants/mallory", `{"facet_bytes":"none"}`, nil, 403, "forbidden", "supervisor"},
		{"defaults", "PATCH", "/v1/tenant-defaults", `{"facets":0}`, nil, 403, "forbidden", "supervisor"},
		{"freeze the victim", "PUT", "/v1/tenants/victim/freeze", "", nil, 403, "forbidden", "supervisor"},
		{"busiest", "GET", "/v1/busiest-tenants", "", nil, 403, "forbidden", "supervisor"},
		{"all tenants", "GET", "/v1/tenants", "", nil, 403, "forbidden", "supervisor"},
	}
	for _, tp := range []string{"garbage", "00-00000000000000000000000000000000-0000000000000000-00", "ff-" + rep("a", 5000)} {
		list = append(list, request{"traceparent " + tp[:7], "GET", "/v1/nothing", "", []string{"Traceparent: " + tp, "X-Request-Id: " + rep("<script>", 100)}, 404, "not_found", ""})
	}
	return list
}

func hranaInputs() []request {
	pipe := func(requests string) string { return `{"requests":[` + requests + `]}` }
	one := `{"type":"execute","stmt":{"sql":"SELECT 1"}}`
	const p = den + "v3/pipeline"
	return []request{
		{"empty", "POST", p, "", nil, 400, badRequest, "JSON"},
		{"array", "POST", p, "[]", nil, 400, badRequest, ""},
		{"unknown request", "POST", p, pipe(`{"type":"shutdown"}`), nil, 400, badRequest, "shutdown"},
		{"no type", "POST", p, pipe(`{}`), nil, 400, badRequest, "type"},
		{"type twice", "POST", p, pipe(`{"type":"close","type":"execute","stmt":{"sql":"SELECT 1"}}`), nil, 0, badRequest, ""},
		{"no statement", "POST", p, pipe(`{"type":"execute"}`), nil, 400, badRequest, "stmt"},
		{"5,000 requests", "POST", p, pipe(one + rep(","+one, 5000)), nil, 413, tooMuch, "4096"},
		{"20,000 steps", "POST", p, pipe(`{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"}}` + rep(`,{"stmt":{"sql":"SELECT 1"}}`, 5000) + `]}}`), nil, 413, tooMuch, "4096"},
		{"deep condition", "POST", p, pipe(`{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":` + rep(`{"type":"not","cond":`, 1000) + `{"type":"ok","step":0}` + rep("}", 1000) + `}]}}`), nil, 413, tooMuch, "16 levels"},
		{"condition of the future", "POST", p, pipe(`{"type":"batch","batch":{"steps":[{"stmt":{"sql":"SELECT 1"},"condition":{"type":"ok","step":7}}]}}`), nil, 0, badRequest, ""},
		{"integer as a number", "POST", p, pipe(`{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":1.5}]}}`), nil, 400, badRequest, ""},
		{"integer of 65 bits", "POST", p, pipe(`{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":"18446744073709551616"}]}}`), nil, 400, badRequest, ""},
		{"unknown value", "POST", p, pipe(`{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"pointer","value":"1"}]}}`), nil, 400, badRequest, "pointer"},
		{"base64 nonsense", "POST", p, pipe(`{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"blob","base64":"*"}]}}`), nil, 400, badRequest, "base64"},
		{"args and named_args", "POST", p, pipe(`{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"null"}],"named_args":[{"name":"a","value":{"type":"null"}}]}}`), nil, 400, badRequest, "named_args"},
		{"sql_id of text", "POST", p, pipe(`{"type":"execute","stmt":{"sql_id":"one"}}`), nil, 400, badRequest, ""},
		{"sql_id of 64 bits", "POST", p, pipe(`{"type":"store_sql","sql_id":99999999999,"sql":"SELECT 1"}`), nil, 400, badRequest, ""},
		{"garbage baton", "POST", p, `{"baton":"AAAA","requests":[]}`, nil, 400, "BATON_INVALID", "new stream"},
		{"forged baton", "POST", p, `{"baton":"` + rep("A", 56) + `","requests":[]}`, nil, 400, "BATON_INVALID", "new stream"},
		{"baton of a megabyte", "POST", p, `{"baton":"` + rep("A", 1<<20) + `","requests":[]}`, nil, 400, badRequest, "baton"},
		{"baton is a number", "POST", p, `{"baton":7,"requests":[]}`, nil, 400, badRequest, ""},
		{"protobuf", "POST", den + "v3-protobuf/pipeline", "\x0a", nil, 404, "ENCODING_NOT_SUPPORTED", "JSON"},
		{"WebSocket", "GET", den + "v3/pipeline", "", []string{"Upgrade: websocket", "Connection: Upgrade"}, 405, "METHOD_NOT_ALLOWED", "POST"},
		{"cursor without a batch", "POST", den + "v3/cursor", "{}", nil, 400, badRequest, "batch"},
		{"unknown version", "POST", den + "v1/execute", "{}", nil, 404, "NOT_FOUND", "v2/pipeline"},
		{"no facet", "POST", "/v1/db/mallory/v2/pipeline", pipe(one), nil, 404, "NO_FACET_IN_URL", "slash at its end"},
		{"hops", "POST", "/v1/db/mallory/den/v2/pipeline", pipe(`{"type":"execute"}`), []string{"Facet-Hops: 99999999999999999999"}, 0, badRequest, ""},
	}
}

// TestHTTP sends requests that are well-formed HTTP and otherwise not what they should be.
func TestHTTP(t *testing.T) {
	w := newWorld(t, nil)
	w.mustExec(w.mallory, "mallory/den", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	was := inUse()
	h, r := httpInputs(), hranaInputs()
	t.Run("plain", func(t *testing.T) { w.t = t; w.refuse(h) })
	t.Run("Hrana", func(t *testing.T) { w.t = t; w.refuse(r) })
	w.t = t
	w.back(was)
	t.Logf("%d requests of plain HTTP, %d of Hrana", len(h), len(r))
}

// frame is what a client sends on a bare connection, and how the answer begins: "" where
// the connection may end without one.
type frame struct {
	name   string
	bytes  string
	answer string
}

func rawInputs(w *world) []frame {
	auth := "Authorization: Bearer " + w.mallory + "\r\n"
	post := func(more, body string) string {
		return "POST " + denExec + " HTTP/1.1\r\nHost: x\r\n" + auth + more + "\r\n" + body
	}
	bad := "HTTP/1.1 400"
	return []frame{
		{"nothing but line breaks", rep("\r\n", 10_000), ""},
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n", bad},
		{"TLS to a plain port", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + rep("\x00", 160), ""},
		{"SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n", bad},
		{"Redis", "*1\r\n$4\r\nPING\r\n\r\n", bad},
		{"PostgreSQL", "\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n", ""},
		{"HTTP/0.9", "GET /\r\n\r\n", ""},
		{"expectation", "POST " + denExec + " HTTP/1.1\r\nHost: x\r\nExpect: 200-maybe\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 417"},
		{"HTTP/9.9", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "HTTP/1.1 505"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", bad},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", bad},
		{"host with a path", "GET / HTTP/1.1\r\nHost: a/b\\c\r\n\r\n", bad},
		{"header without a colon", "GET / HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", bad},
		{"header name with a space", "GET / HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer x\r\n\r\n", bad},
		{"header with NUL", "GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n", bad},
		{"folded header", "GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n " + w.mallory + "\r\n\r\n", "HTTP/1.1 40"},
		{"headers of 1 MB", "GET / HTTP/1.1\r\nHost: x\r\n" + rep("X-Fill: "+rep("y", 1000)+"\r\n", 1000) + "\r\n", "HTTP/1.1 431"},
		{"one header of 1 MB", "GET / HTTP/1.1\r\nHost: x\r\nCookie: " + rep("y", 1<<20) + "\r\n\r\n", "HTTP/1.1 431"},
		{"100,000 headers", "GET / HTTP/1.1\r\nHost: x\r\n" + rep("a:b\r\n", 100_000) + "\r\n", "HTTP/1.1 431"},
		{"URL of 1 MB", "GET /" + rep("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 431"},
		{"method without end", rep("G", 1<<20), ""},
		{"token of 60 KB", "GET /v1/cluster HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + rep("a", 60_000) + "\r\n\r\n", "HTTP/1.1 401"},
		{"two tokens", "GET /v1/cluster HTTP/1.1\r\nHost: x\r\n" + auth + auth + "\r\n", "HTTP/1.1 401"},
		{"length and chunks", post("Content-Length: 6\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n", "0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 400"},
		{"two lengths", post("Content-Length: 8\r\nContent-Length: 9\r\n", "SELECT 1;"), bad},
		{"two lengths in one", post("Content-Length: 8, 9\r\n", "SELECT 1;"), bad},
		{"negative length", post("Content-Length: -1\r\n", ""), bad},
		{"length with a sign", post("Content-Length: +8\r\n", "SELECT 1"), bad},
		{"length of 2^63", post("Content-Length: 9223372036854775808\r\n", ""), bad},
		{"length of 1 TB", post("Content-Length: 1099511627776\r\n", ""), "HTTP/1.1 413"},
		{"length that lies: less comes", post("Content-Length: 100\r\nConnection: close\r\n", "SELECT 1"), ""},
		{"length that lies: more comes", post("Content-Length: 8\r\n", "SELECT 1GARBAGE\r\n\r\n"), "HTTP/1.1 200"},
		{"unknown transfer coding", post("Transfer-Encoding: gzip\r\n", ""), "HTTP/1.1 501"},
		{"chunked twice", post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), "HTTP/1.1 501"},
		{"chunked with a tab", post("Transfer-Encoding:\tchunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"), "HTTP/1.1 501"},
		{"chunk size of nonsense", post("Transfer-Encoding: chunked\r\n", "zz\r\nSELECT 1\r\n0\r\n\r\n"), bad},
		{"chunk size of 2^64", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffffff\r\n"), bad},
		{"chunk extension without end", post("Transfer-Encoding: chunked\r\n", "1;"+rep("a", 1<<20)), ""},
		{"trailers of 1 MB", post("Transfer-Encoding: chunked\r\nTrailer: X\r\n", "8\r\nSELECT 1\r\n0\r\nX: "+rep("y", 1<<20)+"\r\n\r\n"), ""},
		{"absolute URL", "GET http://victim.example/metrics HTTP/1.1\r\nHost: x\r\n" + auth + "Connection: close\r\n\r\n", "HTTP/1.1 403"},
		{"CONNECT", "CONNECT victim.example:443 HTTP/1.1\r\nHost: victim.example:443\r\n\r\n", "HTTP/1.1 40"},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 "},
		{"upgrade to h2c", "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\r\n", "HTTP/1.1 200"},
		{"HTTP/2 and garbage", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rep("\xff", 1000), ""},
		{"HTTP/2 frame too long", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x00\x00\x00\x00\x00\x01", ""},
		{"HTTP/2 continuation flood", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + rep("\x00\x00\x00\x09\x00\x00\x00\x00\x01", 100_000), ""},
		{"HTTP/2 settings flood", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + rep("\x00\x00\x00\x04\x00\x00\x00\x00\x00", 50_000), ""},
		{"HTTP/2 ping flood", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + rep("\x00\x00\x08\x06\x00\x00\x00\x00\x00abcdefgh", 50_000), ""},
		{"1,000 requests at once", rep("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 1000), "HTTP/1.1 200"},
	}
}

// TestRawHTTP sends bytes that are not, or are hardly, HTTP.
func TestRawHTTP(t *testing.T) {
	w := newWorld(t, nil)
	w.mustExec(w.mallory, "mallory/den", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	was := inUse()
	list := rawInputs(w)
	for _, in := range list {
		t.Run(in.name, func(t *testing.T) {
			w.t = t
			out := w.raw(w.n.Addr(), time.Second/2, len(in.answer), []byte(in.bytes))
			if !strings.HasPrefix(out, in.answer) {
				t.Errorf("answer %.200q, want %q", out, in.answer)
			}
			if strings.Contains(out, "facet_") && strings.Contains(out, "# HELP") {
				t.Errorf("metrics came: %.200q", out)
			}
			w.unharmed()
		})
	}
	w.t = t
	w.back(was)
	t.Log(fmt.Sprint(len(list), " inputs"))
}
