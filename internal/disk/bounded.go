package disk

import (
	"fmt"
	"io"
	"os"
)

// ReadBounded reads a whole file of the machine, of at most limit bytes: what people
// write by hand, settings and secrets.
func ReadBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	src, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(src)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return src, err
}
