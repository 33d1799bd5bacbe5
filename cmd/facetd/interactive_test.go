package main

import (
	"io"
	"strings"
	"testing"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/cmd/facetd/internal/shell"
	"github.com/facetd/facetd/node"
)

// typist types lines and records the prompts it was shown.
type typist struct {
	lines   []string
	prompts []string
	history []string
}

func (e *typist) Prompt(prompt string) (string, error) {
	e.prompts = append(e.prompts, prompt)
	if len(e.lines) == 0 {
		return "", io.EOF
	}
	line := e.lines[0]
	e.lines = e.lines[1:]
	if line == "^C" {
		return "", shell.ErrAborted
	}
	return line, nil
}

func (e *typist) Remember(s string) { e.history = append(e.history, s) }

func openFacet(t *testing.T, name string) *client.Facet {
	t.Helper()
	n, err := node.Open(t.Context(), node.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Open(t.Context(), []string{n.Addr().String()}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	f, err := c.Facet(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestInteractiveShell(t *testing.T) {
	f := openFacet(t, "acme/notes")
	talk := func(lines ...string) (ed *typist, out, errs string) {
		t.Helper()
		var o, e strings.Builder
		ed = &typist{lines: lines}
		sh := shell.New(shell.Config{Facet: f, Out: &o, Err: &e, Mode: shell.ModeTable, Headers: true, Null: "NULL"})
		if err := sh.Interactive(t.Context(), ed); err != nil {
			t.Fatal(err)
		}
		return ed, o.String(), e.String()
	}

	ed, out, errs := talk(
		"CREATE TABLE t(x);", "INSERT INTO t", "VALUES (1),", "^C", "INSERT INTO t VALUES('it''s", "two lines');",
		"SELEC 1; DELETE FROM t;", "SELECT x FROM t;", ".quit", "DELETE FROM t;")
	want := "1 row changed\n x\n─────────────────\n it's\\ntwo lines\n(1 row)\n"
	if out != want {
		t.Errorf("got\n%s\nwant\n%s", out, want)
	}
	if !strings.Contains(errs, `error: near "SELEC": syntax error`) {
		t.Errorf("errors: %s", errs)
	}
	prompts := "acme/notes> ,acme/notes> ,       ...> ,       ...> ,acme/notes> ,      '...> ,acme/notes> ,acme/notes> ,acme/notes> "
	if got := strings.Join(ed.prompts, ","); got != prompts {
		t.Errorf("prompts\n%s, want\n%s", got, prompts)
	}
	if n := len(ed.history); n != 5 || ed.history[1] != "INSERT INTO t VALUES('it''s two lines');" {
		t.Errorf("history is %q", ed.history)
	}

	// A transaction is seen in the prompt, survives an error, and is rolled back when
	// the shell is left.
	ed, out, errs = talk("BEGIN;", "INSERT INTO t VALUES(2);", "nonsense;", "SELECT count(*) FROM t;", "COMMIT;",
		".mode line", "SELECT count(*) AS n FROM t;", "BEGIN;", "DELETE FROM t;")
	if out != "1 row changed\n count(*)\n──────────\n        2\n(1 row)\nn = 2\n2 rows changed\n" {
		t.Errorf("got\n%s", out)
	}
	if !strings.Contains(errs, "the open transaction was rolled back") || ed.prompts[1] != "acme/notes*> " || ed.prompts[5] != "acme/notes> " {
		t.Errorf("prompts %q, errors %s", ed.prompts, errs)
	}
	if _, out, _ = talk(".mode tabs", ".headers off", "SELECT count(*) FROM t;", "SELECT 1"); out != "2\n" {
		t.Errorf("after the shell was left: %q", out)
	}
	if _, _, errs = talk("SELECT 1"); !strings.Contains(errs, "semicolon") {
		t.Errorf("an unfinished statement is not mentioned: %q", errs)
	}
}
