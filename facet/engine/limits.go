package engine

import (
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/sqlite"
)

// Limits bounds what the SQL of one facet may take. A zero field means its
// default; what a field can at most be is said where there is such a bound.
type Limits struct {
	// FacetBytes is the largest size of the database file, in bytes; default
	// 10 GiB. A facet at its limit can still be read, deleted from and vacuumed.
	FacetBytes int64
	// StatementTime is how long one statement may run; default 10 s.
	StatementTime time.Duration
	// RequestTime is how long one request may run in all; default 30 s. It holds
	// up everybody else who uses the facet.
	RequestTime time.Duration
	// ResultBytes is the largest encoded result of a request; default and maximum
	// facet.MaxResultLen.
	ResultBytes int
	// MemoryBytes bounds what SQLite holds for the facet: page cache, rollback
	// journal, sorters, temporary tables, statements; default 64 MiB. Less than
	// 1 MiB is raised to that.
	MemoryBytes int64
	// CacheBytes is the page cache of an open facet; default 256 KiB.
	CacheBytes int
	// ImportTime is how long checking and converting an imported file may take;
	// default 10 min.
	ImportTime time.Duration
}

func (l Limits) withDefaults() Limits {
	def(&l.FacetBytes, 10<<30)
	def(&l.StatementTime, 10*time.Second)
	def(&l.RequestTime, 30*time.Second)
	def(&l.ResultBytes, facet.MaxResultLen)
	def(&l.MemoryBytes, 64<<20)
	def(&l.CacheBytes, 256<<10)
	def(&l.ImportTime, 10*time.Minute)
	l.ResultBytes = min(l.ResultBytes, facet.MaxResultLen)
	l.MemoryBytes = max(l.MemoryBytes, 1<<20)
	return l
}

func def[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// quotaPages is FacetBytes in pages, at least the empty database's one.
func (l *Limits) quotaPages() uint32 {
	return uint32(min(max(l.FacetBytes/pages.Size, 1), facet.MaxPages-reservePages))
}

// Names of limits as facet.Error.Limit and docs/SQL.md give them.
const (
	limitFacetBytes       = "facet_bytes"
	limitTransactionBytes = "transaction_bytes"
	limitResultBytes      = "result_bytes"
	limitMemoryBytes      = "memory_bytes"
	limitSQLBytes         = "sql_bytes"
	limitValueBytes       = "value_bytes"
	limitSteps            = "steps"
	limitArgs             = "args"
	limitColumns          = "columns"
	limitConditionDepth   = "condition_depth"
	limitParserDepth      = "parser_depth"
	limitExprDepth        = "expression_depth"
	limitCompoundSelect   = "compound_select"
	limitPatternBytes     = "pattern_bytes"
	limitTriggerDepth     = "trigger_depth"
	limitFunctionArgs     = "function_args"
	limitProgram          = "program_ops"
)

const (
	// reservePages is what a facet at its size limit may still grow by so that
	// DELETE, DROP and VACUUM can do their work (1 MiB).
	reservePages = 256

	// tickOps is how many instructions of SQLite's machine run between two looks
	// at the deadline: some microseconds, but a few times 20 ms where each works on
	// a value of the largest size.
	tickOps = 100

	// yieldEvery is how long a statement runs before it gives way to what else waits for
	// a processor: less than anybody notices, many times what giving way costs.
	yieldEvery = 100 * time.Microsecond

	// maxCached and maxCachedBytes bound the prepared statements of a connection;
	// maxCachedSQL is the longest text worth keeping one for.
	maxCached      = 64
	maxCachedBytes = 512 << 10
	maxCachedSQL   = 16 << 10

	// maxMessage bounds the text of an error: SQLite quotes names of any length.
	maxMessage = 1 << 10

	// scriptWindow is how much of a script is shown to SQLite at first to find the
	// end of its next statement; the window doubles until it is found.
	scriptWindow = 4 << 10

	// keyWindow is how many keys of one client are remembered, keyAge how long the
	// keys of a client that went silent (rule R45).
	keyWindow = 1024
	keyAge    = 24 * time.Hour
	// maxStoredResult is the longest result stored with a key; of a longer one the
	// counts are stored.
	maxStoredResult = 64 << 10
	// Every pruneEvery keyed writes of a connection, pruneClients silent clients
	// are looked for.
	pruneEvery   = 32
	pruneClients = 64

	// maxScratch bounds the scratch databases in use, maxIdleScratch those kept.
	maxScratch     = 16
	maxIdleScratch = 4

	// What the SQL of a schema may hold when a file is imported.
	maxImportObjects = 20_000

	exprDepth      = 200
	parserDepth    = 1000
	compoundSelect = 100
	patternBytes   = 1000
	triggerDepth   = 32
	programOps     = 250_000
	// functionArgs is what SQLite itself allowed until 3.48. A JSON function looks through
	// its document once for each path, in one call that nothing can stop: 1,000 paths in
	// the longest document took minutes.
	functionArgs = 127
)

// sqliteLimits are the limits of a connection that runs tenants' SQL. VACUUM needs
// one attached database and gets it for its own time only.
var sqliteLimits = [...]struct {
	id  sqlite.LimitID
	val int
}{
	{sqlite.LimitLength, facet.MaxValueLen},
	{sqlite.LimitSQLLength, facet.MaxSQLLen},
	{sqlite.LimitColumn, facet.MaxColumns},
	{sqlite.LimitExprDepth, exprDepth},
	{sqlite.LimitParserDepth, parserDepth},
	{sqlite.LimitCompoundSelect, compoundSelect},
	{sqlite.LimitVDBEOp, programOps},
	{sqlite.LimitFunctionArg, functionArgs},
	{sqlite.LimitAttached, 0},
	{sqlite.LimitLikePatternLength, patternBytes},
	{sqlite.LimitVariableNumber, facet.MaxArgs},
	{sqlite.LimitTriggerDepth, triggerDepth},
	{sqlite.LimitWorkerThreads, 0},
}
