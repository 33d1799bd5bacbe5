package token

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
)

// Access is what a bearer may do, each including the ones before.
type Access uint8

const (
	None  Access = iota
	Read         // read rows, look at a facet, export it
	Write        // change rows, create by first write
	Admin        // create, delete, import; of a supervisor, everything
)

func (a Access) String() string { return [...]string{"none", "ro", "rw", "admin"}[a] }

// ParseAccess reads "ro", "rw" or "admin".
func ParseAccess(s string) (Access, error) {
	for a := Read; a <= Admin; a++ {
		if s == a.String() {
			return a, nil
		}
	}
	return None, fmt.Errorf("access %.20q is not ro, rw or admin", s)
}

// AllTenants is in a token in place of a tenant when it is a supervisor's.
const AllTenants = "*"

// Grant is what a valid token says.
type Grant struct {
	KeyID    string // of the key that signed it; empty when that has none
	ID       string // jti: names the token, so that it can be revoked
	Subject  string // sub: who it was made for, as the platform calls him
	Issued   time.Time
	NotFrom  time.Time // nbf; zero when there is none
	Expires  time.Time // zero: never
	Audience []string

	all   Access // supervisor: on every facet and on the cluster
	rules []rule
}

// rule lets the bearer reach the facets of one tenant that match.
type rule struct {
	tenant  facet.Tenant
	pattern pattern
	access  Access
}

// pattern is the name of a facet, or its beginning and a star.
type pattern struct {
	text   string
	prefix bool
}

func parsePattern(s string) (pattern, error) {
	begin, prefix := strings.CutSuffix(s, "*")
	if prefix && begin == "" {
		return pattern{prefix: true}, nil
	}
	if _, err := facet.NewName("t", begin); err != nil {
		return pattern{}, fmt.Errorf("%.80q is neither the name of a facet nor the beginning of one with a * behind it", s)
	}
	return pattern{begin, prefix}, nil
}

func (p pattern) String() string {
	if p.prefix {
		return p.text + "*"
	}
	return p.text
}

func (p pattern) match(name string) bool {
	if p.prefix {
		return strings.HasPrefix(name, p.text)
	}
	return name == p.text
}

// Facet is what the bearer may do with a facet, whether it exists or not.
func (g *Grant) Facet(name facet.Name) Access {
	most := g.all
	for i := range g.rules {
		if r := &g.rules[i]; r.access > most && r.tenant == name.Tenant && r.pattern.match(name.Facet) {
			most = r.access
		}
	}
	return most
}

// Tenant is the most the bearer may do with any facet of the tenant.
func (g *Grant) Tenant(t facet.Tenant) Access {
	most := g.all
	for _, r := range g.rules {
		if r.tenant == t {
			most = max(most, r.access)
		}
	}
	return most
}

// WholeTenant is what the bearer may do with every facet of the tenant, whatever its
// name.
func (g *Grant) WholeTenant(t facet.Tenant) Access {
	most := g.all
	for _, r := range g.rules {
		if r.tenant == t && r.pattern == (pattern{prefix: true}) {
			most = max(most, r.access)
		}
	}
	return most
}

// Cluster is what the bearer may do with the cluster as a whole; it is None for
// everybody but supervisors.
func (g *Grant) Cluster() Access { return g.all }

// Seek tells where the facets of the tenant that the bearer may read go on: none of
// them lies between after, excluded, and from, included. from is after where they go
// on right behind it. ok is false where there are no more.
func (g *Grant) Seek(t facet.Tenant, after string) (from string, ok bool) {
	if g.all >= Read {
		return after, true
	}
	for _, r := range g.rules {
		if r.tenant != t {
			continue
		}
		at := r.pattern.text
		if at <= after {
			if !r.pattern.prefix || !strings.HasPrefix(after, at) {
				continue // all of it lies before
			}
			at = after
		}
		if !ok || at < from {
			from, ok = at, true
		}
	}
	return from, ok
}

// Until is the moment from which the token lets nobody in; zero is never.
func (g *Grant) Until() time.Time {
	if g.Expires.IsZero() {
		return g.Expires
	}
	return g.Expires.Add(Leeway)
}

// Check says whether the token lets its bearer in at the moment. What the keys
// say of it was judged when the Grant was made.
func (g *Grant) Check(now time.Time) error {
	switch {
	case !g.Expires.IsZero() && !now.Before(g.Until()):
		return refuse("the token expired at %s", shownTime(g.Expires))
	case now.Add(Leeway).Before(g.NotFrom):
		return refuse("the token is not valid before %s", shownTime(g.NotFrom))
	}
	return nil
}

func shownTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Reach tells in words what the token opens, one line a rule.
func (g *Grant) Reach() []string {
	if g.all > None {
		return []string{"every facet and the cluster: " + g.all.String()}
	}
	var out []string
	for _, r := range g.rules {
		out = append(out, fmt.Sprintf("%s/%s: %s", r.tenant, r.pattern, r.access))
	}
	return out
}

