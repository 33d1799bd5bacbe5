package sqlite

import (
	"unsafe"

	sqlite3 "modernc.org/sqlite/lib"
)

// NeedsJournal reports whether undoing the statement may take SQLite's own
// journals. A statement alone in its transaction is undone as a whole, but those
// that SQLite runs inside a virtual table's may fail by themselves and be undone
// by themselves.
func (s *Stmt) NeedsJournal() bool {
	if s.p == 0 {
		return true
	}
	v := at[sqlite3.TVdbe](s.p)
	op := v.FaOp
	for range v.FnOp {
		switch at[sqlite3.TVdbeOp](op).Fopcode {
		// Writing to a virtual table is announced at the head of the program, also
		// for triggers.
		case sqlite3.OP_VBegin, sqlite3.OP_VUpdate, sqlite3.OP_VOpen, sqlite3.OP_Savepoint:
			return true
		}
		op += unsafe.Sizeof(sqlite3.TVdbeOp{})
	}
	return false
}

// SkipJournal turns the rollback journal of the main database off, or on again.
// No transaction may be open. It is journal_mode=off for one statement: when that
// fails after it changed a page, SQLite forgets its page cache and reads the file
// again, so the owner of the File drops what was written since the last commit
// before the next statement. It must be on for whatever else writes.
func (c *Conn) SkipJournal(skip bool) {
	if c.db == 0 {
		return
	}
	main := at[sqlite3.TDb](at[sqlite3.Tsqlite3](c.db).FaDb)
	pager := at[sqlite3.TPager](at[sqlite3.TBtShared](at[sqlite3.TBtree](main.FpBt).FpBt).FpPager)
	if skip {
		pager.FjournalMode = sqlite3.PAGER_JOURNALMODE_OFF
	} else {
		pager.FjournalMode = sqlite3.PAGER_JOURNALMODE_MEMORY
	}
}
