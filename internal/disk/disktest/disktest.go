// Package disktest gives tests real file systems that are soon full. It owns the
// mounts it makes and ends them with the test; where mounting is not allowed it skips
// the test. Tests of any package call it, from the goroutine of the test; it has no
// code that runs outside of them.
package disktest

import (
	"os"
	"os/exec"
	"testing"
)

// Small mounts a file system of the given size, or skips the test where that is not
// allowed. It is unmounted with the test.
func Small(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a small disk (needs root): %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Lazily: the kernel may let go of a closed or mapped file a moment later.
		if out, err := exec.Command("umount", "--lazy", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// Fill appends to the file at path until there is not a byte left.
func Fill(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for size := len(buf); size > 0; {
		if _, err := f.Write(buf[:size]); err != nil {
			size /= 2
		}
	}
	if err := f.Close(); err != nil {
		t.Log("close filler:", err)
	}
}
