package sqlite

import sqlite3 "modernc.org/sqlite/lib"

// Code is an SQLite result code, primary or extended.
type Code int32

// Primary returns the primary code of an extended one.
func (c Code) Primary() Code { return c & 0xff }

// Result codes.
const (
	OK         Code = sqlite3.SQLITE_OK
	ERROR      Code = sqlite3.SQLITE_ERROR
	INTERNAL   Code = sqlite3.SQLITE_INTERNAL
	PERM       Code = sqlite3.SQLITE_PERM
	ABORT      Code = sqlite3.SQLITE_ABORT
	BUSY       Code = sqlite3.SQLITE_BUSY
	LOCKED     Code = sqlite3.SQLITE_LOCKED
	NOMEM      Code = sqlite3.SQLITE_NOMEM
	READONLY   Code = sqlite3.SQLITE_READONLY
	INTERRUPT  Code = sqlite3.SQLITE_INTERRUPT
	IOERR      Code = sqlite3.SQLITE_IOERR
	CORRUPT    Code = sqlite3.SQLITE_CORRUPT
	NOTFOUND   Code = sqlite3.SQLITE_NOTFOUND
	FULL       Code = sqlite3.SQLITE_FULL
	CANTOPEN   Code = sqlite3.SQLITE_CANTOPEN
	PROTOCOL   Code = sqlite3.SQLITE_PROTOCOL
	SCHEMA     Code = sqlite3.SQLITE_SCHEMA
	TOOBIG     Code = sqlite3.SQLITE_TOOBIG
	CONSTRAINT Code = sqlite3.SQLITE_CONSTRAINT
	MISMATCH   Code = sqlite3.SQLITE_MISMATCH
	MISUSE     Code = sqlite3.SQLITE_MISUSE
	NOLFS      Code = sqlite3.SQLITE_NOLFS
	AUTH       Code = sqlite3.SQLITE_AUTH
	RANGE      Code = sqlite3.SQLITE_RANGE
	NOTADB     Code = sqlite3.SQLITE_NOTADB

	ABORT_ROLLBACK Code = sqlite3.SQLITE_ABORT_ROLLBACK

	CONSTRAINT_CHECK      Code = sqlite3.SQLITE_CONSTRAINT_CHECK
	CONSTRAINT_DATATYPE   Code = sqlite3.SQLITE_CONSTRAINT_DATATYPE
	CONSTRAINT_FOREIGNKEY Code = sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
	CONSTRAINT_NOTNULL    Code = sqlite3.SQLITE_CONSTRAINT_NOTNULL
	CONSTRAINT_PRIMARYKEY Code = sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	CONSTRAINT_ROWID      Code = sqlite3.SQLITE_CONSTRAINT_ROWID
	CONSTRAINT_TRIGGER    Code = sqlite3.SQLITE_CONSTRAINT_TRIGGER
	CONSTRAINT_UNIQUE     Code = sqlite3.SQLITE_CONSTRAINT_UNIQUE
	CONSTRAINT_VTAB       Code = sqlite3.SQLITE_CONSTRAINT_VTAB

	IOERR_ACCESS       Code = sqlite3.SQLITE_IOERR_ACCESS
	IOERR_CLOSE        Code = sqlite3.SQLITE_IOERR_CLOSE
	IOERR_DELETE_NOENT Code = sqlite3.SQLITE_IOERR_DELETE_NOENT
	IOERR_FSTAT        Code = sqlite3.SQLITE_IOERR_FSTAT
	IOERR_FSYNC        Code = sqlite3.SQLITE_IOERR_FSYNC
	IOERR_NOMEM        Code = sqlite3.SQLITE_IOERR_NOMEM
	IOERR_READ         Code = sqlite3.SQLITE_IOERR_READ
	IOERR_SHORT_READ   Code = sqlite3.SQLITE_IOERR_SHORT_READ
	IOERR_TRUNCATE     Code = sqlite3.SQLITE_IOERR_TRUNCATE
	IOERR_WRITE        Code = sqlite3.SQLITE_IOERR_WRITE

	row  = sqlite3.SQLITE_ROW
	done = sqlite3.SQLITE_DONE
)

