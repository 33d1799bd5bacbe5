package sqlite

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// A VFS opens database files for SQLite. Its method may be called from several
// goroutines, one per connection.
//
// Only main databases are asked for. Anything else SQLite might want on disk
// (journals, WAL, temporary files) is refused with CANTOPEN by the bridge; the
// settings of Options.Exclusive keep it in memory.
type VFS interface {
	// Open opens the database called name, the path given to Open in this
	// package. A File it returns is closed exactly once.
	Open(name string, flags OpenFlags) (File, error)
}

// OpenFlags says how SQLite opens a file.
type OpenFlags struct {
	ReadOnly bool // no writes will come
	Create   bool // a missing file may be created
}

// A File is one open database. Its methods are called by the goroutine that
// uses the connection, never two at once.
//
// Slices are SQLite's own memory, valid during the call. An error makes the
// statement fail with the IOERR code of the method, or with the code given by
// WithCode, and is the Cause of the resulting Error. A panic is caught and
// treated as an error.
type File interface {
	// ReadAt reads into p. Fewer bytes than len(p), with a nil error or io.EOF,
	// mean the end of the file; the bridge zeroes the rest.
	ReadAt(p []byte, off int64) (n int, err error)
	// WriteAt writes all of p: one page, at a multiple of the page size.
	WriteAt(p []byte, off int64) (n int, err error)
	// Truncate sets the size.
	Truncate(size int64) error
	// Size is the size in bytes.
	Size() (int64, error)
	// Sync is never called with synchronous=off.
	Sync() error
	// CommitPhaseTwo marks the end of a transaction that changed the file: what
	// was written since the last call is one commit.
	CommitPhaseTwo() error
	// Close releases the file.
	Close() error
}

// bridge is a registered VFS. Bridges live as long as the process.
type bridge struct {
	vfs    VFS
	name   string
	device int32
}

var bridges struct {
	sync.Mutex
	n   int
	all [maxVFS]*bridge
}

func isBridged(name string) bool {
	bridges.Lock()
	defer bridges.Unlock()
	for _, b := range bridges.all[:bridges.n] {
		if b.name == name {
			return true
		}
	}
	return false
}

// osFile is SQLite's memory for an open file. index is where the File is in the
// table of open files.
type osFile struct {
	methods uintptr
	index   uint64
}

// openFile is a File and where it belongs.
type openFile struct {
	file   File
	device int32
}

const (
	filesPerChunk = 1 << 10
	fileChunks    = maxFiles / filesPerChunk
)

// files is the table of open files. Lookups take no lock: chunks are never
// removed, and a slot is read only by the connection that owns it.
var files struct {
	chunks [fileChunks]atomic.Pointer[[filesPerChunk]openFile]

	sync.Mutex
	free []uint32
	n    uint32 // slots ever used
}

func lookup(p uintptr) *openFile {
	i := at[osFile](p).index
	return &files.chunks[i/filesPerChunk].Load()[i%filesPerChunk]
}

var errTooManyFiles = errors.New("sqlite: too many open files")

func addFile(f openFile) (uint64, error) {
	files.Lock()
	defer files.Unlock()
	var i uint32
	if n := len(files.free); n > 0 {
		i = files.free[n-1]
		files.free = files.free[:n-1]
	} else {
		if files.n == maxFiles {
			return 0, errTooManyFiles
		}
		i = files.n
		files.n++
		if c := &files.chunks[i/filesPerChunk]; c.Load() == nil {
			c.Store(new([filesPerChunk]openFile))
		}
	}
	files.chunks[i/filesPerChunk].Load()[i%filesPerChunk] = f
	return uint64(i), nil
}

func dropFile(i uint64) {
	files.Lock()
	defer files.Unlock()
	files.chunks[i/filesPerChunk].Load()[i%filesPerChunk] = openFile{}
	files.free = append(files.free, uint32(i))
}

