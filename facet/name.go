package facet

import (
	"fmt"
	"strings"
)

// Tenant is a customer of the platform: the unit of quota and of token scope.
// Its form is [a-z0-9][a-z0-9._-]{0,62}.
type Tenant string

// Name names a facet: tenant and facet name. A name is what people use; files,
// records and messages carry the Incarnation instead (rule R1).
type Name struct {
	Tenant Tenant
	Facet  string
}

// ParseTenant checks s against the form of a tenant.
func ParseTenant(s string) (Tenant, error) {
	if len(s) == 0 || len(s) > MaxTenantLen || !lowerAlnum(s[0]) {
		return "", badName("tenant", s, "use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit")
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !lowerAlnum(c) && c != '.' && c != '_' && c != '-' {
			return "", badName("tenant", s, "use 1 to 63 of a-z 0-9 . _ - and begin with a letter or digit")
		}
	}
	return Tenant(s), nil
}

// NewName checks both parts and joins them.
func NewName(tenant, facet string) (Name, error) {
	t, err := ParseTenant(tenant)
	if err != nil {
		return Name{}, err
	}
	if !validFacet(facet) {
		return Name{}, badName("facet", facet, "use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
	}
	return Name{Tenant: t, Facet: facet}, nil
}

// ParseName reads "tenant/facet".
func ParseName(s string) (Name, error) {
	t, f, ok := strings.Cut(s, "/")
	if !ok {
		return Name{}, badName("facet", s, `write it as tenant/facet, for example acme/notes`)
	}
	return NewName(t, f)
}

func (n Name) String() string { return string(n.Tenant) + "/" + n.Facet }

// IsZero reports whether n names nothing.
func (n Name) IsZero() bool { return n.Tenant == "" && n.Facet == "" }

func validFacet(s string) bool {
	if len(s) == 0 || len(s) > MaxFacetLen || !alnum(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !alnum(c) && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func lowerAlnum(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
func alnum(c byte) bool      { return lowerAlnum(c) || c >= 'A' && c <= 'Z' }

func badName(what, s, hint string) error {
	const shown = 80
	if len(s) > shown {
		s = s[:shown] + "…"
	}
	return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("%s name %q is not valid: %s", what, s, hint)}
}
