package engine

import "strings"

// pragmaRule says what tenants may do with one PRAGMA.
type pragmaRule struct {
	set  setRule
	mark mark   // session state it changes
	note string // why it may not be set
}

type setRule uint8

const (
	setAllowed setRule = iota // may be asked and set, or its argument is no setting
	setIgnored                // setting it does nothing and is no error; asking works
	setRefused                // may be asked only
	setWrites                 // writes to the database without being an UPDATE
	setNever                  // may not even be asked
)

const (
	managed   = "facetd manages durability, locking and caching itself; leave it out"
	fixed     = "it is fixed when a facet is made"
	byQuota   = "the size of a facet is bounded by its quota"
	dangerous = "it could damage the database"
)

// pragmas is the allow-list; a PRAGMA not in it is refused. Settings that
// libraries send to every SQLite database out of habit, and that change neither
// what is stored nor what is answered, are ignored; others that would have to be
// refused say why. docs/SQL.md has the same table in words.
var pragmas = map[string]pragmaRule{
	// About the schema and the file.
	"table_info": {}, "table_xinfo": {}, "table_list": {},
	"index_list": {}, "index_info": {}, "index_xinfo": {},
	"foreign_key_list": {}, "foreign_key_check": {},
	"integrity_check": {}, "quick_check": {},
	"page_count": {}, "freelist_count": {}, "data_version": {}, "database_list": {},
	"function_list": {}, "module_list": {}, "pragma_list": {}, "collation_list": {},
	"compile_options": {},

	// Stored in the file.
	"user_version":       {set: setAllowed},
	"application_id":     {set: setAllowed},
	"optimize":           {set: setWrites},
	"incremental_vacuum": {set: setWrites},

	// Settings of the session: they end with the request or the transaction.
	"foreign_keys":        {mark: markForeignKeys},
	"defer_foreign_keys":  {mark: markDeferForeignKeys},
	"recursive_triggers":  {mark: markRecursiveTriggers},
	"case_sensitive_like": {mark: markLike},
	"legacy_alter_table":  {mark: markLegacyAlter},

	// Without effect here.
	"busy_timeout": {set: setIgnored}, "cache_size": {set: setIgnored}, "default_cache_size": {set: setIgnored},
	"cache_spill": {set: setIgnored}, "temp_store": {set: setIgnored}, "threads": {set: setIgnored},
	"wal_autocheckpoint": {set: setIgnored}, "journal_size_limit": {set: setIgnored},
	"analysis_limit": {set: setIgnored}, "read_uncommitted": {set: setIgnored},
	"fullfsync": {set: setIgnored}, "checkpoint_fullfsync": {set: setIgnored},

	// May be asked.
	"journal_mode":   {set: setRefused, note: managed},
	"synchronous":    {set: setRefused, note: managed},
	"locking_mode":   {set: setRefused, note: managed},
	"mmap_size":      {set: setRefused, note: managed},
	"page_size":      {set: setRefused, note: fixed},
	"encoding":       {set: setRefused, note: fixed},
	"auto_vacuum":    {set: setRefused, note: fixed},
	"max_page_count": {set: setRefused, note: byQuota},
	"schema_version": {set: setRefused, note: dangerous},

	// Refused with a reason of their own.
	"wal_checkpoint":           {set: setNever, note: managed},
	"writable_schema":          {set: setNever, note: dangerous},
	"ignore_check_constraints": {set: setNever, note: dangerous},
	"trusted_schema":           {set: setNever, note: "the sandbox needs it off"},
	"temp_store_directory":     {set: setNever, note: managed},
	"data_store_directory":     {set: setNever, note: managed},
	"soft_heap_limit":          {set: setNever, note: managed},
	"hard_heap_limit":          {set: setNever, note: managed},
	"shrink_memory":            {set: setIgnored},
}

func pragmaOf(name string) (pragmaRule, string, bool) {
	if r, ok := pragmas[name]; ok {
		return r, name, true
	}
	name = strings.ToLower(name)
	r, ok := pragmas[name]
	return r, name, ok
}

// mark is session state a tenant's SQL left on the connection. It is taken back
// when the request, or the interactive transaction, ends.
type mark uint8

const (
	markTemp mark = 1 << iota // temporary tables, views, triggers
	markForeignKeys
	markDeferForeignKeys
	markRecursiveTriggers
	markLike
	markLegacyAlter
	// markReopen asks for a new connection because this one may hold pages that
	// disagree with the store.
	markReopen
)
