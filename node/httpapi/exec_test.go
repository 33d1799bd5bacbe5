package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/service"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The golden file holds bodies for exec and the answers to them.
func TestExecGolden(t *testing.T) {
	const path = "testdata/exec.golden"
	a := start(t, Options{})
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	volatile := regexp.MustCompile(`"duration_ms":[0-9.e-]+`)
	var out bytes.Buffer
	for _, line := range strings.Split(strings.TrimSuffix(string(src), "\n"), "\n") {
		if strings.HasPrefix(line, "<") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		query, body, _ := strings.Cut(line, " ")
		resp, got := a.do("POST", execPath+strings.TrimPrefix(query, "exec"), strings.ReplaceAll(body, "⏎", "\n"))
		if !json.Valid([]byte(got)) || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: no JSON: %s", line, got)
		}
		got = strings.TrimSuffix(volatile.ReplaceAllString(got, `"duration_ms":0`), "\n")
		fmt.Fprintf(&out, "< %d %s\n", resp.StatusCode, strings.ReplaceAll(got, "\n", "\n<     "))
	}
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if out.String() != string(src) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", path, out.String())
	}
}

func TestContentTypes(t *testing.T) {
	a := start(t, Options{})
	const one = `{"sql":"SELECT 1 AS a"}`
	for _, tc := range []struct {
		header, body string
		status       int
	}{
		{"application/json", one, 200},
		{"application/json; charset=utf-8", one, 200},
		{"application/sql", "SELECT 1 AS a", 200},
		{"text/plain", "SELECT 1 AS a", 200},
		{"application/x-www-form-urlencoded", " \n" + one, 200},
		{"application/x-www-form-urlencoded", "SELECT 1 AS a", 200},
		{"application/x-www-form-urlencoded", `"SELECT 1 AS a"`, 200},
		{"application/json", "SELECT 1 AS a", 400},
		{"text/plain", one, 422},
		{"application/xml", one, 415},
	} {
		resp, body := a.do("POST", execPath, tc.body, "Content-Type: "+tc.header)
		if resp.StatusCode != tc.status || tc.status == 200 && !strings.Contains(body, `{"a":1}`) {
			t.Errorf("%s with %s: %d %s", tc.header, tc.body, resp.StatusCode, body)
		}
	}
}

// TestReadModes: what a request wants of its reads reaches the service.
func TestReadModes(t *testing.T) {
	a := start(t, Options{})
	var got facet.ReadMode
	a.svc.Hook = func(c *service.Call) bool {
		got = c.Request.Read
		return false
	}
	for _, tc := range []struct {
		query, body string
		want        facet.ReadMode
		status      int
	}{
		{"", "SELECT 1", facet.ReadOwner, 200},
		{"?read=quorum", "SELECT 1", facet.ReadQuorum, 200},
		{"", `{"sql":"SELECT 1","read":"quorum"}`, facet.ReadQuorum, 200},
		{"", `{"sql":"SELECT 1","read":"owner"}`, facet.ReadOwner, 200},
		{"?read=follower", "SELECT 1", facet.ReadFollower, 200},
		{"?read=fast", "SELECT 1", facet.ReadOwner, 400},
		{"", `{"sql":"SELECT 1","read":1}`, facet.ReadOwner, 400},
	} {
		got = facet.ReadOwner
		resp, body := a.do("POST", execPath+tc.query, tc.body)
		if resp.StatusCode != tc.status || got != tc.want {
			t.Errorf("%s %s: %d, %v: %s", tc.query, tc.body, resp.StatusCode, got, body)
		}
	}
}

