package disk

import "os"

// growTo is Allocate for file systems that cannot reserve space.
func growTo(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= size {
		return err
	}
	return f.Truncate(size)
}