// ioMethods is the one method table all bridged files share, in memory SQLite
// may keep.
var ioMethods = sync.OnceValue(func() uintptr {
	p := libc.Xcalloc(nil, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_io_methods{})))
	if p == 0 {
		return 0
	}
	*at[sqlite3.Tsqlite3_io_methods](p) = sqlite3.Tsqlite3_io_methods{
		FiVersion:               1, // no shared memory (so no WAL), no mmap
		FxClose:                 fptr(fileClose),
		FxRead:                  fptr(fileRead),
		FxWrite:                 fptr(fileWrite),
		FxTruncate:              fptr(fileTruncate),
		FxSync:                  fptr(fileSync),
		FxFileSize:              fptr(fileSize),
		FxLock:                  fptr(fileLock),
		FxUnlock:                fptr(fileLock),
		FxCheckReservedLock:     fptr(fileCheckReserved),
		FxFileControl:           fptr(fileControl),
		FxSectorSize:            fptr(fileSectorSize),
		FxDeviceCharacteristics: fptr(fileDevice),
	}
	return p
})

// RegisterVFS makes v available under name for Options.VFS, for the life of the
// process. device is what v promises (Device constants); locks are not offered
// because one connection owns a file. It fails if the name is taken.
func RegisterVFS(name string, v VFS, device int) error {
	if err := start(); err != nil {
		return err
	}
	if name == "" || len(name) > 255 || strings.IndexByte(name, 0) >= 0 {
		return fmt.Errorf("register VFS %q: bad name", name)
	}
	bridges.Lock()
	defer bridges.Unlock()
	if bridges.n == maxVFS {
		return fmt.Errorf("register VFS %q: more than %d", name, maxVFS)
	}
	tls := libc.NewTLS()
	defer tls.Close()
	cname, err := libc.CString(name)
	if err != nil {
		return fmt.Errorf("register VFS %q: %w", name, err)
	}
	p := libc.Xcalloc(nil, 1, libc.Tsize_t(unsafe.Sizeof(sqlite3.Tsqlite3_vfs{})))
	if p == 0 || ioMethods() == 0 {
		libc.Xfree(nil, cname)
		return fmt.Errorf("register VFS %q: out of memory", name)
	}
	discard := func() {
		libc.Xfree(nil, cname)
		libc.Xfree(nil, p)
	}
	if sqlite3.Xsqlite3_vfs_find(tls, cname) != 0 {
		discard()
		return fmt.Errorf("register VFS %q: name is taken", name)
	}
	stock := sqlite3.Xsqlite3_vfs_find(tls, 0)
	if stock == 0 {
		discard()
		return fmt.Errorf("register VFS %q: no stock VFS to take clock and randomness from", name)
	}
	sv := at[sqlite3.Tsqlite3_vfs](stock)
	*at[sqlite3.Tsqlite3_vfs](p) = sqlite3.Tsqlite3_vfs{
		FiVersion:      2,
		FszOsFile:      int32(unsafe.Sizeof(osFile{})),
		FmxPathname:    maxPathname,
		FzName:         cname,
		FpAppData:      uintptr(bridges.n),
		FxOpen:         fptr(vfsOpen),
		FxDelete:       fptr(vfsDelete),
		FxAccess:       fptr(vfsAccess),
		FxFullPathname: fptr(vfsFullPathname),
		FxDlOpen:       fptr(vfsDlOpen),
		FxDlError:      fptr(vfsDlError),
		FxDlSym:        fptr(vfsDlSym),
		FxDlClose:      fptr(vfsDlClose),
		// These use nothing of the VFS they are called for.
		FxRandomness:       sv.FxRandomness,
		FxSleep:            sv.FxSleep,
		FxCurrentTime:      sv.FxCurrentTime,
		FxGetLastError:     sv.FxGetLastError,
		FxCurrentTimeInt64: sv.FxCurrentTimeInt64,
	}
	bridges.all[bridges.n] = &bridge{vfs: v, name: name, device: int32(device)}
	if rc := sqlite3.Xsqlite3_vfs_register(tls, p, 0); rc != sqlite3.SQLITE_OK {
		bridges.all[bridges.n] = nil
		discard()
		return fmt.Errorf("register VFS %q: %s", name, errstr(tls, rc))
	}
	bridges.n++
	return nil
}

