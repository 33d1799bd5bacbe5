package token

import "time"

// Every bound, with its reason.
const (
	// MaxToken bounds a token, as internal/wire does: it has to fit into a header of
	// HTTP and into a Hello.
	MaxToken = 8 << 10

	// maxHeader bounds the part before the first dot: three short members.
	maxHeader = 1 << 10

	// MaxLabel bounds the id of a key, the id of a token and its subject. They go into
	// log lines.
	MaxLabel = 128

	// MaxRules bounds the facets, or patterns of them, that one token names: they are
	// looked through for every request.
	MaxRules = 64

	// MaxFile bounds a file of keys.
	MaxFile = 1 << 20

	// MaxKeys bounds the keys of a file: one a tenant for a thousand tenants.
	MaxKeys = 1024

	// maxNameless bounds the keys without an id. A token that names no key is tried with
	// each of them, and a try is the dearest thing a stranger can ask for.
	maxNameless = 4

	// MaxRevoked bounds the revocations of a file. What is revoked can leave the file
	// when it has expired.
	MaxRevoked = 16 << 10

	// Leeway is by how much the clock of whoever signed may differ from the node's.
	Leeway = 30 * time.Second
)
