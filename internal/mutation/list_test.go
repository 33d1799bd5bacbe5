package mutation

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/facetd/facetd/internal/broken"
)

// A described switch is what package broken says of one.
type described struct {
	s     broken.Switch
	ident string   // its constant
	rules []string // R1, ...
	what  string   // what goes wrong
}

const rules = 53

var ruleName = regexp.MustCompile(`^R([1-9][0-9]?)$`)

// switches reads the list of package broken from its source, in order.
func switches(t testing.TB) (list []described) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../broken/broken.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v := spec.(*ast.ValueSpec)
			name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			x := described{s: broken.Switch(name), ident: v.Names[0].Name}
			if x.rules, x.what, err = describe(v.Doc.Text()); err != nil {
				t.Errorf("comment of broken.%s: %v", x.ident, err)
			}
			list = append(list, x)
		}
	}
	if len(list) == 0 {
		t.Fatal("package broken has no switches")
	}
	return list
}

// describe reads the comment of a switch: "R1, R2: what goes wrong."
func describe(doc string) (names []string, what string, err error) {
	head, what, ok := strings.Cut(strings.Join(strings.Fields(doc), " "), ": ")
	if !ok || !strings.HasSuffix(what, ".") {
		return nil, "", fmt.Errorf("%q is not of the form %q", doc, "R1: what goes wrong.")
	}
	for _, name := range strings.Split(head, ", ") {
		if m := ruleName.FindStringSubmatch(name); m != nil {
			if n, _ := strconv.Atoi(m[1]); n <= rules {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil, "", fmt.Errorf("%q names no rule", head)
	}
	return names, strings.TrimSuffix(what, "."), nil
}