// report keeps err for the Error of the running call and gives its code. The
// first error of a call is the cause; what follows from it is not.
func report(tls *libc.TLS, err error, def Code) int32 {
	if t := threadOf(tls); t != nil && t.conn != nil && t.conn.vfsErr == nil {
		t.conn.vfsErr = err
	}
	return int32(codeFor(err, def))
}

// guard turns a panic into the result code def. It must be deferred directly.
func guard(tls *libc.TLS, rc *int32, def Code) {
	if r := recover(); r != nil {
		*rc = report(tls, &PanicError{r, debug.Stack()}, def)
	}
}

var errNotMain = errors.New("sqlite: only main databases can be opened in this VFS")

func vfsOpen(tls *libc.TLS, vfs, zName, file uintptr, flags int32, outFlags uintptr) (rc int32) {
	defer guard(tls, &rc, CANTOPEN)
	f := at[osFile](file)
	f.methods = 0 // SQLite closes a file that failed to open if it has methods
	if flags&sqlite3.SQLITE_OPEN_MAIN_DB == 0 || zName == 0 {
		return report(tls, errNotMain, CANTOPEN)
	}
	b := bridges.all[at[sqlite3.Tsqlite3_vfs](vfs).FpAppData]
	g, err := b.vfs.Open(libc.GoString(zName), OpenFlags{
		ReadOnly: flags&sqlite3.SQLITE_OPEN_READONLY != 0,
		Create:   flags&sqlite3.SQLITE_OPEN_CREATE != 0,
	})
	if err != nil {
		return report(tls, err, CANTOPEN)
	}
	i, err := addFile(openFile{g, b.device})
	if err != nil {
		return report(tls, errors.Join(err, g.Close()), CANTOPEN)
	}
	f.index = i
	f.methods = ioMethods()
	if outFlags != 0 {
		*at[int32](outFlags) = flags
	}
	return sqlite3.SQLITE_OK
}

// vfsDelete is asked to delete journals that do not exist.
func vfsDelete(tls *libc.TLS, vfs, zName uintptr, syncDir int32) int32 {
	return sqlite3.SQLITE_IOERR_DELETE_NOENT
}

// vfsAccess is asked about journals and WAL files: there are none.
func vfsAccess(tls *libc.TLS, vfs, zName uintptr, flags int32, out uintptr) int32 {
	*at[int32](out) = 0
	return sqlite3.SQLITE_OK
}

func vfsFullPathname(tls *libc.TLS, vfs, zName uintptr, n int32, out uintptr) int32 {
	l := int32(libc.Xstrlen(tls, zName)) + 1
	if l > n {
		return sqlite3.SQLITE_CANTOPEN
	}
	copy(view(out, l), view(zName, l))
	return sqlite3.SQLITE_OK
}

// Extensions cannot be loaded: there is no machine code to run them.

func vfsDlOpen(tls *libc.TLS, vfs, zName uintptr) uintptr { return 0 }

func vfsDlError(tls *libc.TLS, vfs uintptr, n int32, out uintptr) {
	const text = "extensions cannot be loaded"
	if n > 0 {
		b := view(out, n)
		b[copy(b[:n-1], text)] = 0
	}
}

func vfsDlSym(tls *libc.TLS, vfs, handle, zSym uintptr) uintptr { return 0 }

func vfsDlClose(tls *libc.TLS, vfs, handle uintptr) {}

func fileClose(tls *libc.TLS, file uintptr) (rc int32) {
	defer guard(tls, &rc, IOERR_CLOSE)
	f := at[osFile](file)
	g := lookup(file).file
	dropFile(f.index)
	f.methods = 0
	if err := g.Close(); err != nil {
		return report(tls, err, IOERR_CLOSE)
	}
	return sqlite3.SQLITE_OK
}

func fileRead(tls *libc.TLS, file, buf uintptr, n int32, off int64) (rc int32) {
	defer guard(tls, &rc, IOERR_READ)
	p := view(buf, n)
	got, err := lookup(file).file.ReadAt(p, off)
	switch {
	case got == len(p):
		return sqlite3.SQLITE_OK
	case err != nil && !errors.Is(err, io.EOF):
		return report(tls, err, IOERR_READ)
	}
	clear(p[max(got, 0):])
	return sqlite3.SQLITE_IOERR_SHORT_READ
}

