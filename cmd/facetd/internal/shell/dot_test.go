package shell

import (
	"slices"
	"testing"

	"github.com/facetd/facetd/facet"
)

func TestSplitArgs(t *testing.T) {
	for in, want := range map[string][]string{
		`.mode insert "my table"`: {".mode", "insert", "my table"},
		`.read  'a b'c.sql `:      {".read", "a bc.sql"},
		`.nullvalue ''`:           {".nullvalue", ""},
	} {
		if got, err := splitArgs(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %q, %v, want %q", in, got, err, want)
		}
	}
	if _, err := splitArgs(`.read "x`); err == nil {
		t.Error("an open quote is accepted")
	}
}

func TestPointAt(t *testing.T) {
	for _, c := range []struct {
		sql    string
		offset int
		want   string
	}{
		{"SELECT x FROM t", 7, "  SELECT x FROM t\n         ^\n"},
		{"SELECT\n  '日本', x\nFROM t", 19, "    '日本', x\n            ^\n"},
		{"SELECT 1", 8, "  SELECT 1\n          ^\n"},
	} {
		if got := pointAt(c.sql, c.offset); got != c.want {
			t.Errorf("%q at %d:\n%s\nwant\n%s", c.sql, c.offset, got, c.want)
		}
	}
}

func TestQuiet(t *testing.T) {
	for sql, want := range map[string]bool{
		"INSERT INTO a VALUES(1);":                     true,
		"/* x */ insert into a values(1) Returning id": false,
		"SELECT 1":              false,
		"CREATE TABLE a(b)":     true,
		"PRAGMA user_version=1": false,
		"WITH x AS (SELECT 1) INSERT INTO a SELECT * FROM x": false,
	} {
		if got := quiet(sql); got != want {
			t.Errorf("%s: got %v", sql, got)
		}
	}
}

func TestHintsAreForEveryRetryableCode(t *testing.T) {
	for _, c := range []facet.Code{facet.CodeBusy, facet.CodeOverloaded, facet.CodeUnavailable, facet.CodeDiskFull, facet.CodeTxClosed, facet.CodeUnknownOutcome} {
		if Hint(&facet.Error{Code: c}) == "" {
			t.Errorf("%v has no hint", c)
		}
	}
}