// TestBookmarks: one is given where it was asked for, in every way a request can, and
// carried back.
func TestBookmarks(t *testing.T) {
	a := start(t, Options{})
	type answer struct{ Bookmark string }
	a.do("POST", execPath, "CREATE TABLE t (v)")
	_, body := a.do("POST", execPath, "SELECT 1")
	if strings.Contains(body, "bookmark") {
		t.Errorf("unasked: %s", body)
	}
	_, body = a.do("POST", execPath+"?bookmark=true", "INSERT INTO t VALUES (1)")
	given := decode[answer](t, body).Bookmark
	b, err := facet.ParseBookmark(given)
	if err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	var got facet.Bookmark
	a.svc.Hook = func(c *service.Call) bool {
		got = c.Request.After
		return false
	}
	other := b
	other.Facet[0]++
	for _, tc := range []struct {
		query, body string
		after       facet.Bookmark
		status      int
		gives       bool
	}{
		{"?bookmark=false", "SELECT 1", facet.Bookmark{}, 200, false},
		{"?bookmark=1", "SELECT 1", facet.Bookmark{}, 200, true},
		{"?bookmark=" + given, "SELECT 1", b, 200, true},
		{"", `{"sql":"SELECT 1","bookmark":true}`, facet.Bookmark{}, 200, true},
		{"", `{"sql":"SELECT 1","bookmark":false}`, facet.Bookmark{}, 200, false},
		{"", `{"sql":"SELECT 1","bookmark":"` + given + `"}`, b, 200, true},
		{"", `{"statements":["SELECT 1","SELECT 2"],"bookmark":"` + given + `"}`, b, 200, true},
		{"?bookmark=" + other.String(), "SELECT 1", other, 409, false},
		{"?bookmark=", "SELECT 1", facet.Bookmark{}, 409, false},
		{"?bookmark=" + given[1:], "SELECT 1", facet.Bookmark{}, 409, false},
		{"", `{"sql":"SELECT 1","bookmark":7}`, facet.Bookmark{}, 400, false},
	} {
		got = facet.Bookmark{}
		resp, body := a.do("POST", execPath+tc.query, tc.body)
		if resp.StatusCode != tc.status || got != tc.after || tc.gives != (decode[answer](t, body).Bookmark != "") {
			t.Errorf("%s %s: %d, after %v: %s", tc.query, tc.body, resp.StatusCode, got, body)
		}
		if tc.status == 409 && !strings.Contains(body, `"bad_bookmark"`) {
			t.Errorf("%s: %s", tc.query, body)
		}
	}
}

// decode parses an answer into v.
func decode[T any](t *testing.T, body string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return v
}

type txAnswer struct {
	Tx    string
	Error struct {
		Code      string
		Statement *int
	}
	Rows []map[string]any
}

func TestInteractiveTransaction(t *testing.T) {
	a := start(t, Options{})
	a.exec(200, "CREATE TABLE t (a UNIQUE)")
	with := func(tx, rest string) string { return `{"tx":"` + tx + `",` + rest + `}` }
	count := func(want float64) {
		t.Helper()
		if got := decode[txAnswer](t, a.exec(200, "SELECT count(*) AS n FROM t")).Rows[0]["n"]; got != want {
			t.Fatalf("%v rows, want %v", got, want)
		}
	}

	tx := decode[txAnswer](t, a.exec(200, `{"begin":true}`)).Tx
	if len(tx) != 32 {
		t.Fatalf("tx %q", tx)
	}
	if resp, body := a.do("POST", execPath, "SELECT 1"); resp.StatusCode != 503 || !strings.Contains(body, `"busy"`) || resp.Header.Get("Retry-After") != "1" {
		t.Fatalf("beside a transaction: %d %s", resp.StatusCode, body)
	}
	if got := decode[txAnswer](t, a.exec(200, with(tx, `"sql":"INSERT INTO t VALUES (1)"`))).Tx; got != tx {
		t.Fatalf("tx %q after %q", got, tx)
	}
	// A failing statement leaves the transaction open, and those after it do not run.
	e := decode[txAnswer](t, a.exec(422, with(tx, `"statements":["INSERT INTO t VALUES (2)","INSERT INTO t VALUES (2)","INSERT INTO t VALUES (3)"]`)))
	if e.Tx != tx || e.Error.Statement == nil || *e.Error.Statement != 1 {
		t.Fatalf("%+v", e)
	}
	// So does one beside commit, which then is not done.
	if e := decode[txAnswer](t, a.exec(422, with(tx, `"commit":true,"sql":"SELEC"`))); e.Tx != tx {
		t.Fatalf("%+v", e)
	}
	if got := decode[txAnswer](t, a.exec(200, with(tx, `"commit":true,"sql":"INSERT INTO t VALUES (4)"`))).Tx; got != "" {
		t.Fatalf("tx %q after commit", got)
	}
	count(3)
	if e := decode[txAnswer](t, a.exec(409, with(tx, `"sql":"SELECT 1"`))); e.Error.Code != "tx_closed" {
		t.Fatalf("%+v", e)
	}

	// Begin with statements, then roll back, with a last statement.
	tx = decode[txAnswer](t, a.exec(200, `{"begin":true,"statements":["DELETE FROM t"]}`)).Tx
	a.exec(200, with(tx, `"rollback":true,"sql":"SELECT 1"`))
	count(3)
	// A begin that fails leaves nothing open.
	if e := decode[txAnswer](t, a.exec(422, `{"begin":true,"statements":["DELETE FROM t","SELEC"]}`)); e.Tx != "" {
		t.Fatalf("%+v", e)
	}
	count(3)
	// A transaction ended by the service.
	tx = decode[txAnswer](t, a.exec(200, `{"begin":true,"sql":"DELETE FROM t"}`)).Tx
	a.svc.ExpireTx(notes)
	a.exec(409, with(tx, `"commit":true`))
	count(3)
	// Read-only holds in a transaction.
	tx = decode[txAnswer](t, a.exec(200, `{"begin":true,"read_only":true}`)).Tx
	a.exec(403, with(tx, `"read_only":true,"sql":"DELETE FROM t"`))
	a.exec(200, with(tx, `"rollback":true`))
	count(3)
}

