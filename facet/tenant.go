package facet

import "fmt"

// NoLimit is the value of a limit that says there is none, whatever the defaults say.
const NoLimit = ^uint64(0)

// TenantLimits are the hard stops of one tenant, or the defaults of all. Zero in those
// of a tenant means the default; zero in the defaults means the setting of the node that
// enforces it, where it has one, else no limit.
type TenantLimits struct {
	Facets             uint64 // names that lead to a facet
	FacetBytes         uint64 // of one facet
	TotalBytes         uint64 // of all facets
	RequestsPerSecond  uint64 // at each node
	RowsPerSecond      uint64 // read and written, at each node
	ConcurrentRequests uint64 // under way, at each node
	StatementMillis    uint64 // of one statement
	MemoryBytes        uint64 // of SQLite, for one open facet
}

// LimitCount is how many limits a tenant has.
const LimitCount = 8

// LimitNames are the names of the limits in JSON, errors and docs, in the order of the
// fields.
var LimitNames = [LimitCount]string{
	"facets", "facet_bytes", "total_bytes", "requests_per_second",
	"rows_per_second", "concurrent_requests", "statement_ms", "memory_bytes",
}

// All gives the limits in the order of their fields.
func (l *TenantLimits) All() [LimitCount]*uint64 {
	return [...]*uint64{&l.Facets, &l.FacetBytes, &l.TotalBytes, &l.RequestsPerSecond,
		&l.RowsPerSecond, &l.ConcurrentRequests, &l.StatementMillis, &l.MemoryBytes}
}

// IsZero reports whether every limit is the default.
func (l TenantLimits) IsZero() bool { return l == TenantLimits{} }

// Over gives the limits in force: those of l, where it has none those of the defaults,
// and zero where there is no limit.
func (l TenantLimits) Over(defaults *TenantLimits) TenantLimits {
	mine, theirs := l.All(), defaults.All()
	for i, v := range mine {
		if *v == 0 {
			*v = *theirs[i]
		}
		if *v == NoLimit {
			*v = 0
		}
	}
	return l
}

// Freeze is the switch that stops a tenant at once.
type Freeze uint8

const (
	NotFrozen    Freeze = 0
	FreezeWrites Freeze = 1 // nothing is changed; reads go on
	FreezeAll    Freeze = 2 // nothing is answered
)

var freezeNames = [...]string{"no", "writes", "all"}

// Known reports whether f is one of the above.
func (f Freeze) Known() bool { return int(f) < len(freezeNames) }

// String is the name of the switch in JSON and docs.
func (f Freeze) String() string {
	if f.Known() {
		return freezeNames[f]
	}
	return fmt.Sprintf("freeze_%d", uint8(f))
}

// ParseFreeze reads what String prints.
func ParseFreeze(s string) (Freeze, error) {
	for i, name := range freezeNames {
		if s == name {
			return Freeze(i), nil
		}
	}
	return NotFrozen, Errorf(CodeBadRequest, "frozen is no, writes or all, not %.40q", s)
}

// TenantSettings are what operators decided about a tenant.
type TenantSettings struct {
	Limits TenantLimits
	Freeze Freeze
}

// IsZero reports whether nothing was decided.
func (s TenantSettings) IsZero() bool { return s == TenantSettings{} }

// TenantFields names settings. The bits are append-only: those of the limits are of
// their order in TenantLimits.
type TenantFields uint16

const (
	// FieldsOfLimits are what defaults may have: a freeze is of one tenant.
	FieldsOfLimits TenantFields = 1<<LimitCount - 1
	FieldFreeze    TenantFields = 1 << LimitCount
	FieldsKnown                 = FieldsOfLimits | FieldFreeze
)

// FieldOf is the field of a limit by its place in TenantLimits.
func FieldOf(limit int) TenantFields { return 1 << limit }

// With is s with some fields as change has them.
func (s TenantSettings) With(fields TenantFields, change TenantSettings) TenantSettings {
	to, from := s.Limits.All(), change.Limits.All()
	for i := range to {
		if fields&FieldOf(i) != 0 {
			*to[i] = *from[i]
		}
	}
	if fields&FieldFreeze != 0 {
		s.Freeze = change.Freeze
	}
	return s
}
