package engine

import (
	"bytes"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/sqlite"
)

// reserved is how names that belong to facetd begin, in any case of letters.
const reserved = "_facetd"

func isReserved(name string) bool {
	return len(name) >= len(reserved) && name[0] == '_' && strings.EqualFold(name[:len(reserved)], reserved)
}

// verb is the first word of a statement, as far as the engine has to know.
type verb uint8

const (
	verbOther verb = iota
	verbDML        // SELECT, INSERT, UPDATE, REPLACE, WITH, VALUES: worth caching
	verbDelete
	verbDrop
	verbTransaction // BEGIN, COMMIT, END, ROLLBACK (not ROLLBACK TO): ends or begins one
	verbSavepoint   // SAVEPOINT, RELEASE, ROLLBACK TO
	verbVacuum
	verbAlter
)

var verbs = map[string]verb{
	"SELECT": verbDML, "INSERT": verbDML, "UPDATE": verbDML, "REPLACE": verbDML, "WITH": verbDML, "VALUES": verbDML,
	"DELETE": verbDelete, "DROP": verbDrop, "BEGIN": verbTransaction, "COMMIT": verbTransaction, "END": verbTransaction,
	"ROLLBACK": verbTransaction, "SAVEPOINT": verbSavepoint, "RELEASE": verbSavepoint, "VACUUM": verbVacuum, "ALTER": verbAlter,
}

func verbOf(sql []byte) verb {
	var up [16]byte
	word := firstWord(sql)
	if len(word) > len(up) {
		return verbOther
	}
	for i, c := range word {
		up[i] = c &^ 0x20
	}
	v := verbs[string(up[:len(word)])]
	if v == verbTransaction && up[0] == 'R' && rollbackTo(sql) {
		return verbSavepoint
	}
	return v
}

// rollbackTo tells ROLLBACK [TRANSACTION] TO from ROLLBACK.
func rollbackTo(sql []byte) bool {
	for range 3 {
		sql = skipBlank(sql, false)
		n := wordLen(sql)
		if bytes.EqualFold(sql[:n], []byte("TO")) {
			return true
		}
		sql = sql[n:]
	}
	return false
}

func firstWord(sql []byte) []byte {
	sql = skipBlank(sql, true)
	return sql[:wordLen(sql)]
}

func wordLen(sql []byte) int {
	n := 0
	for n < len(sql) && (sql[n]|0x20 >= 'a' && sql[n]|0x20 <= 'z') {
		n++
	}
	return n
}

// skipBlank skips space and comments, and semicolons if asked to.
func skipBlank(sql []byte, semicolons bool) []byte {
	for len(sql) > 0 {
		switch c := sql[0]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == ';' && semicolons:
			sql = sql[1:]
		case c == '-' && len(sql) > 1 && sql[1] == '-':
			i := bytes.IndexByte(sql, '\n')
			if i < 0 {
				return nil
			}
			sql = sql[i+1:]
		case c == '/' && len(sql) > 1 && sql[1] == '*':
			i := bytes.Index(sql[2:], []byte("*/"))
			if i < 0 {
				return nil
			}
			sql = sql[i+4:]
		default:
			return sql
		}
	}
	return nil
}

// modules are the virtual table modules tenants may make tables of, or use by
// name. json_each and json_tree are made by SQLite when first used.
var modules = map[string]bool{
	"fts5": true, "fts5vocab": true, "rtree": true, "rtree_i32": true, "geopoly": true,
	"json_each": true, "json_tree": true, "jsonb_each": true, "jsonb_tree": true, "generate_series": true,
	"dbstat": true,
}

// refusedTables are virtual tables that exist by name alone and are not safe.
var refusedTables = map[string]string{
	"sqlite_dbpage": "it reaches the pages of the database file",
}

// refusedFunctions are SQL functions that reach out of the database.
var refusedFunctions = map[string]string{
	"load_extension": "extensions cannot be loaded",
	"fts3_tokenizer": "it is not safe",
	"readfile":       "files of the server cannot be reached",
	"writefile":      "files of the server cannot be reached",
	"edit":           "programs of the server cannot be reached",
	"sqlite_log":     "it writes to the log of the server",
	"geopoly_debug":  "it changes a setting of the whole process",
}