// parseClaims makes a Grant of what a token says.
func parseClaims(src []byte) (*Grant, error) {
	o, err := parseObject(src)
	if err != nil {
		return nil, err
	}
	g := &Grant{}
	own, sqld := o.has("tenant", "facets", "access"), o.has("id", "a", "p")
	switch {
	case own && sqld:
		return nil, errors.New("it has claims of facetd (tenant, facets, access) and of sqld (id, a, p); use one kind")
	case own:
		err = g.own(o)
	case sqld:
		err = g.sqld(o)
	default:
		// To sqld such a token opens everything. A token that was made for something else
		// must not.
		return nil, errors.New("it does not say what it opens: it has neither tenant, facets and access nor sqld's id, a and p")
	}
	if err != nil {
		return nil, err
	}
	if g.Issued, err = o.seconds("iat"); err != nil {
		return nil, err
	}
	if g.NotFrom, err = o.seconds("nbf"); err != nil {
		return nil, err
	}
	if g.Expires, err = o.seconds("exp"); err != nil {
		return nil, err
	}
	if own && !o.has("exp") {
		return nil, errors.New(`it never expires: "exp" is missing`)
	}
	if g.ID, err = o.label("jti"); err != nil {
		return nil, err
	}
	if g.Subject, err = o.label("sub"); err != nil {
		return nil, err
	}
	g.Audience, err = o.audience()
	return g, err
}

// audience reads "aud", which is a string or several.
func (o object) audience() ([]string, error) {
	if raw, ok := o["aud"]; ok && raw[0] == '"' {
		s, err := o.label("aud")
		return []string{s}, err
	}
	list, err := o.list("aud", MaxRules)
	if err == nil && o.has("aud") && len(list) == 0 {
		err = errors.New(`"aud" names nobody`)
	}
	return list, err
}

// own reads the claims of facetd. All three are needed: what is left out by mistake
// must not open more.
func (g *Grant) own(o object) error {
	tenant, err := o.text("tenant", facet.MaxTenantLen)
	if err != nil {
		return err
	}
	facets, err := o.list("facets", MaxRules)
	if err != nil {
		return err
	}
	text, err := o.text("access", MaxLabel)
	if err != nil {
		return err
	}
	if tenant == "" || len(facets) == 0 || text == "" {
		return errors.New(`"tenant", "facets" and "access" go together and none may be empty; all facets are ["*"]`)
	}
	access, err := ParseAccess(text)
	if err != nil {
		return err
	}
	if tenant == AllTenants {
		if len(facets) != 1 || facets[0] != "*" {
			return errors.New(`the facets of "tenant":"*" are ["*"]`)
		}
		g.all = access
		return nil
	}
	for _, f := range facets {
		if err := g.allow(tenant, f, access); err != nil {
			return err
		}
	}
	return nil
}

// sqld reads the claims of libSQL's server. A namespace of it is TENANT/FACET here,
// or a pattern as in facets. Only what it says of itself is taken: there a token
// without id and p opens everything.
func (g *Grant) sqld(o object) error {
	if o.has("p") {
		if o.has("id", "a") {
			return errors.New("it has id or a beside p, of which versions of sqld think differently")
		}
		return g.permissions(o["p"])
	}
	id, err := o.text("id", facet.MaxTenantLen+1+facet.MaxFacetLen+1)
	if err != nil {
		return err
	}
	if id == "" {
		return errors.New("it names no database in id: write TENANT/FACET, or TENANT/* for all of a tenant")
	}
	access := Write // as sqld has it
	if o.has("a") {
		text, err := o.text("a", MaxLabel)
		if err != nil {
			return err
		}
		if access, err = ParseAccess(text); err != nil || access == Admin {
			return errors.New(`"a" is neither "ro" nor "rw"`)
		}
	}
	return g.namespace(id, access)
}

// permissions reads sqld's p. The a in roa and rwa lets other databases attach this
// one, which nobody can here.
func (g *Grant) permissions(raw []byte) error {
	p, err := parseObject(raw)
	if err != nil {
		return fmt.Errorf("p: %w", err)
	}
	if err := p.only("ro", "rw", "roa", "rwa"); err != nil {
		return fmt.Errorf("p: %w", err)
	}
	for _, kind := range []struct {
		name   string
		access Access
	}{{"ro", Read}, {"rw", Write}, {"roa", Read}, {"rwa", Write}} {
		if !p.has(kind.name) || string(p[kind.name]) == "null" {
			continue
		}
		scopes, err := parseObject(p[kind.name])
		if err == nil {
			err = scopes.only("ns")
		}
		var names []string
		if err == nil {
			names, err = scopes.list("ns", MaxRules)
		}
		for i := 0; i < len(names) && err == nil; i++ {
			err = g.namespace(names[i], kind.access)
		}
		if err != nil {
			return fmt.Errorf("p.%s: %w", kind.name, err)
		}
	}
	if len(g.rules) == 0 {
		return errors.New("p names no database")
	}
	return nil
}

func (g *Grant) namespace(ns string, access Access) error {
	tenant, f, ok := strings.Cut(ns, "/")
	if !ok {
		return fmt.Errorf("%.80q names no database: write TENANT/FACET, or TENANT/* for all of a tenant", ns)
	}
	return g.allow(tenant, f, access)
}

func (g *Grant) allow(tenant, facets string, access Access) error {
	if len(g.rules) >= MaxRules {
		return fmt.Errorf("it names more than %d facets; a pattern as log-* names many", MaxRules)
	}
	t, err := facet.ParseTenant(tenant)
	if err != nil {
		return fmt.Errorf("%.80q is not the name of a tenant", tenant)
	}
	p, err := parsePattern(facets)
	if err != nil {
		return err
	}
	g.rules = append(g.rules, rule{t, p, access})
	return nil
}

// within reports whether the token opens nothing outside of the tenant.
func (g *Grant) within(t facet.Tenant) bool {
	for _, r := range g.rules {
		if r.tenant != t {
			return false
		}
	}
	return g.all == None
}
