package hrana

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
)

func FuzzPipeline(f *testing.F) {
	for _, s := range []string{
		`{"baton":null,"requests":[{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"integer","value":"1"},{"type":"blob","base64":"AA=="}]}},{"type":"close"}]}`,
		`{"requests":[{"type":"batch","batch":{"steps":[{"stmt":{"sql":"BEGIN"}},{"condition":{"type":"and","conds":[{"type":"ok","step":0},{"type":"not","cond":{"type":"is_autocommit"}}]},"stmt":{"sql_id":1,"named_args":[{"name":":a","value":{"type":"text","value":"x"}}]}}]}}]}`,
		`{"requests":[{"type":"store_sql","sql_id":1,"sql":"SELECT 1"},{"type":"describe","sql_id":1},{"type":"sequence","sql":"a;b"},{"type":"close_sql","sql_id":1},{"type":"get_autocommit"}]}`,
		`{"batch":{"steps":[{"stmt":{"sql":"x","want_rows":false}}]},"baton":"abc"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, decode := range []func([]byte) (*pipelineBody, error){decodePipeline, decodeCursor} {
			b, err := decode(bytes.Clone(src))
			if err != nil {
				if code, message := describe(err); code == "" || code == "INTERNAL" || message == "" || status(err) >= 500 {
					t.Fatalf("%q: %v is no error about a request", src, err)
				}
				continue
			}
			if !json.Valid(src) {
				t.Fatalf("%q is not JSON", src)
			}
			for _, req := range b.requests {
				checkRequest(t, &req)
			}
		}
	})
}

// checkRequest checks what the service relies on.
func checkRequest(t *testing.T, req *streamRequest) {
	if req.kind == kindNone || len(req.steps) != len(req.texts) {
		t.Fatalf("kind %d with %d steps and %d texts", req.kind, len(req.steps), len(req.texts))
	}
	for i, st := range req.steps {
		values, err := st.Args.Decode(nil)
		if err != nil || len(values) != st.NArgs || st.Names != nil && len(st.Names) != st.NArgs {
			t.Fatalf("%d names, %d arguments, %d values, %v", len(st.Names), st.NArgs, len(values), err)
		}
		if st.Condition != nil {
			checkCondition(t, st.Condition, i, 1)
		}
	}
}

func checkCondition(t *testing.T, c *facet.Condition, step, depth int) {
	ok := depth <= facet.MaxConditionDepth
	switch c.Op {
	case facet.CondOK, facet.CondError:
		ok = ok && c.Step >= 0 && c.Step < step
	case facet.CondNot:
		ok = ok && len(c.Conds) == 1
	case facet.CondAnd, facet.CondOr, facet.CondAutocommit:
	default:
		ok = false
	}
	if !ok {
		t.Fatalf("condition %+v at step %d, depth %d", c, step, depth)
	}
	for i := range c.Conds {
		checkCondition(t, &c.Conds[i], step, depth+1)
	}
}

func TestBounds(t *testing.T) {
	repeat := func(s string, n int) string { return strings.TrimSuffix(strings.Repeat(s+",", n), ",") }
	execute := func(stmt string) string { return `{"requests":[{"type":"execute","stmt":` + stmt + `}]}` }
	deep := `{"type":"is_autocommit"}`
	for range facet.MaxConditionDepth {
		deep = `{"type":"not","cond":` + deep + `}`
	}
	for name, body := range map[string]string{
		"hrana_requests":  `{"requests":[` + repeat(`{"type":"close"}`, MaxRequests+1) + `]}`,
		"args":            execute(`{"sql":"x","args":[` + repeat(`{"type":"null"}`, facet.MaxArgs+1) + `]}`),
		"steps":           `{"requests":[{"type":"batch","batch":{"steps":[` + repeat(`{"stmt":{}}`, facet.MaxSteps+1) + `]}}]}`,
		"pipeline_steps":  `{"requests":[` + repeat(`{"type":"batch","batch":{"steps":[`+repeat(`{"stmt":{}}`, 4000)+`]}}`, 5) + `]}`,
		"condition_depth": `{"requests":[{"type":"batch","batch":{"steps":[{"condition":` + deep + `,"stmt":{}}]}}]}`,
		"conditions": `{"requests":[{"type":"batch","batch":{"steps":[{"condition":{"type":"and","conds":[` +
			repeat(`{"type":"is_autocommit"}`, MaxConditions) + `]},"stmt":{}}]}}]}`,
		"sql_bytes":   execute(`{"sql":"` + strings.Repeat("x", facet.MaxSQLLen+1) + `"}`),
		"value_bytes": execute(`{"sql":"x","args":[{"type":"text","value":"` + strings.Repeat("x", facet.MaxValueLen+1) + `"}]}`),
	} {
		_, err := decodePipeline([]byte(body))
		var fe *facet.Error
		if !errors.As(err, &fe) || fe.Code != facet.CodeLimit || fe.Limit != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"null"}`: "null",
		`{"type":"integer","value":"-9223372036854775808"}`:   "-9223372036854775808",
		`{"value":"12","type":"integer"}`:                     "12",
		`{"type":"integer","value":12}`:                       "12",
		`{"type":"float","value":2}`:                          "2.0",
		`{"type":"float","value":1e999}`:                      "+Inf",
		`{"type":"text","value":"x"}`:                         `"x"`,
		`{"type":"blob","base64":"AAE="}`:                     "0001",
		`{"type":"blob","base64":"AAE"}`:                      "0001",
		`{"type":"blob","base64":""}`:                         "",
		`{"type":"integer","value":"1.5"}`:                    "!",
		`{"type":"integer","value":"9223372036854775808"}`:    "!",
		`{"type":"integer"}`:                                  "!",
		`{"type":"float","value":"2"}`:                        "!",
		`{"type":"text","value":5}`:                           "!",
		`{"type":"text"}`:                                     "!",
		`{"type":"blob"}`:                                     "!",
		`{"type":"blob","base64":"A!"}`:                       "!",
		`{"type":"date","value":"x"}`:                         "!",
		`{}`:                                                  "!",
		`{"type":"text","value":"x","more":{"future":[1,2]}}`: `"x"`,
	} {
		b, err := decodePipeline([]byte(`{"requests":[{"type":"execute","stmt":{"sql":"SELECT ?","args":[` + in + `]}}]}`))
		if err != nil {
			if want != "!" {
				t.Errorf("%s: %v", in, err)
			}
			continue
		}
		v, _, err := b.requests[0].steps[0].Args.Next()
		if err != nil {
			t.Fatal(err)
		}
		got := "null"
		switch v.Type {
		case facet.Integer:
			got = fmt.Sprint(v.Int)
		case facet.Float:
			if got = fmt.Sprint(v.Float); !strings.ContainsAny(got, ".I") {
				got += ".0"
			}
		case facet.Text:
			got = fmt.Sprintf("%q", v.Bytes)
		case facet.Blob:
			got = fmt.Sprintf("%x", v.Bytes)
		}
		if got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

func TestTransactionVerb(t *testing.T) {
	for sql, want := range map[string]verb{
		"BEGIN":                                verbBegin,
		"begin immediate":                      verbBegin,
		"BEGIN TRANSACTION READONLY":           verbBeginReadOnly,
		" -- x\n/* y */ begin readonly ;":      verbBeginReadOnly,
		"/*/ BEGIN */ COMMIT":                  verbCommit,
		"END TRANSACTION":                      verbCommit,
		"ROLLBACK":                             verbRollback,
		"ROLLBACK TRANSACTION;":                verbRollback,
		"ROLLBACK TO SAVEPOINT a":              verbOther,
		"ROLLBACK TRANSACTION TO a":            verbOther,
		"BEGINNING":                            verbOther,
		"SELECT 'BEGIN'":                       verbOther,
		"":                                     verbOther,
		"--":                                   verbOther,
		"/*":                                   verbOther,
		"BEGIN READONLYX":                      verbBegin,
		"BEGIN /* TRANSACTION */ READONLY":     verbBeginReadOnly,
		"BEGIN TRANSACTION -- READONLY\n":      verbBegin,
		"\t\r\n\v\fROLLBACK/* TO */":           verbRollback,
		"BEGIN TRANSACTION READONLY; SELECT 1": verbBeginReadOnly,
	} {
		if got, _ := transactionVerb([]byte(sql)); got != want {
			t.Errorf("%q: %d, want %d", sql, got, want)
		}
	}
}
