package placement

import (
	"fmt"

	"github.com/facetd/facetd/facet"
)

// NoLimit is the value of a limit that says there is none, whatever the defaults say.
const NoLimit = ^uint64(0)

// TenantLimits are the hard stops of one tenant, or the defaults of all. Zero in those
// of a tenant means the default; zero in the defaults means the setting of the node that
// enforces it, where it has one, else no limit. Facets is enforced by the table itself.
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

// IsZero reports whether every limit is the default.
func (l TenantLimits) IsZero() bool { return l == TenantLimits{} }

// limitCount is how many limits there are.
const limitCount = 8

// all gives the limits in the order of their fields.
func (l *TenantLimits) all() [limitCount]*uint64 {
	return [...]*uint64{&l.Facets, &l.FacetBytes, &l.TotalBytes, &l.RequestsPerSecond,
		&l.RowsPerSecond, &l.ConcurrentRequests, &l.StatementMillis, &l.MemoryBytes}
}

// over gives the limits in force: those of l, where it has none those of the defaults,
// and zero where there is no limit.
func (l TenantLimits) over(defaults *TenantLimits) TenantLimits {
	mine, theirs := l.all(), defaults.all()
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

func (f Freeze) String() string {
	if int(f) < len(freezeNames) {
		return freezeNames[f]
	}
	return fmt.Sprintf("freeze_%d", uint8(f))
}

// TenantSettings are what operators decided about a tenant.
type TenantSettings struct {
	Limits TenantLimits
	Freeze Freeze
}

// IsZero reports whether nothing was decided.
func (s TenantSettings) IsZero() bool { return s == TenantSettings{} }

// Fields names settings. The bits are append-only.
type Fields uint16

// The fields of the limits have the bits of their order in TenantLimits.
const (
	FieldFacets Fields = 1 << iota
	FieldFacetBytes
	FieldTotalBytes
	FieldRequestsPerSecond
	FieldRowsPerSecond
	FieldConcurrentRequests
	FieldStatementMillis
	FieldMemoryBytes
	FieldFreeze

	allFields    = 1<<(limitCount+1) - 1
	defaultField = 1<<limitCount - 1 // what defaults may have: a freeze is of one tenant
)

// with is s after a change.
func (s TenantSettings) with(c *ChangeTenant) TenantSettings {
	to, from := s.Limits.all(), c.Settings.Limits.all()
	for i := range to {
		if c.Fields&(1<<i) != 0 {
			*to[i] = *from[i]
		}
	}
	if c.Fields&FieldFreeze != 0 {
		s.Freeze = c.Settings.Freeze
	}
	return s
}

// TenantUse is what a tenant has in the table.
type TenantUse struct {
	Facets   uint64 // names that lead to a facet
	Rows     uint64 // rows in all, detached and retired ones too
	Settings TenantSettings
}

// TenantRow is a tenant with settings of its own.
type TenantRow struct {
	Tenant   facet.Tenant
	Facets   uint64
	Settings TenantSettings
}

// TenantsVersion goes up with every change of settings. It takes no lock, so whoever
// keeps settings may compare it at every use.
func (t *Table) TenantsVersion() uint64 { return t.settingsVersion.Load() }

// Settings gives what is in force for a tenant: limits with the defaults applied, zero
// where there is none.
func (t *Table) Settings(name facet.Tenant) TenantSettings {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var own TenantSettings
	if i, ok := t.s.findTenant(name); ok && t.s.tenants[i].settings != nil {
		own = *t.s.tenants[i].settings
	}
	own.Limits = own.Limits.over(&t.s.defaults)
	return own
}

// Defaults gives the limits of tenants that have none of their own, as they were set.
func (t *Table) Defaults() TenantLimits {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.s.defaults
}

// Tenant tells what a tenant has and what was set for it. It is false for a tenant that
// has neither rows nor settings.
func (t *Table) Tenant(name facet.Tenant) (TenantUse, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	i, ok := t.s.findTenant(name)
	if !ok {
		return TenantUse{}, false
	}
	tn := t.s.tenants[i]
	u := TenantUse{Facets: uint64(tn.bound), Rows: uint64(tn.rows)}
	if tn.settings != nil {
		u.Settings = *tn.settings
	}
	return u, true
}

// Tenants gives the tenants with settings of their own by name, those after the one
// given, at most limit (and MaxList).
func (t *Table) Tenants(after facet.Tenant, limit int) []TenantRow {
	left := min(limit, MaxList)
	if left <= 0 {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	var out []TenantRow
	t.s.settings.Ascend(after, func(name facet.Tenant, s *TenantSettings) bool {
		if name == after {
			return true
		}
		row := TenantRow{Tenant: name, Settings: *s}
		if i, ok := t.s.findTenant(name); ok {
			row.Facets = uint64(t.s.tenants[i].bound)
		}
		out = append(out, row)
		return len(out) < left
	})
	return out
}

// settingsOf is what was decided about a tenant.
func (s *state) settingsOf(name facet.Tenant) TenantSettings {
	if i, ok := s.findTenant(name); ok && s.tenants[i].settings != nil {
		return *s.tenants[i].settings
	}
	return TenantSettings{}
}

// setSettings replaces what was decided about a tenant.
func (s *state) setSettings(name facet.Tenant, set TenantSettings) {
	t := s.tenantOf(name)
	s.tenantsChanged = true
	if set.IsZero() {
		t.settings = nil
		s.settings.Delete(name)
		s.forgetTenant(t)
		return
	}
	t.settings = &set
	s.settings.Set(t.name, &set)
}

// mayName tells whether a tenant may have one more name.
func (s *state) mayName(name facet.Tenant) Outcome {
	var own TenantSettings
	var bound uint64
	if i, ok := s.findTenant(name); ok {
		if t := s.tenants[i]; t.settings != nil {
			own = *t.settings
		}
		bound = uint64(s.tenants[i].bound)
	}
	if own.Freeze != NotFrozen {
		return RefusedFrozen
	}
	if most := own.Limits.over(&s.defaults).Facets; most != 0 && bound >= most {
		return RefusedTenantLimit
	}
	return Done
}

func (c SetTenantLimits) apply(s *state, index uint64) Result {
	set := s.settingsOf(c.Tenant)
	set.Limits = c.Limits
	s.setSettings(c.Tenant, set)
	return Result{Outcome: Done, Index: index}
}

func (c ChangeTenant) apply(s *state, index uint64) Result {
	if c.Tenant == "" {
		s.defaults = TenantSettings{Limits: s.defaults}.with(&c).Limits
		s.tenantsChanged = true
		return Result{Outcome: Done, Index: index}
	}
	old := s.settingsOf(c.Tenant)
	set := old.with(&c)
	switch {
	case set == old:
		return Result{Outcome: Done, Index: index}
	case old.IsZero() && s.settings.Len() >= MaxTenants:
		return s.refuse(RefusedFull, index)
	}
	s.setSettings(c.Tenant, set)
	return Result{Outcome: Done, Index: index}
}
