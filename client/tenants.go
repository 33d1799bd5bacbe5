package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/facetd/facetd/facet"
)

// Tenant is what a tenant has, does and may. Its JSON is that of the HTTP API.
type Tenant struct {
	Tenant string `json:"tenant"`
	Facets uint64 `json:"facets"`
	// Frozen is no, writes (nothing is changed, reads go on) or all.
	Frozen string `json:"frozen"`
	// Limits are those set for this tenant; InForce has the defaults as well, with zero
	// where there is no limit.
	Limits  TenantLimits `json:"limits"`
	InForce TenantLimits `json:"in_force,omitzero"`
	Use     TenantUse    `json:"use,omitzero"`
	// Nodes tells the same of every node, to supervisors.
	Nodes []TenantNode `json:"nodes,omitempty"`
}

// TenantUse is what a tenant uses, in all or at one node. What is told for a second is
// of the last one.
type TenantUse struct {
	Facets             uint64 `json:"facets"`
	Open               uint64 `json:"open"` // of them, open for work
	Bytes              uint64 `json:"bytes"`
	GrantedBytes       uint64 `json:"granted_bytes"` // that nodes hold for growth, counted against the total
	MemoryBytes        uint64 `json:"memory_bytes"`
	ConcurrentRequests uint64 `json:"concurrent_requests"`
	RequestsPerSecond  uint64 `json:"requests_per_second"`
	RefusedPerSecond   uint64 `json:"refused_per_second"`
	RowsPerSecond      uint64 `json:"rows_per_second"`
}

// TenantNode is what a tenant uses at one node.
type TenantNode struct {
	Node    string    `json:"node"`
	Problem string    `json:"problem,omitempty"` // why nothing is known of it
	Frozen  string    `json:"frozen,omitempty"`  // as that node knows
	Use     TenantUse `json:"use,omitzero"`
}

// TenantLimits are limits by the names of facet.LimitNames. In JSON a limit that is not
// set is left out and facet.NoLimit is "none".
type TenantLimits struct{ facet.TenantLimits }

// MarshalJSON writes the limits that are set.
func (l TenantLimits) MarshalJSON() ([]byte, error) {
	m := make(map[string]any)
	for i, v := range l.All() {
		switch *v {
		case 0:
		case facet.NoLimit:
			m[facet.LimitNames[i]] = "none"
		default:
			m[facet.LimitNames[i]] = *v
		}
	}
	return json.Marshal(m)
}

// UnmarshalJSON reads what MarshalJSON writes, and null as not set. What it does not know
// is of a newer node, and left out.
func (l *TenantLimits) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	for i, v := range l.All() {
		raw, ok := m[facet.LimitNames[i]]
		switch {
		case !ok || string(raw) == "null":
		case string(raw) == `"none"`:
			*v = facet.NoLimit
		default:
			if err := json.Unmarshal(raw, v); err != nil {
				return fmt.Errorf("limit %s: %w", facet.LimitNames[i], err)
			}
		}
	}
	return nil
}

// TenantChange says which limits to set. What is not in it stays as it is.
type TenantChange struct {
	fields facet.TenantFields
	limits facet.TenantLimits
}

// Set has the change set a limit, by its name in facet.LimitNames: facet.NoLimit is none,
// 0 takes the limit back to the default.
func (c *TenantChange) Set(limit string, value uint64) error {
	for i, name := range facet.LimitNames {
		if name == limit {
			c.fields |= facet.FieldOf(i)
			*c.limits.All()[i] = value
			return nil
		}
	}
	return facet.Errorf(facet.CodeBadRequest, "there is no limit %q", limit)
}

// IsZero reports whether the change sets nothing.
func (c *TenantChange) IsZero() bool { return c.fields == 0 }

// MarshalJSON writes the body of the HTTP API.
func (c TenantChange) MarshalJSON() ([]byte, error) {
	m := make(map[string]any)
	for i, v := range c.limits.All() {
		switch {
		case c.fields&facet.FieldOf(i) == 0:
		case *v == 0:
			m[facet.LimitNames[i]] = nil
		case *v == facet.NoLimit:
			m[facet.LimitNames[i]] = "none"
		default:
			m[facet.LimitNames[i]] = *v
		}
	}
	return json.Marshal(m)
}

// Tenant tells about a tenant. A token for all facets of a tenant may ask about that one.
func (c *Client) Tenant(ctx context.Context, tenant string) (Tenant, error) {
	return c.tenant(ctx, "look at tenant", http.MethodGet, tenant, "", nil)
}

// Tenants lists up to limit tenants that have settings of their own, those after the one
// given, and tells whether there are more.
func (c *Client) Tenants(ctx context.Context, after string, limit int) (list []Tenant, more bool, err error) {
	var body struct {
		Tenants []Tenant `json:"tenants"`
		More    bool     `json:"more"`
	}
	q := url.Values{"limit": {fmt.Sprint(limit)}}
	if after != "" {
		q.Set("after", after)
	}
	err = c.operate(ctx, operateTry, http.MethodGet, "/v1/tenants?"+q.Encode(), nil, &body)
	return body.Tenants, body.More, wrapOp("list tenants", err)
}

// SetTenant changes limits of a tenant.
func (c *Client) SetTenant(ctx context.Context, tenant string, change TenantChange) (Tenant, error) {
	return c.tenant(ctx, "set limits of tenant", http.MethodPatch, tenant, "", change)
}

// FreezeTenant has every request of a tenant refused, or with reads only those that
// change something. What runs is interrupted. It returns when the nodes that answer know.
func (c *Client) FreezeTenant(ctx context.Context, tenant string, reads bool) (Tenant, error) {
	return c.tenant(ctx, "freeze tenant", http.MethodPut, tenant, "/freeze", map[string]bool{"reads": reads})
}

// UnfreezeTenant ends a freeze.
func (c *Client) UnfreezeTenant(ctx context.Context, tenant string) (Tenant, error) {
	return c.tenant(ctx, "unfreeze tenant", http.MethodDelete, tenant, "/freeze", nil)
}

// TenantDefaults tells the limits of tenants that have none of their own.
func (c *Client) TenantDefaults(ctx context.Context) (TenantLimits, error) {
	return c.defaults(ctx, "look at the defaults of tenants", http.MethodGet, nil)
}

// SetTenantDefaults changes them.
func (c *Client) SetTenantDefaults(ctx context.Context, change TenantChange) (TenantLimits, error) {
	return c.defaults(ctx, "set the defaults of tenants", http.MethodPatch, change)
}

func (c *Client) defaults(ctx context.Context, what, method string, in any) (TenantLimits, error) {
	var body struct {
		Limits TenantLimits `json:"limits"`
	}
	err := c.operate(ctx, operateTry, method, "/v1/tenant-defaults", in, &body)
	return body.Limits, wrapOp(what, err)
}

func (c *Client) tenant(ctx context.Context, what, method, tenant, path string, in any) (t Tenant, err error) {
	if _, err := facet.ParseTenant(tenant); err != nil {
		return t, wrapOp(what, err)
	}
	err = c.operate(ctx, operateTry, method, "/v1/tenants/"+tenant+path, in, &t)
	return t, wrapOp(what+" "+tenant, err)
}
