package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"unsafe"
)

// grow accounts for a file that becomes size bytes long.
func (m *Mem) grow(n *node, size int64) error {
	more := size - n.data.size
	if more <= 0 || !n.linked {
		return nil
	}
	if m.quota >= 0 && m.used+more > m.quota {
		return syscall.ENOSPC
	}
	m.used += more
	return nil
}

type memFile struct {
	m        *Mem
	n        *node
	writable bool
	direct   bool
	closed   bool // guarded by m.mu
}

func (f *memFile) name() string {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return f.n.name
}

// do runs one operation on the file.
func (f *memFile) do(op Op, effect func() error) error {
	name := f.name()
	apply, err := f.m.begin(op, name)
	defer f.m.mu.Unlock()
	switch {
	case f.closed:
		err = fs.ErrClosed
	case op&OpChanges != 0 && op != OpDatasync && !f.writable:
		err = syscall.EBADF
	case apply:
		if e := effect(); err == nil {
			err = e
		}
	case op == OpDatasync && !errors.Is(err, ErrCrashed):
		f.n.data.failSync()
	}
	return opError(op, name, err)
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, opError(OpRead, f.name(), fs.ErrInvalid)
	}
	if f.direct && (off%BlockSize != 0 || len(p)%BlockSize != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(p)))%BlockSize != 0) {
		return 0, opError(OpRead, f.name(), fmt.Errorf("direct read is not aligned: %w", syscall.EINVAL))
	}
	var eof error
	err = f.do(OpRead, func() error {
		n, eof = f.n.data.readAt(p, off)
		return nil
	})
	if err != nil {
		return n, err
	}
	return n, eof // bare io.EOF, as io.ReaderAt wants it
}

func (f *memFile) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, opError(OpWrite, f.name(), fs.ErrInvalid)
	}
	err = f.do(OpWrite, func() error {
		if err := f.m.grow(f.n, off+int64(len(p))); err != nil {
			return err
		}
		f.n.data.writeAt(p, off)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *memFile) Allocate(size int64) error {
	return f.do(OpAllocate, func() error {
		if err := f.m.grow(f.n, size); err != nil {
			return err
		}
		f.n.data.size = max(f.n.data.size, size)
		return nil
	})
}

func (f *memFile) Truncate(size int64) error {
	if size < 0 {
		return opError(OpTruncate, f.name(), fs.ErrInvalid)
	}
	return f.do(OpTruncate, func() error {
		if err := f.m.grow(f.n, size); err != nil {
			return err
		}
		if less := f.n.data.size - size; less > 0 && f.n.linked {
			f.m.used -= less
		}
		f.n.data.truncate(size)
		return nil
	})
}

func (f *memFile) Datasync() error {
	return f.do(OpDatasync, func() error { f.n.data.sync(); return nil })
}

func (f *memFile) Size() (size int64, err error) {
	err = f.do(OpStat, func() error { size = f.n.data.size; return nil })
	return size, err
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return opError(OpOpen, f.n.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
