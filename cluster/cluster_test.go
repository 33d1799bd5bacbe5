package cluster

import (
	"strings"
	"testing"
)

func TestParseNodeID(t *testing.T) {
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{"n1", true}, {"a", true}, {"0", true}, {"node-a-1", true}, {"a-", true},
		{strings.Repeat("a", 63), true},
		{"", false}, {"-a", false}, {"A", false}, {"a_b", false}, {"a.b", false}, {"ä", false},
		{strings.Repeat("a", 64), false},
	} {
		id, err := ParseNodeID(tc.in)
		if (err == nil) != tc.ok {
			t.Errorf("ParseNodeID(%q) = %v, want ok %v", tc.in, err, tc.ok)
		}
		if tc.ok && id.String() != tc.in {
			t.Errorf("ParseNodeID(%q).String() = %q", tc.in, id)
		}
		if id.IsZero() == tc.ok {
			t.Errorf("ParseNodeID(%q).IsZero() = %v", tc.in, id.IsZero())
		}
	}
}

func TestRandomIDs(t *testing.T) {
	store, boot, id := NewStoreID(), NewBootID(), NewID()
	if store.IsZero() || boot.IsZero() || id.IsZero() || store == NewStoreID() || boot == NewBootID() || id == NewID() {
		t.Fatal("ids are not random")
	}
	if got, err := ParseStoreID(store.String()); err != nil || got != store {
		t.Errorf("store: %v, %v", got, err)
	}
	if got, err := ParseBootID(boot.String()); err != nil || got != boot {
		t.Errorf("boot: %v, %v", got, err)
	}
	if got, err := ParseID(id.String()); err != nil || got != id {
		t.Errorf("cluster: %v, %v", got, err)
	}
	if got, err := ParseMachineID(id.String()); err != nil || got != MachineID(id) {
		t.Errorf("machine: %v, %v", got, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("g", 32), strings.Repeat("0", 33)} {
		if got, err := ParseStoreID(bad); err == nil || !got.IsZero() {
			t.Errorf("ParseStoreID(%q) = %v, %v", bad, got, err)
		}
	}
}

func TestView(t *testing.T) {
	v, err := NewView(NewID(), "b", []Member{{ID: "c"}, {ID: "a", Zone: "z1"}, {ID: "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if m, ok := v.Member("a"); !ok || m.Zone != "z1" {
		t.Errorf("Member(a) = %+v, %v", m, ok)
	}
	if _, ok := v.Member("d"); ok {
		t.Error("found a member that is not there")
	}
	for i, bad := range [][]Member{
		{{ID: "a"}, {ID: "a"}},
		{{ID: "-"}},
		{{ID: "a", API: strings.Repeat("x", MaxAddressLen+1)}},
		{{ID: "a", Zone: strings.Repeat("x", MaxZoneLen+1)}},
		make([]Member, MaxNodes+1),
	} {
		if _, err := NewView(ID{}, "a", bad); err == nil {
			t.Errorf("bad view %d was accepted", i)
		}
	}
	if StatusSuspect.String() != "suspect" || Status(9).String() != "status_9" {
		t.Error("status names")
	}
}