// authorize is asked by SQLite about every action of every statement while it is
// prepared. What is not allowed here is refused; the reason is kept for the error.
// Every action SQLite knows is listed, in the order of its documentation.
func (db *DB) authorize(action sqlite.Action, arg1, arg2, schema, trigger string) sqlite.Verdict {
	if db.internal {
		return sqlite.Allow
	}
	if db.vacuum {
		// VACUUM copies everything, what is reserved too, into a nameless attached
		// database. VACUUM INTO attaches a named one.
		if action == sqlite.ActionAttach && arg1 != "" {
			return db.deny("VACUUM INTO: files of the server cannot be reached; use the export")
		}
		return sqlite.Allow
	}
	switch action {
	case sqlite.ActionCreateIndex, sqlite.ActionCreateTrigger, sqlite.ActionDropIndex, sqlite.ActionDropTrigger:
		return db.names(arg1, arg2)
	case sqlite.ActionCreateTable, sqlite.ActionCreateView, sqlite.ActionDropTable, sqlite.ActionDropView:
		return db.names(arg1, "")
	case sqlite.ActionCreateTempIndex, sqlite.ActionCreateTempTable, sqlite.ActionCreateTempTrigger, sqlite.ActionCreateTempView,
		sqlite.ActionDropTempIndex, sqlite.ActionDropTempTable, sqlite.ActionDropTempTrigger, sqlite.ActionDropTempView:
		db.marks |= markTemp
		return db.names(arg1, arg2)
	case sqlite.ActionInsert, sqlite.ActionDelete, sqlite.ActionUpdate, sqlite.ActionRead:
		if isReserved(arg1) {
			return db.denyReserved(arg1)
		}
		if why := refusedTables[strings.ToLower(arg1)]; why != "" {
			return db.deny("table " + arg1 + ": " + why)
		}
		return sqlite.Allow
	case sqlite.ActionSelect, sqlite.ActionRecursive:
		return sqlite.Allow
	case sqlite.ActionPragma:
		return db.authorizePragma(arg1, arg2)
	case sqlite.ActionTransaction:
		return sqlite.Allow // runOne refuses it where it must
	case sqlite.ActionSavepoint:
		return db.names(arg2, "")
	case sqlite.ActionAttach:
		return db.deny("ATTACH: a facet is one database; use another connection for another facet")
	case sqlite.ActionDetach:
		return db.deny("DETACH: a facet is one database")
	case sqlite.ActionAlterTable:
		return db.names(arg2, "")
	case sqlite.ActionReindex:
		return db.names(arg1, "")
	case sqlite.ActionAnalyze:
		if isReserved(arg1) {
			return sqlite.Ignore // ANALYZE of everything leaves it out
		}
		return sqlite.Allow
	case sqlite.ActionCreateVTable:
		if !modules[strings.ToLower(arg2)] {
			return db.deny("virtual table module " + arg2 + ": only fts5, fts5vocab, rtree, rtree_i32 and geopoly may be used")
		}
		return db.names(arg1, "")
	case sqlite.ActionDropVTable:
		return db.names(arg1, "")
	case sqlite.ActionFunction:
		if why := refusedFunctions[arg2]; why != "" {
			return db.deny("function " + arg2 + "(): " + why)
		}
		return sqlite.Allow
	}
	return db.deny("an action this version of facetd does not know")
}

func (db *DB) names(a, b string) sqlite.Verdict {
	if isReserved(a) {
		return db.denyReserved(a)
	}
	if isReserved(b) {
		return db.denyReserved(b)
	}
	return sqlite.Allow
}

// authorizePragma allows the pragmas on the list. Those that would change how SQLite
// keeps its file are not on it (rule R53).
func (db *DB) authorizePragma(name, arg string) sqlite.Verdict {
	if broken.Is(broken.AnyPragma) {
		return sqlite.Allow
	}
	r, name, ok := pragmaOf(name)
	if !ok {
		return db.deny("PRAGMA " + name + ": it is not on the list of allowed ones, see docs/SQL.md")
	}
	if isReserved(arg) {
		return db.denyReserved(arg)
	}
	switch {
	case r.set == setNever:
		return db.deny("PRAGMA " + name + ": " + r.note)
	case r.set == setRefused && arg != "":
		return db.deny("PRAGMA " + name + " cannot be set: " + r.note)
	case r.set == setIgnored && (arg != "" || name == "shrink_memory"):
		return sqlite.Ignore
	case r.set == setWrites:
		switch {
		case db.elsewhere:
			db.refuse(errWrites)
			return sqlite.Deny
		case db.readOnly:
			db.refuse(&facet.Error{Code: facet.CodeReadOnly, Message: "PRAGMA " + name + " writes, and the request may only read"})
			return sqlite.Deny
		}
		db.pragmaWrites = true
	}
	if arg != "" {
		db.marks |= r.mark
	}
	return sqlite.Allow
}

func (db *DB) denyReserved(name string) sqlite.Verdict {
	return db.deny("name " + name + ": names that begin with " + reserved + " belong to facetd")
}

// deny keeps the first reason for the error of the statement.
func (db *DB) deny(why string) sqlite.Verdict {
	db.refuse(&facet.Error{Code: facet.CodeDenied, Message: "not allowed: " + clip(why)})
	return sqlite.Deny
}

func (db *DB) refuse(e *facet.Error) {
	if db.denied == nil {
		db.denied = e
	}
}