// Type is the storage class of a value.
type Type int

// Storage classes, with SQLite's own numbers.
const (
	Integer Type = sqlite3.SQLITE_INTEGER
	Float   Type = sqlite3.SQLITE_FLOAT
	Text    Type = sqlite3.SQLITE_TEXT
	Blob    Type = sqlite3.SQLITE_BLOB
	Null    Type = sqlite3.SQLITE_NULL
)

// LimitID names a per-connection limit for Conn.SetLimit.
type LimitID int32

// Limits.
const (
	LimitLength            LimitID = sqlite3.SQLITE_LIMIT_LENGTH
	LimitSQLLength         LimitID = sqlite3.SQLITE_LIMIT_SQL_LENGTH
	LimitColumn            LimitID = sqlite3.SQLITE_LIMIT_COLUMN
	LimitExprDepth         LimitID = sqlite3.SQLITE_LIMIT_EXPR_DEPTH
	LimitCompoundSelect    LimitID = sqlite3.SQLITE_LIMIT_COMPOUND_SELECT
	LimitVDBEOp            LimitID = sqlite3.SQLITE_LIMIT_VDBE_OP
	LimitFunctionArg       LimitID = sqlite3.SQLITE_LIMIT_FUNCTION_ARG
	LimitAttached          LimitID = sqlite3.SQLITE_LIMIT_ATTACHED
	LimitLikePatternLength LimitID = sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH
	LimitVariableNumber    LimitID = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
	LimitTriggerDepth      LimitID = sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH
	LimitWorkerThreads     LimitID = sqlite3.SQLITE_LIMIT_WORKER_THREADS
	LimitParserDepth       LimitID = sqlite3.SQLITE_LIMIT_PARSER_DEPTH
)

// ConfigOp names a boolean switch for Conn.DBConfig.
type ConfigOp int32

// Switches of a connection.
const (
	ConfigForeignKeys        ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_FKEY
	ConfigTriggers           ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_TRIGGER
	ConfigViews              ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_VIEW
	ConfigFTS3Tokenizer      ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER
	ConfigLoadExtension      ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION
	ConfigNoCheckpointClose  ConfigOp = sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE
	ConfigResetDatabase      ConfigOp = sqlite3.SQLITE_DBCONFIG_RESET_DATABASE
	ConfigDefensive          ConfigOp = sqlite3.SQLITE_DBCONFIG_DEFENSIVE
	ConfigWritableSchema     ConfigOp = sqlite3.SQLITE_DBCONFIG_WRITABLE_SCHEMA
	ConfigLegacyAlterTable   ConfigOp = sqlite3.SQLITE_DBCONFIG_LEGACY_ALTER_TABLE
	ConfigDoubleQuotedDML    ConfigOp = sqlite3.SQLITE_DBCONFIG_DQS_DML
	ConfigDoubleQuotedDDL    ConfigOp = sqlite3.SQLITE_DBCONFIG_DQS_DDL
	ConfigLegacyFileFormat   ConfigOp = sqlite3.SQLITE_DBCONFIG_LEGACY_FILE_FORMAT
	ConfigTrustedSchema      ConfigOp = sqlite3.SQLITE_DBCONFIG_TRUSTED_SCHEMA
	ConfigReverseScanOrder   ConfigOp = sqlite3.SQLITE_DBCONFIG_REVERSE_SCANORDER
	ConfigAttachCreate       ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_ATTACH_CREATE
	ConfigAttachWrite        ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_ATTACH_WRITE
	ConfigComments           ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_COMMENTS
	ConfigQueryPlanStability ConfigOp = sqlite3.SQLITE_DBCONFIG_ENABLE_QPSG
)

// Action is what an authorizer is asked about.
type Action int32

