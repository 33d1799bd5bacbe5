package shell

import (
	"bufio"
	"math"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"

	"github.com/facetd/facetd/facet"
)

func text(s string) facet.Value { return facet.Value{Type: facet.Text, Bytes: []byte(s)} }
func num(n int64) facet.Value   { return facet.Value{Type: facet.Integer, Int: n} }
func float(x float64) facet.Value {
	return facet.Value{Type: facet.Float, Float: x}
}
func blob(s string) facet.Value { return facet.Value{Type: facet.Blob, Bytes: []byte(s)} }

var null = facet.Value{}

var sample = [][]facet.Value{
	{num(1), text("hello"), null, blob("\x00\xff")},
	{num(math.MaxInt64), text("it's \"x\", 日本"), float(2), blob("")},
	{num(-3), text("two\nlines\x1b[31m|"), float(math.Inf(-1)), text("")},
}

func render(f format, cols []string, rows [][]facet.Value) string {
	var b strings.Builder
	w := bufio.NewWriter(&b)
	p := f.printer(w)
	p.begin(cols)
	for _, r := range rows {
		p.row(r)
	}
	p.end()
	w.Flush()
	return b.String()
}

func TestModes(t *testing.T) {
	cols := []string{"id", "body", "x", "raw data"}
	for _, c := range []struct {
		f    format
		want string
	}{
		{format{mode: ModeTable, headers: true, null: "NULL"}, `
 id                  │ body                  │ x    │ raw data
─────────────────────┼───────────────────────┼──────┼──────────
                   1 │ hello                 │ NULL │ X'00FF'
 9223372036854775807 │ it's "x", 日本        │  2.0 │ X''
                  -3 │ two\nlines\u001b[31m| │ -Inf │ 
`},
		{format{mode: ModeTabs}, "\n" +
			"1\thello\t\tX'00FF'\n" +
			"9223372036854775807\tit's \"x\", 日本\t2.0\tX''\n" +
			"-3\ttwo\nlines\x1b[31m|\t-Inf\t\n"},
		{format{mode: ModeTabs, headers: true, terminal: true, null: "-"}, "\n" +
			"id\tbody\tx\traw data\n" +
			"1\thello\t-\tX'00FF'\n" +
			"9223372036854775807\tit's \"x\", 日本\t2.0\tX''\n" +
			"-3\ttwo\\nlines\\u001b[31m|\t-Inf\t\n"},
		{format{mode: ModeCSV, headers: true}, "\n" +
			"id,body,x,raw data\n" +
			"1,hello,,X'00FF'\n" +
			"9223372036854775807,\"it's \"\"x\"\", 日本\",2.0,X''\n" +
			"-3,\"two\nlines\x1b[31m|\",-Inf,\"\"\n"},
		{format{mode: ModeJSON}, `
[{"id":1,"body":"hello","x":null,"raw data":{"blob":"AP8="}},
{"id":9223372036854775807,"body":"it's \"x\", 日本","x":2.0,"raw data":{"blob":""}},
{"id":-3,"body":"two\nlines\u001b[31m|","x":-9e999,"raw data":""}]
`},
		{format{mode: ModeLine, null: "NULL"}, `
      id = 1
    body = hello
       x = NULL
raw data = X'00FF'

      id = 9223372036854775807
    body = it's "x", 日本
       x = 2.0
raw data = X''

      id = -3
    body = two
lines` + "\x1b" + `[31m|
       x = -Inf
raw data = ` + `
`},
		{format{mode: ModeMarkdown, null: "NULL"}, `
| id | body | x | raw data |
|---|---|---|---|
| 1 | hello | NULL | X'00FF' |
| 9223372036854775807 | it's "x", 日本 | 2.0 | X'' |
| -3 | two\nlines\u001b[31m\| | -Inf |  |
`},
		{format{mode: ModeInsert, table: `no"tes`}, `
INSERT INTO "no""tes" VALUES(1,'hello',NULL,X'00FF');
INSERT INTO "no""tes" VALUES(9223372036854775807,'it''s "x", 日本',2.0,X'');
INSERT INTO "no""tes" VALUES(-3,'two
lines` + "\x1b" + `[31m|',-9e999,'');
`},
	} {
		t.Run(string(c.f.mode), func(t *testing.T) {
			if got := "\n" + render(c.f, cols, sample); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	rows := [][]facet.Value{{num(1), text(strings.Repeat("日本", 60)), text(strings.Repeat("x", 90)), text("short")}}
	for _, width := range []int{40, 80, 120} {
		out := render(format{mode: ModeTable, headers: true, width: width}, []string{"id", "a", "b", "c"}, rows)
		for line := range strings.Lines(out) {
			if w := runewidth.StringWidth(strings.TrimSuffix(line, "\n")); w > width {
				t.Errorf("width %d: line of %d columns: %s", width, w, line)
			}
		}
		if !strings.Contains(out, "…") || !strings.Contains(out, "short") {
			t.Errorf("width %d: long cells are to be cut, short ones to be kept:\n%s", width, out)
		}
	}
	if out := render(format{mode: ModeTable}, []string{"id", "a", "b", "c"}, rows); strings.Contains(out, "…") {
		t.Errorf("without a width something was cut:\n%s", out)
	}
}

func TestTableHoldsBackABoundedNumberOfRows(t *testing.T) {
	var b strings.Builder
	w := bufio.NewWriterSize(&b, 16)
	p := format{mode: ModeTable, headers: true}.printer(w)
	p.begin([]string{"n"})
	for i := range tableRows + 1 {
		if err := p.row([]facet.Value{num(int64(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.String(), "\n"); n < tableRows {
		t.Errorf("%d lines were printed before the end, want at least %d", n, tableRows)
	}
}

func TestLiteralOfTextWithNUL(t *testing.T) {
	if got, want := literal(text("a\x00b")), "CAST(X'610062' AS TEXT)"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
