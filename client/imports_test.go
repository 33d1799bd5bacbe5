package client_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports: a program that uses the SDK must not carry a database engine, a
// consensus or a gossip library, and nothing of a node. OpenTelemetry's interface of
// traces, which programs that trace have anyway, is the one library.
func TestImports(t *testing.T) {
	const module = "github.com/facetd/facetd/"
	allowed := map[string]bool{module + "facet": true, module + "internal/wire": true, module + "client": true, module + "client/sqldriver": true}
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".", "./sqldriver").Output()
	if err != nil {
		t.Fatal(err)
	}
	traces := []string{"go.opentelemetry.io/otel/trace", "go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/semconv/", "github.com/cespare/xxhash/v2"}
	for p := range strings.FieldsSeq(string(out)) {
		if !allowed[p] && !slices.ContainsFunc(traces, func(prefix string) bool { return strings.HasPrefix(p, prefix) }) {
			t.Errorf("the SDK imports %s", p)
		}
	}
}
