package httpapi

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What differs from run to run in the examples of the docs, and how it is shown.
var volatile = []struct {
	re *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`"duration_ms":[0-9.e-]+`), `"duration_ms":0.03`},
	{regexp.MustCompile(`"query_duration_ms":[0-9.e-]+`), `"query_duration_ms":0.03`},
	{regexp.MustCompile(`"tx":"[0-9a-f]{32}"`), `"tx":"5c1f0e…"`},
	{regexp.MustCompile(`"incarnation":"[0-9a-f]{32}"`), `"incarnation":"9d2a41…"`},
	{regexp.MustCompile(`"source":"[0-9a-f]{32}"`), `"source":"9d2a41…"`},
	{regexp.MustCompile(`"position":"[0-9.]+"`), `"position":"1.42"`},
	{regexp.MustCompile(`"bookmark":"fb1[0-9a-v]{58}"`), `"bookmark":"fb1kq3…"`},
	{regexp.MustCompile(`"size_bytes":[0-9]+`), `"size_bytes":8192`},
	{regexp.MustCompile(`"baton":"[^"]+"`), `"baton":"AQFk…"`},
	{regexp.MustCompile(`127\.0\.0\.1:[0-9]+`), `localhost:7400`},
	{regexp.MustCompile(`(?m)^X-Request-Id: [0-9a-f]+`), `X-Request-Id: 31854f4a61763b87`},
	{regexp.MustCompile(`(?m)^Date: .*`), `Date: Sat, 22 Nov 2025 08:00:00 GMT`},
}

// The examples of docs/HTTP.md are run, in order, by a shell; what they print is
// what the docs show.
func TestDocs(t *testing.T) {
	for _, p := range []string{"sh", "curl", "sqlite3"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED, SO THE EXAMPLES OF THE DOCS ARE NOT TRIED: there is no %s on this machine", p)
		}
	}
	const path = "../../docs/HTTP.md"
	src, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, Options{})
	a.svc.Nodes.Step(40) // operations take time
	dir := t.TempDir()
	state := "" // assignments of earlier examples
	var out bytes.Buffer
	inside := false
	for _, line := range strings.SplitAfter(string(src), "\n") {
		if strings.HasPrefix(line, "```") {
			inside = strings.HasPrefix(line, "```console")
		}
		command, isCommand := strings.CutPrefix(line, "$ ")
		if inside && !isCommand && !strings.HasPrefix(line, "```") {
			continue // what the docs say it prints
		}
		out.WriteString(line)
		if !inside || !isCommand {
			continue
		}
		command = strings.ReplaceAll(command, "localhost:7400", strings.TrimPrefix(a.url, "http://"))
		if strings.HasPrefix(command, "TX=") {
			state += command
			// The value must be the same for all that follow.
			value := shell(t, dir, command+"printf %s \"$TX\"")
			state = "TX=" + value + "\n"
			continue
		}
		got := shell(t, dir, state+command)
		for _, v := range volatile {
			got = v.re.ReplaceAllString(got, v.as)
		}
		got = strings.ReplaceAll(got, "\r", "")
		if got != "" && !strings.HasSuffix(got, "\n") {
			got += "\n"
		}
		out.WriteString(got)
	}
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if out.String() != string(src) {
		t.Errorf("docs/HTTP.md shows something else (go test -update rewrites it):\n%s", diff(string(src), out.String()))
	}
}

// diff shows the first line that differs.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return "docs: " + w[i] + "\nnow:  " + g[i]
		}
	}
	return "one is longer"
}

func shell(t *testing.T, dir, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// -s takes curl's progress away, where an example does not itself.
	cmd := exec.CommandContext(ctx, "sh", "-c", "curl() { command curl -s \"$@\"; }\n"+script)
	cmd.Dir = dir
	cmd.WaitDelay = 5 * time.Second
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, b)
	}
	return string(b)
}
