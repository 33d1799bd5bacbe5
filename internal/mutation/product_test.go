package mutation

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestNoSwitchInProduct looks into the program as it is built for users: no switch is in
// it, no name of one, and nothing of package broken. It looks into one that can be broken
// too, where all of them are, for a test that cannot fail proves nothing.
func TestNoSwitchInProduct(t *testing.T) {
	dir := t.TempDir()
	product, breakable := filepath.Join(dir, "product"), filepath.Join(dir, "breakable")
	goBuild(t, product, "./cmd/facetd")
	if found := traces(t, product); len(found) > 0 {
		t.Errorf("the program for users holds %q", found)
	}
	goBuild(t, breakable, "-tags", tag, "./cmd/facetd")
	if found := traces(t, breakable); len(found) != len(marks(t)) {
		t.Errorf("a program that can be broken holds only %q", found)
	}

	// Whoever starts such a program is told.
	for breaks, want := range map[string]string{"": "BROKEN BUILD", "NO_PREV": "BROKEN ON PURPOSE (NO_PREV)", "NO_SUCH_SWITCH": "no rule is broken by"} {
		cmd := exec.Command(breakable, "version")
		cmd.Env = append(os.Environ(), "FACETD_BREAK="+breaks)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		err := cmd.Run()
		if (err != nil) != (breaks == "NO_SUCH_SWITCH") || !bytes.Contains(stderr.Bytes(), []byte(want)) {
			t.Errorf("version with FACETD_BREAK=%s: %v, and says %s", breaks, err, &stderr)
		}
		if err == nil && !bytes.Contains(stdout.Bytes(), []byte(want)) {
			t.Errorf("version with FACETD_BREAK=%s prints %s", breaks, &stdout)
		}
	}
}

func goBuild(t *testing.T, to string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-trimpath", "-o", to}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// marks are what a program holds that can be broken.
func marks(t *testing.T) (list []string) {
	list = []string{"FACETD_BREAK", "BROKEN ON PURPOSE", "internal/broken.choose"}
	for _, d := range switches(t) {
		list = append(list, string(d.s))
	}
	return list
}

// traces are the marks in a program. Should the name of a switch be a word of somebody
// else, give the switch another one.
func traces(t *testing.T, program string) (found []string) {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range marks(t) {
		if bytes.Contains(b, []byte(m)) {
			found = append(found, m)
		}
	}
	return found
}