func TestIdempotency(t *testing.T) {
	a := start(t, Options{})
	a.exec(200, "CREATE TABLE t (a)")
	const insert = `{"sql":"INSERT INTO t VALUES (1)"}`
	first := a.exec(200, insert, "Idempotency-Key: order-17")
	if again := a.exec(200, insert, "Idempotency-Key: order-17"); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	a.exec(200, insert, "Idempotency-Key: order-18")
	const key = `"key":{"client":"00112233-4455-6677-8899-aabbccddeeff","n":5}`
	body := `{` + key + `,"statements":["INSERT INTO t VALUES (2)","INSERT INTO t VALUES (3)"]}`
	a.exec(200, body)
	a.exec(200, body)
	if got := a.exec(200, "SELECT count(*) AS n FROM t"); !strings.Contains(got, `{"n":4}`) {
		t.Error(got)
	}
	var keys []facet.Key
	a.svc.Hook = func(call *service.Call) bool {
		keys = append(keys, call.Request.Key)
		return false
	}
	a.exec(200, body)
	want := facet.Key{Client: [16]byte{0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}, N: 5}
	if len(keys) != 1 || keys[0] != want {
		t.Errorf("keys %v", keys)
	}
}

func TestRequestOptions(t *testing.T) {
	a := start(t, Options{})
	var got facet.Request
	a.svc.Hook = func(call *service.Call) bool {
		got = call.Request
		return false
	}
	a.exec(200, `{"sql":"SELECT 1","timeout_ms":1500,"read_only":true}`)
	if got.Timeout != 1500*time.Millisecond || !got.ReadOnly || got.Atomic || got.KeepTx || got.Name != notes {
		t.Errorf("%+v", got)
	}
	for body, want := range map[string]struct{ atomic, own bool }{
		`{"statements":["SELECT 1"]}`:                               {false, false},
		`{"statements":["SELECT 1","SELECT 2"]}`:                    {true, false},
		`{"statements":["SELECT 1","SELECT 2"],"atomic":false}`:     {false, false},
		`SELECT 1; SELECT 2`:                                        {true, false},
		`SELECT 1;`:                                                 {false, false},
		"BEGIN; SELECT 1; COMMIT":                                   {false, true},
		"PRAGMA foreign_keys=off; -- x\n/* y */ begin; end":         {false, true},
		`{"statements":["SAVEPOINT a","RELEASE a"]}`:                {false, true},
		"SELECT 'BEGIN'; SELECT 2":                                  {true, false},
		strings.Repeat("SELECT 1;", maxScriptResults+1):             {true, false},
		"BEGIN;" + strings.Repeat("SELECT 1;", 300) + "COMMIT":      {false, true},
		`{"sql":"SELECT ?","args":[1]}`:                             {false, false},
		`{"sql":"SELECT ?","args":[1],"atomic":true}`:               {true, false},
		`{"statements":[{"sql":"SELECT 1"},{"sql":"SELECT ?1"}]}x`:  {}, // 400
		`{"statements":[{"sql":"SELECT 1"}],"timeout_ms":0}`:        {}, // 400
		`{"statements":[{"sql":"SELECT 1"}],"timeout_ms":99999999}`: {}, // 400
	} {
		got = facet.Request{}
		resp, text := a.do("POST", execPath, body)
		if bad := strings.HasSuffix(body, "x") || strings.Contains(body, "timeout"); bad != (resp.StatusCode == 400) || !bad && resp.StatusCode != 200 {
			t.Errorf("%.60s: %d %s", body, resp.StatusCode, text)
		}
		chained := len(got.Steps) > 1 && got.Steps[1].Condition != nil
		if got.Atomic != want.atomic || chained != want.own {
			t.Errorf("%.60s: atomic %v, chained %v", body, got.Atomic, chained)
		}
	}
}

