package engine

import (
	"unsafe"

	"github.com/facetd/facetd/internal/sqlite"
)

// Hot are cache lines that running a request touches, see DB.Hot.
type Hot = sqlite.Lines

// hotAgain is how many requests run between two looks at whether the statement that
// runs most often is another one now.
const hotAgain = 64

// Hot gives the cache lines the next request of this facet will want, as far as can
// be told from the last one; nil while nothing is known. Who serves many facets in
// turn prefetches those of the next while this one runs. The goroutine of Run calls
// it; what it returns may be used by any.
func (db *DB) Hot() *Hot {
	st := db.cache.list.next
	if st == &db.cache.list || db.closed || db.broken != nil {
		return nil
	}
	if db.hotAge--; db.hotAge > 0 && db.hotConn == db.conn {
		return db.hot
	}
	db.hotAge = hotAgain
	if db.hotConn == db.conn && db.hotStmt == st {
		return db.hot
	}
	db.hotConn, db.hotStmt = db.conn, st
	l := new(Hot)
	l.Add(unsafe.Pointer(db), unsafe.Sizeof(*db))
	l.Add(unsafe.Pointer(db.store), unsafe.Sizeof(*db.store))
	l.Add(unsafe.Pointer(st), unsafe.Sizeof(*st))
	l.AddConn(db.conn, st.s)
	db.hot = l
	return l
}
