package client_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: a program that uses the SDK must not carry a database engine, a
// consensus or a gossip library, and nothing of a node.
func TestImports(t *testing.T) {
	const module = "github.com/facetd/facetd/"
	allowed := map[string]bool{module + "facet": true, module + "internal/wire": true, module + "client": true, module + "client/sqldriver": true}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".", "./sqldriver").Output()
	if err != nil {
		t.Fatal(err)
	}
	for p := range strings.FieldsSeq(string(out)) {
		if !allowed[p] {
			t.Errorf("the SDK imports %s", p)
		}
	}
}
