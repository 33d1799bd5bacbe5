package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if src, err := ReadBounded(name, 5); err != nil || string(src) != "12345" {
		t.Errorf("%q, %v", src, err)
	}
	if _, err := ReadBounded(name, 4); err == nil || !strings.Contains(err.Error(), "more than 4 bytes") {
		t.Errorf("a file over the limit: %v", err)
	}
	if _, err := ReadBounded(name+"x", 5); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
}