func fileWrite(tls *libc.TLS, file, buf uintptr, n int32, off int64) (rc int32) {
	defer guard(tls, &rc, IOERR_WRITE)
	got, err := lookup(file).file.WriteAt(view(buf, n), off)
	if err != nil {
		return report(tls, err, IOERR_WRITE)
	}
	if got != int(n) {
		return report(tls, io.ErrShortWrite, IOERR_WRITE)
	}
	return sqlite3.SQLITE_OK
}

func fileTruncate(tls *libc.TLS, file uintptr, size int64) (rc int32) {
	defer guard(tls, &rc, IOERR_TRUNCATE)
	if err := lookup(file).file.Truncate(size); err != nil {
		return report(tls, err, IOERR_TRUNCATE)
	}
	return sqlite3.SQLITE_OK
}

func fileSync(tls *libc.TLS, file uintptr, flags int32) (rc int32) {
	defer guard(tls, &rc, IOERR_FSYNC)
	if err := lookup(file).file.Sync(); err != nil {
		return report(tls, err, IOERR_FSYNC)
	}
	return sqlite3.SQLITE_OK
}

func fileSize(tls *libc.TLS, file, out uintptr) (rc int32) {
	defer guard(tls, &rc, IOERR_FSTAT)
	n, err := lookup(file).file.Size()
	if err != nil {
		return report(tls, err, IOERR_FSTAT)
	}
	*at[int64](out) = n
	return sqlite3.SQLITE_OK
}

// fileLock is both lock and unlock: one connection owns the file.
func fileLock(tls *libc.TLS, file uintptr, level int32) int32 { return sqlite3.SQLITE_OK }

func fileCheckReserved(tls *libc.TLS, file, out uintptr) int32 {
	*at[int32](out) = 0
	return sqlite3.SQLITE_OK
}

func fileControl(tls *libc.TLS, file uintptr, op int32, arg uintptr) (rc int32) {
	switch op {
	case sqlite3.SQLITE_FCNTL_COMMIT_PHASETWO:
		defer guard(tls, &rc, IOERR)
		if err := lookup(file).file.CommitPhaseTwo(); err != nil {
			return report(tls, err, IOERR)
		}
		return sqlite3.SQLITE_OK
	case sqlite3.SQLITE_FCNTL_PRAGMA:
		return filePragma(tls, arg)
	default:
		return sqlite3.SQLITE_NOTFOUND
	}
}

// pragmaRefused is a variable because the compiler (go1.26.8) fails on a copy of
// constant length to an address made by at.
var pragmaRefused = []byte("this PRAGMA cannot be changed here\x00")

// filePragma sees every PRAGMA before SQLite does and refuses what would break
// the bridge: any journal but memory (with exclusive locking SQLite would even
// try WAL), shared locking, temporary files, and the process-wide directory
// strings, which would outlive the arena they are allocated in. arg is an array
// of three strings: message out, name, value or NULL.
func filePragma(tls *libc.TLS, arg uintptr) int32 {
	pragma, value := *word(arg + 8), *word(arg + 16)
	if value == 0 {
		return sqlite3.SQLITE_NOTFOUND // a question
	}
	v := libc.GoString(value)
	ok := true
	switch strings.ToLower(libc.GoString(pragma)) {
	case "journal_mode":
		ok = strings.EqualFold(v, "memory")
	case "locking_mode":
		ok = strings.EqualFold(v, "exclusive")
	case "temp_store":
		ok = strings.EqualFold(v, "memory") || v == "2"
	case "temp_store_directory", "data_store_directory":
		ok = false
	}
	if ok {
		return sqlite3.SQLITE_NOTFOUND
	}
	if m := memMalloc(tls, int32(len(pragmaRefused))); m != 0 { // SQLite frees it
		copy(view(m, int32(len(pragmaRefused))), pragmaRefused)
		*word(arg) = m
	}
	return sqlite3.SQLITE_ERROR
}

func fileSectorSize(tls *libc.TLS, file uintptr) int32 { return 4096 }

func fileDevice(tls *libc.TLS, file uintptr) int32 { return lookup(file).device }
