package engine

import (
	"bytes"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/sqlite"
)

// stmt is a prepared statement and what the engine has to know of it. The facts
// are gathered while it is prepared, because the authorizer is not asked again
// when a cached statement runs.
type stmt struct {
	s        *sqlite.Stmt
	sql      string // key in the cache, "" for a statement that is not in it
	verb     verb
	readOnly bool
	params   int
	fails    bool // its text speaks of FAIL, see mayFail
	journal  bool // it cannot be undone without SQLite's journal, see runOne

	names   []string // of parameters, read when first needed
	byName  map[string]int
	columns []byte // body of ItemColumns
	shape   int64  // how often the statement had been prepared again when columns was made

	bytes      int
	prev, next *stmt // in order of use
}

// stmtCache keeps prepared statements by their exact text, the least recently
// used ones leave first. Invariant: len(byText) <= maxCached and bytes <=
// maxCachedBytes once put returns.
type stmtCache struct {
	byText map[string]*stmt
	list   stmt // list.next is the most recently used
	bytes  int
}

func (c *stmtCache) init() {
	c.byText = make(map[string]*stmt)
	c.list.prev, c.list.next = &c.list, &c.list
	c.bytes = 0
}

// get finds the statement without allocating.
func (c *stmtCache) get(sql []byte) *stmt {
	st := c.byText[string(sql)]
	if st != nil && c.list.next != st {
		st.unlink()
		c.pushFront(st)
	}
	return st
}

func (c *stmtCache) put(st *stmt, sql []byte) {
	st.sql = string(sql)
	// The text, its copy in SQLite, and the program.
	st.bytes = 2*len(sql) + int(st.s.Counter(sqlite.CounterMemoryUsed, false))
	for len(c.byText) > 0 && (len(c.byText) >= maxCached || c.bytes+st.bytes > maxCachedBytes) {
		c.drop(c.list.prev)
	}
	c.byText[st.sql] = st
	c.bytes += st.bytes
	c.pushFront(st)
}

func (c *stmtCache) drop(st *stmt) {
	delete(c.byText, st.sql)
	c.bytes -= st.bytes
	st.unlink()
	st.sql = ""
	_ = st.s.Finalize() // repeats the error of the last execution, which was told
}

func (st *stmt) unlink() {
	st.prev.next, st.next.prev = st.next, st.prev
	st.prev, st.next = nil, nil
}

func (c *stmtCache) pushFront(st *stmt) {
	st.prev, st.next = &c.list, c.list.next
	st.next.prev = st
	c.list.next = st
}

// clear finalizes everything.
func (c *stmtCache) clear() {
	for c.list.next != &c.list {
		c.drop(c.list.next)
	}
}

// prepare gives the only statement of sql, from the cache if it can.
func (db *DB) prepare(sql []byte) (*stmt, error) {
	if len(sql) <= maxCachedSQL {
		if st := db.cache.get(sql); st != nil {
			return st, nil
		}
	} else if len(sql) > facet.MaxSQLLen {
		return nil, limitError(limitSQLBytes, facet.MaxSQLLen, "the SQL text has %d bytes", len(sql))
	}
	v := verbOf(sql)
	st, tail, err := db.prepareNext(sql, v, len(sql) <= maxCachedSQL && cacheable(v))
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, facet.Errorf(facet.CodeBadRequest, "the SQL text holds no statement")
	}
	if len(skipBlank(sql[tail:], true)) > 0 {
		db.finish(st)
		return nil, facet.Errorf(facet.CodeBadRequest, "the SQL text holds more than one statement; send each as a step of its own, or all as a script")
	}
	if len(sql) <= maxCachedSQL && cacheable(v) {
		db.cache.put(st, sql)
	}
	return st, nil
}

func cacheable(v verb) bool { return v == verbDML || v == verbDelete || v == verbTransaction }

// prepareNext prepares the first statement of sql, whose first word is v, and says
// how long it is. The statement is nil where there is none.
func (db *DB) prepareNext(sql []byte, v verb, keep bool) (st *stmt, tail int, err error) {
	if v == verbAlter && !db.internal && mentionsReserved(sql) {
		// SQLite asks the authorizer about the old name of a table only.
		db.denyReserved(reserved)
		return nil, 0, db.denied
	}
	db.pragmaWrites = false
	var s *sqlite.Stmt
	if keep {
		s, tail, err = db.conn.PreparePersistent(sql)
	} else {
		s, tail, err = db.conn.Prepare(sql)
	}
	if err != nil || s == nil {
		return nil, tail, err
	}
	st = &stmt{s: s, verb: v, params: s.ParamCount()}
	st.readOnly = !db.pragmaWrites && s.ReadOnly() || s.IsExplain() != 0
	st.journal = v != verbDML && v != verbDelete || s.NeedsJournal()
	st.fails = !st.readOnly && bytes.Contains(bytes.ToUpper(sql[:tail]), []byte("FAIL"))
	return st, tail, nil
}

func mentionsReserved(sql []byte) bool {
	for i := range sql {
		if sql[i] == '_' && i+len(reserved) <= len(sql) && isReserved(string(sql[i:i+len(reserved)])) {
			return true
		}
	}
	return false
}

// finish is called after every use of a statement: a cached one is made ready for
// the next, another is finalized.
func (db *DB) finish(st *stmt) {
	if st.sql == "" {
		_ = st.s.Finalize() // repeats the error of the last execution, which was told
		return
	}
	st.s.Reset()
	if st.params > 0 {
		st.s.ClearBindings()
	}
}

// forget takes a statement out of the cache that SQLite could not prepare again.
func (db *DB) forget(st *stmt) {
	if st.sql != "" {
		db.cache.drop(st)
	}
}

// answer is what is known of a question.
type answer uint8

const (
	unknownYet answer = iota
	yes
	no
)

// mayFail reports whether the statement may keep the rows it changed before it
// failed: INSERT OR FAIL, a column declared ON CONFLICT FAIL, a trigger with
// RAISE(FAIL). All of them have the word in their text.
func (db *DB) mayFail(p *stmt) bool {
	if p.fails {
		return true
	}
	if db.schemaFails == unknownYet {
		db.schemaFails = yes
		n, err := db.queryInt("SELECT count(*) FROM (SELECT sql FROM main.sqlite_schema UNION ALL SELECT sql FROM temp.sqlite_schema) WHERE instr(upper(sql),'FAIL')>0")
		if err == nil && n == 0 {
			db.schemaFails = no
		}
	}
	return db.schemaFails == yes
}

// queryInt runs a query of facetd's own for one number; no row is zero.
func (db *DB) queryInt(sql string) (n int64, err error) {
	was := db.internal
	db.internal = true
	defer func() { db.internal = was }()
	s, _, err := db.conn.Prepare([]byte(sql))
	if err != nil {
		return 0, err
	}
	more, err := s.Step()
	if more {
		n = s.ColumnInt64(0)
	}
	if ferr := s.Finalize(); err == nil {
		err = ferr
	}
	return n, err
}