// A dump of many statements runs as few scripts, in one transaction.
func TestLongScript(t *testing.T) {
	a := start(t, Options{})
	var dump strings.Builder
	dump.WriteString("PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t (id INTEGER PRIMARY KEY, s TEXT);\n")
	const rows = 3000
	for i := range rows {
		fmt.Fprintf(&dump, "INSERT INTO t VALUES (%d, '%s; %d''');\n", i, strings.Repeat("x", 1000), i)
	}
	dump.WriteString("COMMIT;\n")
	calls := 0
	a.svc.Hook = func(call *service.Call) bool {
		calls++
		for _, st := range call.Request.Steps {
			if len(st.SQL) > facet.MaxSQLLen {
				t.Errorf("a step of %d bytes", len(st.SQL))
			}
		}
		return false
	}
	got := decode[struct {
		Statements   int
		RowsAffected int `json:"rows_affected"`
	}](t, a.exec(200, dump.String()))
	if got.Statements != rows+4 || got.RowsAffected != rows || calls != 1 {
		t.Fatalf("%+v in %d calls", got, calls)
	}
	if got := a.exec(200, "SELECT count(*) AS n, sum(length(s)) AS l FROM t"); !strings.Contains(got, `"n":3000`) {
		t.Fatal(got)
	}
	// Where it fails it takes nothing along, and says where.
	bad := strings.Replace(dump.String(), "CREATE TABLE t", "CREATE TABLE u", 1)
	bad = strings.Replace(bad, "COMMIT;\n", "SELEC;\nCOMMIT;\n", 1)
	bad = strings.ReplaceAll(bad, "INTO t", "INTO u")
	body := a.exec(422, bad)
	e := decode[struct {
		Error struct{ Offset int }
	}](t, body)
	if e.Error.Offset < len(bad)-facet.MaxSQLLen {
		t.Errorf("offset %d of %d: %s", e.Error.Offset, len(bad), body)
	}
	a.exec(422, "SELECT * FROM u")
}

// An error points into its statement, and says which that is.
func TestOffsets(t *testing.T) {
	a := start(t, Options{})
	type answer struct {
		Error struct {
			Offset    int
			Statement *int
			Message   string
		}
	}
	e := decode[answer](t, a.exec(422, "SELECT missing FROM (SELECT 2)")).Error
	if e.Offset != len("SELECT ") || e.Statement != nil {
		t.Errorf("one statement: %+v", e)
	}
	e = decode[answer](t, a.exec(422, `{"statements":["SELECT 1","SELECT missing FROM (SELECT 2)"]}`)).Error
	if e.Offset != len("SELECT ") || !strings.HasPrefix(e.Message, "step 2 of 2: ") {
		t.Errorf("several: %+v", e)
	}
	e = decode[answer](t, a.exec(422, "BEGIN;SELECT missing FROM (SELECT 2);COMMIT")).Error
	if e.Offset != len("SELECT ") || e.Statement == nil || *e.Statement != 1 {
		t.Errorf("chained: %+v", e)
	}
}