// Authorizer actions; the comment gives arg1, arg2.
const (
	ActionCreateIndex       Action = sqlite3.SQLITE_CREATE_INDEX        // index, table
	ActionCreateTable       Action = sqlite3.SQLITE_CREATE_TABLE        // table, -
	ActionCreateTempIndex   Action = sqlite3.SQLITE_CREATE_TEMP_INDEX   // index, table
	ActionCreateTempTable   Action = sqlite3.SQLITE_CREATE_TEMP_TABLE   // table, -
	ActionCreateTempTrigger Action = sqlite3.SQLITE_CREATE_TEMP_TRIGGER // trigger, table
	ActionCreateTempView    Action = sqlite3.SQLITE_CREATE_TEMP_VIEW    // view, -
	ActionCreateTrigger     Action = sqlite3.SQLITE_CREATE_TRIGGER      // trigger, table
	ActionCreateView        Action = sqlite3.SQLITE_CREATE_VIEW         // view, -
	ActionDelete            Action = sqlite3.SQLITE_DELETE              // table, -
	ActionDropIndex         Action = sqlite3.SQLITE_DROP_INDEX          // index, table
	ActionDropTable         Action = sqlite3.SQLITE_DROP_TABLE          // table, -
	ActionDropTempIndex     Action = sqlite3.SQLITE_DROP_TEMP_INDEX     // index, table
	ActionDropTempTable     Action = sqlite3.SQLITE_DROP_TEMP_TABLE     // table, -
	ActionDropTempTrigger   Action = sqlite3.SQLITE_DROP_TEMP_TRIGGER   // trigger, table
	ActionDropTempView      Action = sqlite3.SQLITE_DROP_TEMP_VIEW      // view, -
	ActionDropTrigger       Action = sqlite3.SQLITE_DROP_TRIGGER        // trigger, table
	ActionDropView          Action = sqlite3.SQLITE_DROP_VIEW           // view, -
	ActionInsert            Action = sqlite3.SQLITE_INSERT              // table, -
	ActionPragma            Action = sqlite3.SQLITE_PRAGMA              // pragma, argument
	ActionRead              Action = sqlite3.SQLITE_READ                // table, column
	ActionSelect            Action = sqlite3.SQLITE_SELECT              // -, -
	ActionTransaction       Action = sqlite3.SQLITE_TRANSACTION         // BEGIN|COMMIT|ROLLBACK, -
	ActionUpdate            Action = sqlite3.SQLITE_UPDATE              // table, column
	ActionAttach            Action = sqlite3.SQLITE_ATTACH              // file, -
	ActionDetach            Action = sqlite3.SQLITE_DETACH              // schema, -
	ActionAlterTable        Action = sqlite3.SQLITE_ALTER_TABLE         // schema, table
	ActionReindex           Action = sqlite3.SQLITE_REINDEX             // index, -
	ActionAnalyze           Action = sqlite3.SQLITE_ANALYZE             // table, -
	ActionCreateVTable      Action = sqlite3.SQLITE_CREATE_VTABLE       // table, module
	ActionDropVTable        Action = sqlite3.SQLITE_DROP_VTABLE         // table, module
	ActionFunction          Action = sqlite3.SQLITE_FUNCTION            // -, function
	ActionSavepoint         Action = sqlite3.SQLITE_SAVEPOINT           // BEGIN|RELEASE|ROLLBACK, name
	ActionRecursive         Action = sqlite3.SQLITE_RECURSIVE           // -, -
)

// Verdict is what an authorizer answers.
type Verdict int32

// Verdicts.
const (
	Allow Verdict = sqlite3.SQLITE_OK
	// Deny fails the whole statement with AUTH.
	Deny Verdict = sqlite3.SQLITE_DENY
	// Ignore lets the statement compile: a column reads as NULL, another action
	// does nothing.
	Ignore Verdict = sqlite3.SQLITE_IGNORE
)

// Device characteristics a VFS may promise.
const (
	// DevicePowersafeOverwrite promises that a write never harms bytes beside
	// its range, so SQLite need not journal whole sectors.
	DevicePowersafeOverwrite = sqlite3.SQLITE_IOCAP_POWERSAFE_OVERWRITE
	// DeviceSequential promises that writes reach storage in order.
	DeviceSequential = sqlite3.SQLITE_IOCAP_SEQUENTIAL
	// DeviceSafeAppend promises that a file grows only after its data is there.
	DeviceSafeAppend = sqlite3.SQLITE_IOCAP_SAFE_APPEND
)
