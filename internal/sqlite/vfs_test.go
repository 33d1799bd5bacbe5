package sqlite

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memVFS keeps databases in Go memory and records what SQLite calls.
type memVFS struct {
	mu    sync.Mutex
	files map[string]*memFile
}

// memFile is a database in memory, shared by whoever opens the name.
type memFile struct {
	data []byte
	log  []string // calls, if record is set
	// record turns the log on.
	record bool
	// fail, if set, decides whether the call named op fails (or panics).
	fail    func(op string) error
	commits int
	closed  int
}

func (v *memVFS) Open(name string, flags OpenFlags) (File, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.files[name]
	if f == nil {
		if !flags.Create {
			return nil, fmt.Errorf("open %s: does not exist", name)
		}
		f = &memFile{}
		v.files[name] = f
	}
	if err := f.call("open"); err != nil {
		return nil, err
	}
	return f, nil
}

func (v *memVFS) file(name string) *memFile {
	v.mu.Lock()
	defer v.mu.Unlock()
	f := v.files[name]
	if f == nil {
		f = &memFile{}
		v.files[name] = f
	}
	return f
}

func (f *memFile) call(op string, args ...any) error {
	if f.record {
		f.log = append(f.log, fmt.Sprint(append([]any{op}, args...)...))
	}
	if f.fail != nil {
		return f.fail(op)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.record || f.fail != nil {
		if err := f.call("read", " ", off, " ", len(p)); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	return copy(p, f.data[off:]), nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.record || f.fail != nil {
		if err := f.call("write", " ", off/4096+1); err != nil {
			return 0, err
		}
	}
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, end-int64(len(f.data)))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.call("truncate", " ", size/4096); err != nil {
		return err
	}
	if size < int64(len(f.data)) {
		f.data = f.data[:size]
	} else {
		f.data = append(f.data, make([]byte, size-int64(len(f.data)))...)
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	if f.record || f.fail != nil {
		if err := f.call("size"); err != nil {
			return 0, err
		}
	}
	return int64(len(f.data)), nil
}

func (f *memFile) Sync() error { return f.call("sync") }

func (f *memFile) CommitPhaseTwo() error {
	f.commits++
	if f.record || f.fail != nil {
		return f.call("commit")
	}
	return nil
}

func (f *memFile) Close() error {
	f.closed++
	return f.call("close")
}

var testVFS = sync.OnceValue(func() *memVFS {
	v := &memVFS{files: map[string]*memFile{}}
	if err := RegisterVFS("test", v, DevicePowersafeOverwrite); err != nil {
		panic(err)
	}
	return v
})

var testNames atomic.Int64

// newName gives a database name of this process's own.
func newName(tb testing.TB) string {
	return fmt.Sprintf("%s-%d", tb.Name(), testNames.Add(1))
}

// bridged is the usual way to open over a Go VFS.
var bridged = Options{VFS: "test", Exclusive: true}

// open opens a new database in the test VFS.
func open(tb testing.TB, opts Options) (*Conn, *memFile) {
	tb.Helper()
	v := testVFS()
	name := newName(tb)
	c, err := Open(name, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
		v.mu.Lock()
		delete(v.files, name)
		v.mu.Unlock()
	})
	return c, v.file(name)
}

// exec runs statements and must succeed.
func exec(tb testing.TB, c *Conn, sql string) {
	tb.Helper()
	if err := c.ExecScript([]byte(sql)); err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
}

// dump runs one query and renders all rows with their types.
func dump(c *Conn, sql string) (string, error) {
	s, _, err := c.Prepare([]byte(sql))
	if err != nil {
		return "", err
	}
	if s == nil {
		return "", nil
	}
	var out []byte
	var rowErr error
	for {
		more, err := s.Step()
		if err != nil {
			rowErr = err
			break
		}
		if !more {
			break
		}
		for i := range s.ColumnCount() {
			out = fmt.Appendf(out, "%d:%q ", s.ColumnType(i), s.ColumnBytes(i))
		}
		out = append(out, '\n')
	}
	if err := s.Finalize(); rowErr == nil && err != nil {
		rowErr = err
	}
	return string(out), rowErr
}

func mustDump(tb testing.TB, c *Conn, sql string) string {
	tb.Helper()
	s, err := dump(c, sql)
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return s
}

// prep prepares one statement and finalises it with the test.
func prep(tb testing.TB, c *Conn, sql string) *Stmt {
	tb.Helper()
	s, _, err := c.PreparePersistent([]byte(sql))
	if err != nil {
		tb.Fatalf("%s: %v", sql, err)
	}
	return s
}

func wantCode(tb testing.TB, err error, code Code) {
	tb.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != code {
		tb.Fatalf("error %v, want code %d", err, code)
	}
}
