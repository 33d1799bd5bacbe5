package facet

// Every bound of the vocabulary, with its reason. A length read from outside is
// compared with one of these before anything is allocated for it.
const (
	// PageSize is the SQLite page size of every facet, in bytes. One size for
	// all keeps logs, files and checksums comparable; imports are converted.
	PageSize = 4096

	// MaxTenantLen and MaxFacetLen are the longest names, in bytes.
	MaxTenantLen = 63
	MaxFacetLen  = 128

	// MaxPages bounds a database: 2^30 pages are 4 TiB, far above any quota.
	MaxPages = 1 << 30

	// MaxCommitBytes bounds the encoded pages of one commit. It is the size of
	// the largest transaction (64 MiB of changed pages) plus its page headers.
	MaxCommitBytes = 68 << 20

	// MaxSQLLen is the longest SQL text of one step, in bytes.
	MaxSQLLen = 1 << 20

	// MaxValueLen is the longest text or blob, in bytes.
	MaxValueLen = 16 << 20

	// MaxArgs is SQLite's own default bound on parameters of a statement.
	MaxArgs = 32766

	// MaxSteps bounds the steps of one request.
	MaxSteps = 4096

	// MaxRequestLen bounds one whole request, in bytes.
	MaxRequestLen = 32 << 20

	// MaxResultLen is the default bound on the encoded result of one request.
	MaxResultLen = 32 << 20

	// MaxColumns is SQLite's own default bound on columns of a result.
	MaxColumns = 2000

	// MaxConditionDepth bounds the nesting of step conditions.
	MaxConditionDepth = 16
)