// Every code has its status; the fields of an error arrive.
func TestErrorStatuses(t *testing.T) {
	a := start(t, Options{})
	for code, status := range map[facet.Code]int{
		facet.CodeBadRequest: 400, facet.CodeUnauthorized: 401, facet.CodeForbidden: 403, facet.CodeNotFound: 404,
		facet.CodeExists: 409, facet.CodeSQL: 422, facet.CodeDenied: 403, facet.CodeLimit: 413, facet.CodeTimeout: 408,
		facet.CodeTxClosed: 409, facet.CodeKeyConflict: 409, facet.CodeKeyExpired: 409, facet.CodeReadOnly: 403,
		facet.CodeVersion: 400, facet.CodeCanceled: 408, facet.CodeNotAcceptable: 422, facet.CodeBusy: 503,
		facet.CodeOverloaded: 503, facet.CodeUnavailable: 503, facet.CodeDiskFull: 507, facet.CodeNotOwner: 307,
		facet.CodeUnknownOutcome: 500, facet.CodeCorrupt: 500, facet.CodeInternal: 500,
		facet.CodeThrottled: 429, facet.CodeFrozen: 403,
	} {
		e := &facet.Error{Code: code, Message: "the message", Limit: "lim", Owner: "10.0.0.2:7400", Epoch: 9}
		a.answerWith(fmt.Errorf("exec acme/notes: %w", e))
		resp, body := a.do("POST", execPath+"?rows=arrays", "SELECT 1")
		got := decode[struct{ Error map[string]any }](t, body).Error
		if resp.StatusCode != status || got["code"] != code.String() || got["message"] != "exec acme/notes: the message" ||
			got["limit"] != "lim" || got["owner"] != "10.0.0.2:7400" || got["epoch"] != 9.0 {
			t.Errorf("%v: %d %s", code, resp.StatusCode, body)
		}
		if retry := code.Class() == facet.Retry; retry != (resp.Header.Get("Retry-After") == "1") {
			t.Errorf("%v: Retry-After %q", code, resp.Header.Get("Retry-After"))
		}
		if code == facet.CodeNotOwner && (resp.Header.Get("Location") != "http://10.0.0.2:7400"+execPath+"?rows=arrays" || resp.Header.Get("Facet-Epoch") != "9") {
			t.Errorf("redirect: %v", resp.Header)
		}
	}
	a.answerWith(&facet.Error{Code: facet.CodeThrottled, Limit: "requests_per_second", RetryAfter: 2500 * time.Millisecond})
	if resp, body := a.do("POST", execPath, "SELECT 1"); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "3" {
		t.Errorf("rate limit: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	for _, limit := range []string{"facets", "facet_bytes", "total_bytes"} {
		a.answerWith(&facet.Error{Code: facet.CodeLimit, Limit: limit})
		if resp, body := a.do("POST", execPath, "SELECT 1"); resp.StatusCode != 507 || resp.Header.Get("Retry-After") != "" {
			t.Errorf("%s: %d %v %s", limit, resp.StatusCode, resp.Header, body)
		}
	}
	a.answerWith(errors.New("disk on fire"))
	if resp, body := a.do("POST", execPath, "SELECT 1"); resp.StatusCode != 500 || !strings.Contains(body, `"internal"`) {
		t.Errorf("foreign error: %d %s", resp.StatusCode, body)
	}
	if !strings.Contains(a.log.String(), "disk on fire") {
		t.Error("an internal error is not in the log")
	}
}

func TestBodyLimit(t *testing.T) {
	a := start(t, Options{})
	resp, body := a.do("POST", execPath, `{"sql":"`+strings.Repeat(" ", MaxBodyLen)+`"}`)
	if resp.StatusCode != 413 || !strings.Contains(body, `"limit":"request_bytes"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

// A large answer is not gathered anywhere, and arrives whole.
func TestLargeAnswer(t *testing.T) {
	a := start(t, Options{})
	body := a.exec(200, `WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 50000) SELECT n, hex(zeroblob(50)) AS x, zeroblob(20) AS b FROM r`)
	got := decode[struct{ Rows []struct{ N int } }](t, body)
	if len(got.Rows) != 50000 || got.Rows[49999].N != 50000 {
		t.Errorf("%d rows", len(got.Rows))
	}
}

func TestSplitter(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "",
		" ; ;\n-- c\n/* d; */":                "",
		"a":                                   "a",
		"a;b":                                 "a|b",
		"a ; b ;":                             "a | b ",
		"'x;''y';\"a;\";`;`;[;]":              "'x;''y'|\"a;\"|`;`|[;]",
		"-- a;b\nc;d":                         "-- a;b\nc|d",
		"/* ; */ a; /* b":                     "/* ; */ a",
		"'open; b":                            "'open; b",
		"create trigger x begin a; b; end; c": "create trigger x begin a; b; end| c",
		"CREATE TEMP TRIGGER x BEGIN SELECT CASE WHEN a THEN b END; END;c": "CREATE TEMP TRIGGER x BEGIN SELECT CASE WHEN a THEN b END; END|c",
		"CREATE TABLE trigger (a); b":                                      "CREATE TABLE trigger (a)| b",
		"EXPLAIN CREATE TRIGGER x BEGIN a; END; b":                         "EXPLAIN CREATE TRIGGER x BEGIN a; END| b",
		"EXPLAIN;a": "EXPLAIN|a",
		"CREATE TRIGGER x BEGIN a; END -- ;\n; b":                             "CREATE TRIGGER x BEGIN a; END -- ;\n| b",
		"CREATE TRIGGER x BEGIN a; ending; end /* ; */; b":                    "CREATE TRIGGER x BEGIN a; ending; end /* ; */| b",
		"create/**/temporary--\ntrigger t begin select ';'; end;create table": "create/**/temporary--\ntrigger t begin select ';'; end|create table",
	} {
		s := splitter{text: []byte(text)}
		var got []string
		for from, to, ok := s.next(); ok; from, to, ok = s.next() {
			got = append(got, text[from:to])
		}
		if joined := strings.Join(got, "|"); joined != want {
			t.Errorf("%q: %q, want %q", text, joined, want)
		}
	}
}

func FuzzExec(f *testing.F) {
	for _, s := range []string{
		`{"sql":"SELECT ?","args":[1,2.5,"x",null,true,{"blob":"AAE="},{"int":"9"},{"float":"Infinity"}]}`,
		`{"statements":[{"sql":"a","args":{":b":1}},"c"],"atomic":false,"rows":"arrays","ints":"string","timeout_ms":5,"read_only":true}`,
		`{"tx":"00112233445566778899aabbccddeeff","commit":true}`, `{"begin":true,"sql":"a;b"}`, `"SELECT 1"`,
		`{"key":{"client":"00112233445566778899aabbccddeeff","n":1},"sql":"x"}`,
		"CREATE TRIGGER x BEGIN a; END; SELECT ';'; -- end", strings.Repeat("a;", maxScriptResults+2),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		r := httptest.NewRequest("POST", execPath, nil)
		b, err := decodeExec(r, bytes.Clone(src))
		if err != nil {
			if fail := toFailure(err); fail.Code == facet.CodeInternal || fail.Message == "" {
				t.Fatalf("%q: %v is no error about a request", src, err)
			}
			return
		}
		for _, st := range b.steps {
			values, err := st.Args.Decode(nil)
			if err != nil || len(values) != st.NArgs || st.Names != nil && len(st.Names) != st.NArgs || len(st.SQL) > facet.MaxSQLLen {
				t.Fatalf("%q: %d names, %d arguments, %d values, %v", src, len(st.Names), st.NArgs, len(values), err)
			}
		}
		if b.script > 0 && len(b.offsets) != len(b.steps) || len(b.steps) > facet.MaxSteps {
			t.Fatalf("%q: %d steps, %d offsets", src, len(b.steps), len(b.offsets))
		}
		p := planExec(notes, b, false)
		if p.req.Atomic && (p.req.KeepTx || !p.req.Tx.IsZero()) || !p.req.Key.IsZero() && !p.req.Atomic && len(p.req.Steps) != 1 {
			t.Fatalf("%q: %+v", src, p.req)
		}
	})
}

// What goes in comes out the same, type and all.
func TestValuesRoundTrip(t *testing.T) {
	a := start(t, Options{})
	for in, want := range map[string]string{
		"1": "1", "-9223372036854775808": "-9223372036854775808", "9223372036854775807": "9223372036854775807",
		"9007199254740993": "9007199254740993", "2.0": "2.0", "2e0": "2.0", "1e400": `{"float":"Infinity"}`, "0.1": "0.1", "-0.0": "-0.0", "1e300": "1e+300",
		`"x\u0000\ud83d\udc0e"`: `"x\u0000🐎"`, `""`: `""`, "null": "null", "true": "1", "false": "0",
		`{"blob":"AAE="}`: `{"blob":"AAE="}`, `{"blob":"AAE"}`: `{"blob":"AAE="}`, `{"blob":""}`: `{"blob":""}`,
		`{"int":"-5"}`: "-5", `{"int":7}`: "7", `{"float":3}`: "3.0", `{"float":"-Infinity"}`: `{"float":"-Infinity"}`,
	} {
		got := a.exec(200, `{"rows":"arrays","sql":"SELECT ?","args":[`+in+`]}`)
		if !strings.Contains(got, "\n["+want+"]\n") {
			t.Errorf("%s came back in %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{"9223372036854775808", "[1]", `{"date":1}`, "{}", `{"blob":1}`, `{"blob":"!"}`, `{"int":"x"}`, `{"int":1.5}`, `{"float":"NaN"}`, `{"blob":"","int":1}`} {
		a.exec(http.StatusBadRequest, `{"sql":"SELECT ?","args":[`+bad+`]}`)
	}
}
