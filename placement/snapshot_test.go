package placement

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

// sampleTable has something of everything a snapshot holds.
func sampleTable(t testing.TB) *Table {
	t.Helper()
	tab := NewTable()
	both := mustSet(Member{"n1", storeID(1)}, Member{"n2", storeID(2)})
	create := func(n uint32, f string, detached bool) Command {
		return Create{Name: name("acme", f), Incarnation: incarnation(n), Owner: owner("n1", 1), Set: setOf("n1", 1), Detached: detached}
	}
	commands := []Command{
		SetClusterID{cluster.ID{15: 7}}, RaiseGeneration{2}, register("n1", 1), register("n2", 2),
		SetTenantLimits{"bolt", facet.TenantLimits{Facets: 9}},
		create(1, "creating", false), create(2, "active", false), create(3, "gone", false),
		create(4, "old", false), create(5, "old", true), create(6, "detached", true), create(7, "deleting", false),
		Activate{incarnation(2), 2<<48 | 1, bootID(1)},
		Acquire{Incarnation: incarnation(2), Owner: owner("n2", 2), Expected: 2<<48 | 1, Set: both},
		Delete{incarnation(3), 0}, Tomb{incarnation(3), 2<<48 | 2},
		Bind{Name: name("acme", "old"), Old: incarnation(4), OldEpoch: 2<<48 | 1, New: incarnation(5)},
		Delete{incarnation(7), 0},
		SetNode{"n2", NodeDraining}, Pin{incarnation(2), true}, Renew{},
	}
	for i, c := range commands {
		r, err := tab.ApplyCommands(uint64(10+i), c)
		if err != nil || r[0].Outcome != Done {
			t.Fatalf("%T: %+v, %v", c, r, err)
		}
	}
	return tab
}

// TestSnapshotLineage: the golden file is from before there were lineages and is read
// as ever; a row that has one keeps it.
func TestSnapshotLineage(t *testing.T) {
	tab := sampleTable(t)
	want := lineage(2, true)
	if _, err := tab.ApplyCommands(100, Create{Name: name("acme", "new"), Incarnation: incarnation(9), Owner: owner("n1", 1),
		Set: setOf("n1", 1), Lineage: want}); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := tab.Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot-lineage.bin", buf.Bytes())
	again := NewTable()
	if err := again.Restore(&buf); err != nil {
		t.Fatal(err)
	}
	if f, _ := again.ByIncarnation(incarnation(9)); f.Lineage != want {
		t.Errorf("restored %+v, want %+v", f.Lineage, want)
	}
	if got, want := fmt.Sprint(dump(again)), fmt.Sprint(dump(tab)); got != want {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
}

func dump(tab *Table) map[facet.Incarnation]string {
	out := map[facet.Incarnation]string{}
	for f := range tab.Facets() {
		out[f.Incarnation] = fmt.Sprint(f.Name, f.State, f.Bound, f.Epoch, f.Owner, f.Holder, f.Pinned, f.Next.Members(), f.Active.Members(), f.ActiveEpoch, f.Index, f.Lineage)
	}
	return out
}

func TestSnapshotGolden(t *testing.T) {
	tab := sampleTable(t)
	var buf bytes.Buffer
	if _, err := tab.Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot.bin", buf.Bytes())
	again := NewTable()
	if err := again.Restore(bytes.NewReader(buf.Bytes())); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(dump(again)), fmt.Sprint(dump(tab)); got != want {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
	if got, want := fmt.Sprint(again.Nodes(), again.Counts()), fmt.Sprint(tab.Nodes(), tab.Counts()); got != want {
		t.Errorf("restored %s, want %s", got, want)
	}
	if u, ok := again.Tenant("bolt"); !ok || u.Settings.Limits.Facets != 9 || !again.Tombstoned(incarnation(3)) {
		t.Error("limits or tombstones are lost")
	}
}

// TestSnapshotDamage changes every byte and cuts at every length: each time the
// snapshot is refused and the table stays what it was.
func TestSnapshotDamage(t *testing.T) {
	var buf bytes.Buffer
	if _, err := sampleTable(t).Freeze().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	tab := NewTable()
	fill(t, tab, 3, oneTenant)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x41
		if err := tab.Restore(bytes.NewReader(b)); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if err := tab.Restore(bytes.NewReader(whole[:i])); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if err := tab.Restore(bytes.NewReader(append(bytes.Clone(whole), 0))); !errors.Is(err, ErrSnapshot) {
		t.Fatalf("byte after the end: %v", err)
	}
	if tab.Counts().Facets != 3 {
		t.Error("a refused snapshot changed the table")
	}
}

func FuzzRestore(f *testing.F) {
	var buf bytes.Buffer
	if _, err := sampleTable(f).Freeze().WriteTo(&buf); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksums would stop the fuzzer at the door: put them right.
		fixChecksums(b)
		tab := NewTable()
		if err := tab.Restore(bytes.NewReader(b)); err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := tab.Freeze().WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		again := NewTable()
		if err := again.Restore(&out); err != nil {
			t.Fatalf("what was restored cannot be written: %v", err)
		}
		if fmt.Sprint(dump(tab)) != fmt.Sprint(dump(again)) {
			t.Fatal("a second trip changed the table")
		}
	})
}

func fixChecksums(b []byte) {
	for at := snapshotHeadLen; at+blockHeadLen <= len(b); {
		head := b[at : at+blockHeadLen]
		n := int(binary.BigEndian.Uint32(head[4:]))
		if n > maxBlockLen || at+blockHeadLen+n > len(b) {
			return
		}
		payload := b[at+blockHeadLen : at+blockHeadLen+n]
		binary.BigEndian.PutUint32(head[8:], crc32.Update(crc32.Checksum(head[:8], castagnoli), castagnoli, payload))
		at += blockHeadLen + n
	}
}
