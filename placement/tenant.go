package placement

import "github.com/facetd/facetd/facet"

// TenantUse is what a tenant has in the table.
type TenantUse struct {
	Facets   uint64 // names that lead to a facet
	Rows     uint64 // rows in all, detached and retired ones too
	Settings facet.TenantSettings
}

// TenantRow is a tenant with settings of its own.
type TenantRow struct {
	Tenant   facet.Tenant
	Facets   uint64
	Settings facet.TenantSettings
}

// TenantsVersion goes up with every change of settings. It takes no lock, so whoever
// keeps settings may compare it at every use.
func (t *Table) TenantsVersion() uint64 { return t.settingsVersion.Load() }

// Settings gives what is in force for a tenant: limits with the defaults applied, zero
// where there is none.
func (t *Table) Settings(name facet.Tenant) facet.TenantSettings {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var own facet.TenantSettings
	if i, ok := t.s.findTenant(name); ok && t.s.tenants[i].settings != nil {
		own = *t.s.tenants[i].settings
	}
	own.Limits = own.Limits.Over(&t.s.defaults)
	return own
}

// Defaults gives the limits of tenants that have none of their own, as they were set.
func (t *Table) Defaults() facet.TenantLimits {
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
	t.s.settings.Ascend(after, func(name facet.Tenant, s *facet.TenantSettings) bool {
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
func (s *state) settingsOf(name facet.Tenant) facet.TenantSettings {
	if i, ok := s.findTenant(name); ok && s.tenants[i].settings != nil {
		return *s.tenants[i].settings
	}
	return facet.TenantSettings{}
}

// setSettings replaces what was decided about a tenant.
func (s *state) setSettings(name facet.Tenant, set facet.TenantSettings) {
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
	var own facet.TenantSettings
	var bound uint64
	if i, ok := s.findTenant(name); ok {
		if t := s.tenants[i]; t.settings != nil {
			own = *t.settings
		}
		bound = uint64(s.tenants[i].bound)
	}
	if own.Freeze != facet.NotFrozen {
		return RefusedFrozen
	}
	if most := own.Limits.Over(&s.defaults).Facets; most != 0 && bound >= most {
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
		s.defaults = facet.TenantSettings{Limits: s.defaults}.With(c.Fields, c.Settings).Limits
		s.tenantsChanged = true
		return Result{Outcome: Done, Index: index}
	}
	old := s.settingsOf(c.Tenant)
	set := old.With(c.Fields, c.Settings)
	switch {
	case set == old:
		return Result{Outcome: Done, Index: index}
	case old.IsZero() && s.settings.Len() >= MaxTenants:
		return s.refuse(RefusedFull, index)
	}
	s.setSettings(c.Tenant, set)
	return Result{Outcome: Done, Index: index}
}
