package mutation

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of switches in docs/RULES.md")

const (
	rulesDoc = root + "/docs/RULES.md"
	begin    = "<!-- switches: go test ./internal/mutation -run TestRules -update -->\n"
	end      = "<!-- end of switches -->\n"
)

// TestRules holds the rules, the switches, the tests and docs/RULES.md together: every
// rule has a switch or a reason why none can be, every switch has a test that exists, is
// asked for in the code of the product, and is in the table of the docs.
func TestRules(t *testing.T) {
	list := switches(t)
	asked, tests := source(t)

	of := make(map[string]bool) // rules with a switch
	known := make(map[string]described)
	for _, d := range list {
		if _, twice := known[string(d.s)]; twice {
			t.Errorf("two switches are named %s", d.s)
		}
		known[string(d.s)] = d
		for _, r := range d.rules {
			of[r] = true
		}
		if !asked[d.ident] {
			t.Errorf("nothing is broken by %s: no code asks for broken.%s", d.s, d.ident)
		}
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.s == d.s }) {
			t.Errorf("%s has no test in mutants", d.s)
		}
	}
	for n := 1; n <= rules; n++ {
		switch r := fmt.Sprintf("R%d", n); {
		case !of[r] && unbroken[r] == "":
			t.Errorf("%s can neither be broken nor is there a reason in unbroken", r)
		case of[r] && unbroken[r] != "":
			t.Errorf("%s has a switch, and a reason why it can have none", r)
		}
	}
	for _, m := range mutants {
		if _, ok := known[string(m.s)]; !ok {
			t.Errorf("package broken knows no %s", m.s)
		}
		if name, _, _ := strings.Cut(m.test, "/"); !tests[m.pkg+" "+name] {
			t.Errorf("%s: there is no %s in %s", m.s, name, m.pkg)
		}
	}

	doc, err := os.ReadFile(rulesDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(doc), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of switches", rulesDoc)
	}
	want := describeAll(list)
	switch {
	case table == want:
	case *update:
		if err := os.WriteFile(rulesDoc, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table of switches in %s is not that of the code: run %s", rulesDoc, strings.Trim(begin, "<!->\n "))
	}
}

// describeAll is the table for docs/RULES.md.
func describeAll(list []described) string {
	var b strings.Builder
	b.WriteString("\n| rule | switch | what is broken then | what fails |\n|---|---|---|---|\n")
	for _, d := range list {
		var by []string
		for _, m := range mutants {
			if m.s == d.s {
				by = append(by, fmt.Sprintf("`%s` %s", m.pkg, m.test))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.Join(d.rules, ", "), d.s, d.what, strings.Join(by, ", "))
	}
	b.WriteString("\n")
	return b.String()
}

// source tells which switches the code of the product asks for, by their constants, and
// which tests there are, by "package name".
func source(t *testing.T) (asked, tests map[string]bool) {
	t.Helper()
	asked, tests = make(map[string]bool), make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch rel, _ := filepath.Rel(root, path); {
		case err != nil:
			return err
		case d.IsDir():
			if rel == filepath.Join("internal", "mutation") || rel != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
		case strings.HasSuffix(path, "_test.go"):
			return testsOf(path, filepath.ToSlash(filepath.Dir(rel)), tests)
		case strings.HasSuffix(path, ".go"):
			return askedBy(path, asked)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return asked, tests
}

func testsOf(path, pkg string, tests map[string]bool) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
			tests[pkg+" "+f.Name.Name] = true
		}
	}
	return nil
}

func askedBy(path string, asked map[string]bool) error {
	src, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(src), "/internal/broken\"") {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "broken" {
				asked[s.Sel.Name] = true
			}
		}
		return true
	})
	return nil
}
