package sqlite

import (
	"fmt"
	"sync"
	"unsafe"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// fptr is the value translated C code calls a Go function by: the address of
// the function's descriptor. f must be a top-level function.
func fptr[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

var engine struct {
	once sync.Once
	err  error

	mu       sync.Mutex
	accounts map[*account]struct{}
}

// start configures and initialises SQLite once per process: allocator and page
// cache of this package, no mutex per connection, no lookaside by default
// (connections ask for it), no memory statistics (they cost a process-wide
// mutex per allocation; accounts replace them).
func start() error {
	engine.once.Do(func() {
		engine.accounts = map[*account]struct{}{}
		engine.err = configure()
	})
	return engine.err
}

func configure() error {
	tls := libc.NewTLS()
	defer tls.Close()
	// SQLite copies the method tables; args only has to live through the calls.
	args := libc.Xmalloc(tls, 64)
	methods := libc.Xmalloc(tls, 256)
	if args == 0 || methods == 0 {
		return &Error{Code: NOMEM, Message: "out of memory", Offset: -1}
	}
	defer libc.Xfree(tls, args)
	defer libc.Xfree(tls, methods)

	config := func(op int32, list ...any) error {
		switch rc := sqlite3.Xsqlite3_config(tls, op, libc.VaList(args, list...)); rc {
		case sqlite3.SQLITE_OK:
			return nil
		case sqlite3.SQLITE_MISUSE:
			return ErrInUse
		default:
			return fmt.Errorf("sqlite: configure option %d: %s", op, errstr(tls, rc))
		}
	}
	*at[sqlite3.Tsqlite3_mem_methods](methods) = sqlite3.Tsqlite3_mem_methods{
		FxMalloc:   fptr(memMalloc),
		FxFree:     fptr(memFree),
		FxRealloc:  fptr(memRealloc),
		FxSize:     fptr(memSize),
		FxRoundup:  fptr(memRoundup),
		FxInit:     fptr(memInit),
		FxShutdown: fptr(memShutdown),
	}
	if err := config(sqlite3.SQLITE_CONFIG_MALLOC, methods); err != nil {
		return err
	}
	if err := config(sqlite3.SQLITE_CONFIG_GETPCACHE2, methods); err != nil {
		return err
	}
	stockCacheInit = at[sqlite3.Tsqlite3_pcache_methods2](methods).FxInit
	*at[sqlite3.Tsqlite3_pcache_methods2](methods) = sqlite3.Tsqlite3_pcache_methods2{
		FiVersion:   1,
		FxInit:      fptr(pcacheInit),
		FxShutdown:  fptr(pcacheShutdown),
		FxCreate:    fptr(pcacheCreate),
		FxCachesize: fptr(pcacheCachesize),
		FxPagecount: fptr(pcachePagecount),
		FxFetch:     fptr(pcacheFetch),
		FxUnpin:     fptr(pcacheUnpin),
		FxRekey:     fptr(pcacheRekey),
		FxTruncate:  fptr(pcacheTruncate),
		FxDestroy:   fptr(pcacheDestroy),
		FxShrink:    fptr(pcacheShrink),
	}
	if err := config(sqlite3.SQLITE_CONFIG_PCACHE2, methods); err != nil {
		return err
	}
	if err := config(sqlite3.SQLITE_CONFIG_MULTITHREAD); err != nil {
		return err
	}
	if err := config(sqlite3.SQLITE_CONFIG_MEMSTATUS, int32(0)); err != nil {
		return err
	}
	if err := config(sqlite3.SQLITE_CONFIG_LOOKASIDE, int32(0), int32(0)); err != nil {
		return err
	}
	if err := config(sqlite3.SQLITE_CONFIG_URI, int32(0)); err != nil {
		return err
	}
	if rc := sqlite3.Xsqlite3_initialize(tls); rc != sqlite3.SQLITE_OK {
		return fmt.Errorf("sqlite: initialise: %s", errstr(tls, rc))
	}
	return nil
}

// Version is the version of the SQLite library, for example "3.53.4".
func Version() string { return sqlite3.SQLITE_VERSION }

// Memory is what SQLite holds in this process.
type Memory struct {
	// Connections is the sum of Conn.MemoryUsed over connections with an account.
	Connections int64
	// Other is what all other allocations hold.
	Other int64
	// PageSlabs is the memory page slots are cut from, used or not. Slots in use
	// are also part of Connections.
	PageSlabs int64
}

// MemoryUsedGlobal adds up the process. SQLite's own hard heap limit is not
// offered: it works only with process-wide statistics, whose mutex every
// allocation would take, and it fails whichever connection allocates next
// rather than the one that took too much. Options.MemoryLimit does better.
func MemoryUsedGlobal() Memory {
	m := Memory{Other: globalUsed.Load(), PageSlabs: globalPages.Load()}
	engine.mu.Lock()
	defer engine.mu.Unlock()
	for a := range engine.accounts {
		m.Connections += a.used.Load()
	}
	return m
}
