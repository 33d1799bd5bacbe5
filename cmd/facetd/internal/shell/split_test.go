package shell

import (
	"slices"
	"strings"
	"testing"
)

func splitAll(text string) (out []string) {
	s := newSplitter()
	for line := range strings.Lines(text) {
		s.add(strings.TrimSuffix(line, "\n"))
		for {
			sql, _, ok := s.next()
			if !ok {
				break
			}
			out = append(out, sql)
		}
	}
	if sql, _, ok := s.rest(); ok {
		out = append(out, "REST "+sql)
	}
	return out
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"two on a line", "SELECT 1; SELECT 2;", []string{"SELECT 1;", "SELECT 2;"}},
		{"several lines", "SELECT\n 1\n;", []string{"SELECT\n 1\n;"}},
		{"quotes", `SELECT ';', "a;b", [c;d], ` + "`e;`" + `, 'it''s;';`, []string{`SELECT ';', "a;b", [c;d], ` + "`e;`" + `, 'it''s;';`}},
		{"quote over lines", "SELECT 'a\n;b';", []string{"SELECT 'a\n;b';"}},
		{"comments", "-- one; two\nSELECT 1 /* ; */ ; -- rest\n", []string{"-- one; two\nSELECT 1 /* ; */ ;"}},
		{"comment over lines", "/* a;\n b; */ SELECT 1;", []string{"/* a;\n b; */ SELECT 1;"}},
		{"lone semicolons", ";;\n;SELECT 1;;", []string{"SELECT 1;"}},
		{"no end", "SELECT 1", []string{"REST SELECT 1"}},
		{"only comments", "-- nothing\n/* at all */", nil},
		{"trigger", "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n INSERT INTO b VALUES(1);\n SELECT CASE WHEN 1 THEN 2 END;\nEND;\nSELECT 1;",
			[]string{"CREATE TRIGGER t AFTER INSERT ON a BEGIN\n INSERT INTO b VALUES(1);\n SELECT CASE WHEN 1 THEN 2 END;\nEND;", "SELECT 1;"}},
		{"temp trigger", "create temp trigger t after insert on a begin select 1; end; select 2;",
			[]string{"create temp trigger t after insert on a begin select 1; end;", "select 2;"}},
		{"table named trigger", "CREATE TABLE trigger_log(x); SELECT 1;", []string{"CREATE TABLE trigger_log(x);", "SELECT 1;"}},
		{"quoted create", `"create" trigger; SELECT 1;`, []string{`"create" trigger;`, "SELECT 1;"}},
		{"end in case", "SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 3;", []string{"SELECT CASE 1 WHEN 1 THEN 2 END;", "SELECT 3;"}},
		{"commit", "BEGIN; END;", []string{"BEGIN;", "END;"}},
		{"minus and divide", "SELECT 1-2, 3/4;", []string{"SELECT 1-2, 3/4;"}},
		{"open quote", "SELECT 'abc", []string{"REST SELECT 'abc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := splitAll(c.in); !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestSplitLines(t *testing.T) {
	s := newSplitter()
	var lines []int
	for _, l := range []string{"SELECT 1;", "", "-- two", "SELECT", "2; SELECT 3;"} {
		s.add(l)
		for {
			_, n, ok := s.next()
			if !ok {
				break
			}
			lines = append(lines, n)
		}
	}
	if want := []int{1, 4, 5}; !slices.Equal(lines, want) {
		t.Errorf("statements begin on lines %v, want %v", lines, want)
	}
}

// FuzzSplit checks that statements come out whole and in order, and that what is
// left out between them is blank.
func FuzzSplit(f *testing.F) {
	f.Add("SELECT 1; CREATE TRIGGER t BEGIN SELECT 1; END; '")
	f.Add("/* -- ' */ [a] ;; \"b\n\"")
	f.Fuzz(func(t *testing.T, in string) {
		left := in + "\n"
		check := func(sql string) {
			if skipBlank(sql) == "" {
				t.Fatalf("statement %q is empty", sql)
			}
			skipped, rest, ok := strings.Cut(left, sql)
			if !ok || skipBlank(skipped) != "" {
				t.Fatalf("statement %q of %q comes after %q", sql, in, skipped)
			}
			left = rest
		}
		s := newSplitter()
		for line := range strings.SplitSeq(in, "\n") {
			s.add(line)
			for sql, _, ok := s.next(); ok; sql, _, ok = s.next() {
				check(sql)
			}
		}
		if sql, _, ok := s.rest(); ok {
			check(sql)
		} else if skipBlank(left) != "" {
			t.Fatalf("%q is left of %q", left, in)
		}
	})
}
