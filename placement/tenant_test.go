package placement

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/facetd/facetd/facet"
)

// TestSnapshotTenants: freezes and defaults go through a snapshot, which then has
// version 2; one without them stays as it was, so that an older release can read it.
func TestSnapshotTenants(t *testing.T) {
	tab := sampleTable(t)
	frozen := ChangeTenant{Tenant: "cafe", Fields: facet.FieldFreeze, Settings: facet.TenantSettings{Freeze: facet.FreezeAll}}
	for i, c := range []Command{
		ChangeTenant{Tenant: "acme", Fields: facet.FieldOf(2), Settings: facet.TenantSettings{Limits: facet.TenantLimits{TotalBytes: 5}}},
		frozen,
		ChangeTenant{Fields: facet.FieldOf(0), Settings: facet.TenantSettings{Limits: facet.TenantLimits{Facets: 7}}},
	} {
		if r, err := tab.ApplyCommands(uint64(100+i), c); err != nil || r[0].Outcome != Done {
			t.Fatalf("%+v: %+v, %v", c, r, err)
		}
	}
	var buf bytes.Buffer
	if _, err := tab.Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot-tenants.bin", buf.Bytes())
	again := NewTable()
	before := again.TenantsVersion()
	if err := again.Restore(bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	if again.TenantsVersion() == before {
		t.Error("whoever keeps settings is not told that the table was replaced")
	}
	want := []TenantRow{
		{"acme", 4, facet.TenantSettings{Limits: facet.TenantLimits{TotalBytes: 5}}},
		{"bolt", 0, facet.TenantSettings{Limits: facet.TenantLimits{Facets: 9}}},
		{"cafe", 0, facet.TenantSettings{Freeze: facet.FreezeAll}},
	}
	if got := again.Tenants("", 10); !slices.Equal(got, want) {
		t.Errorf("restored %+v, want %+v", got, want)
	}
	if got := again.Tenants("acme", 1); !slices.Equal(got, want[1:2]) {
		t.Errorf("the page behind acme is %+v", got)
	}
	if got := again.Defaults(); got != (facet.TenantLimits{Facets: 7}) {
		t.Errorf("restored the defaults %+v", got)
	}
	if got := again.Settings("acme"); got != (facet.TenantSettings{Limits: facet.TenantLimits{Facets: 7, TotalBytes: 5}}) {
		t.Errorf("in force for acme: %+v", got)
	}

	// Taken back, it is of version 1 again.
	frozen.Settings.Freeze = facet.NotFrozen
	if _, err := tab.ApplyCommands(200, frozen, ChangeTenant{Fields: facet.FieldOf(0)}); err != nil {
		t.Fatal(err)
	}
	buf.Reset()
	if _, err := tab.Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	if v := binary.BigEndian.Uint16(buf.Bytes()[8:]); v != snapshotPlain {
		t.Errorf("a snapshot without freezes and defaults is of version %d", v)
	}
	if err := NewTable().Restore(&buf); err != nil {
		t.Error(err)
	}
}

// TestFacetLimit: no order of creations brings a tenant above its limit, what is
// deleted gives room back, and what is above a lowered limit stays.
func TestFacetLimit(t *testing.T) {
	tab := NewTable()
	index := uint64(0)
	do := func(c Command) Outcome {
		t.Helper()
		index++
		r, err := tab.ApplyCommands(index, c)
		if err != nil {
			t.Fatal(err)
		}
		return r[0].Outcome
	}
	create := func(n uint32, detached bool) Command {
		return Create{Name: name("acme", fmt.Sprint("f", n)), Incarnation: incarnation(n), Owner: owner("n1", 1), Set: setOf("n1", 1), Detached: detached}
	}
	limit := func(tenant facet.Tenant, n uint64) Command {
		return ChangeTenant{Tenant: tenant, Fields: facet.FieldOf(0), Settings: facet.TenantSettings{Limits: facet.TenantLimits{Facets: n}}}
	}
	freeze := func(f facet.Freeze) Command {
		return ChangeTenant{Tenant: "acme", Fields: facet.FieldFreeze, Settings: facet.TenantSettings{Freeze: f}}
	}
	bind := func(n uint32) Command { return Bind{Name: name("acme", fmt.Sprint("f", n)), New: incarnation(n)} }
	for i, step := range []struct {
		c    Command
		want Outcome
	}{
		{register("n1", 1), Done},
		{limit("", 2), Done},
		{create(1, false), Done},
		{create(2, false), Done},
		{create(3, false), RefusedTenantLimit},
		{create(1, false), Existed}, // the same again
		{create(4, true), Done},     // without a name
		{bind(4), RefusedTenantLimit},
		{limit("acme", 3), Done}, // its own goes before the default
		{bind(4), Done},
		{create(5, false), RefusedTenantLimit},
		{limit("acme", facet.NoLimit), Done},
		{create(5, false), Done},
		{limit("acme", 0), Done}, // the default again, which is lower than what is there
		{create(6, false), RefusedTenantLimit},
		{Delete{incarnation(1), 0}, Done},
		{Tomb{incarnation(1), 2}, Done},
		{Delete{incarnation(2), 0}, Done},
		{Tomb{incarnation(2), 2}, Done},
		{create(7, false), RefusedTenantLimit}, // two are left, and two it may have
		{Delete{incarnation(4), 0}, Done},
		{create(7, false), RefusedTenantLimit}, // the name is taken until the tombstone
		{Tomb{incarnation(4), 2}, Done},
		{freeze(facet.FreezeWrites), Done},
		{create(7, false), RefusedFrozen},
		{create(8, true), Done},
		{bind(8), RefusedFrozen},
		{freeze(facet.NotFrozen), Done},
		{create(7, false), Done},
		{bind(8), RefusedTenantLimit},
	} {
		if got := do(step.c); got != step.want {
			t.Fatalf("step %d: %+v = %v, want %v", i, step.c, got, step.want)
		}
	}
	if u, _ := tab.Tenant("acme"); u.Facets != 2 {
		t.Errorf("the tenant has %d facets", u.Facets)
	}
}

// TestSettingsAreTold: whoever watches hears of it, and the version moves, once the
// change can be read.
func TestSettingsAreTold(t *testing.T) {
	tab := NewTable()
	w := tab.Watch()
	defer w.Close()
	before := tab.TenantsVersion()
	if _, err := tab.ApplyCommands(1, register("n1", 1)); err != nil {
		t.Fatal(err)
	}
	if news := w.Take(); news.Tenants || tab.TenantsVersion() != before {
		t.Error("a node was told as a change of settings")
	}
	if _, err := tab.ApplyCommands(2, ChangeTenant{Tenant: "acme", Fields: facet.FieldFreeze, Settings: facet.TenantSettings{Freeze: facet.FreezeAll}}); err != nil {
		t.Fatal(err)
	}
	<-w.Wake()
	if news := w.Take(); !news.Tenants || news.Index != 2 || tab.TenantsVersion() == before {
		t.Errorf("a freeze was told as %+v", news)
	}
}
