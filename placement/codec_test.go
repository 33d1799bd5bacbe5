package placement

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file in testdata.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the format changed\n got %q\nwant %q", file, got, want)
	}
}

// limits8 has every limit, the last as given.
func limits8(last uint64) (l facet.TenantLimits) {
	for i, v := range l.All() {
		*v = uint64(i + 1)
	}
	l.MemoryBytes = last
	return l
}

// samples has every command once, every field filled.
func samples() []Command {
	return []Command{
		RegisterNode{Node: "n1", Store: storeID(1), Boot: bootID(2), Machine: cluster.MachineID{15: 3},
			API: "h1:7400", Peer: "h1:7401", Zone: "z1", Version: "1.2.3", LeaseOver: true, ReplaceStore: true},
		Create{Name: name("acme", "Notes"), Incarnation: incarnation(1), Owner: owner("n1", 2),
			Set: mustSet(Member{"n2", storeID(2)}, Member{"n1", storeID(1)}), Detached: true, Active: true},
		Acquire{Incarnation: incarnation(1), Owner: owner("n1", 2), Expected: 7, Released: bootID(5), Set: setOf("n1", 1)},
		Activate{Incarnation: incarnation(1), Epoch: 8, Boot: bootID(2)},
		Release{Incarnation: incarnation(1), Epoch: 8, Boot: bootID(2)},
		Delete{Incarnation: incarnation(1), Expected: 8},
		Tomb{Incarnation: incarnation(1), Epoch: 9},
		Bind{Name: name("acme", "Notes"), Old: incarnation(1), OldEpoch: 9, New: incarnation(2)},
		SetClusterID{ID: cluster.ID{15: 9}},
		SetTenantLimits{Tenant: "acme", Limits: limits8(8)},
		RaiseGeneration{Generation: 258},
		Renew{},
		SetNode{Node: "n1", State: NodeDecommissioning},
		RemoveNode{Node: "n1"},
		Pin{Incarnation: incarnation(1), Pinned: true},
		Create{Name: name("acme", "Notes"), Incarnation: incarnation(1), Owner: owner("n1", 2), Set: setOf("n1", 1),
			Lineage: lineage(3, true)},
		Bind{Name: name("acme", "Notes"), Old: incarnation(1), OldEpoch: 9, New: incarnation(2), Unserved: true},
		ChangeTenant{Tenant: "acme", Fields: facet.FieldsKnown, Settings: facet.TenantSettings{Limits: limits8(facet.NoLimit), Freeze: facet.FreezeAll}},
		ChangeTenant{Fields: facet.FieldOf(0) | facet.FieldOf(6), Settings: facet.TenantSettings{Limits: facet.TenantLimits{Facets: 9}}},
	}
}

func sampleResults() []Result {
	return []Result{
		{Outcome: Done, Index: 5},
		{Outcome: Existed, Index: 1 << 40, Facet: Facet{Name: name("acme", "Notes"), Incarnation: incarnation(1),
			State: Active, Bound: true, Pinned: true, Epoch: 1<<48 | 3, Owner: owner("n1", 2), Holder: owner("n2", 9), Next: setOf("n1", 1),
			Active: mustSet(Member{"n2", storeID(2)}, Member{"n1", storeID(1)}), ActiveEpoch: 3, Index: 77}},
		{Outcome: RefusedState, Index: 6, Facet: Facet{Name: name("a", "b"), Incarnation: incarnation(2),
			State: Deleting, Epoch: 2, Next: setOf("n1", 1)}},
		{Outcome: Done, Index: 6, Facet: Facet{Name: name("a", "b"), Incarnation: incarnation(2),
			State: Creating, Epoch: 2, Next: setOf("n1", 1), Lineage: lineage(3, true)}},
	}
}

func TestCommandGolden(t *testing.T) {
	var out bytes.Buffer
	for _, c := range samples() {
		b := AppendCommand(nil, c)
		fmt.Fprintf(&out, "%s %s\n", strings.TrimPrefix(reflect.TypeOf(c).String(), "placement."), hex.EncodeToString(b))
		got, err := DecodeCommand(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Errorf("%T: decoded %+v, %v, want %+v", c, got, err, c)
		}
		for n := range b {
			if bind, ok := c.(Bind); ok && bind.Unserved && n == len(b)-1 {
				continue // one that is not, which has no flags
			}
			if _, err := DecodeCommand(b[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes were accepted", c, n, len(b))
			}
		}
		if _, err := DecodeCommand(append(b, 0)); err == nil {
			t.Errorf("%T: a byte too many was accepted", c)
		}
		b[1]++
		if _, err := DecodeCommand(b); !errors.Is(err, ErrUnknownCommand) {
			t.Errorf("%T: unknown version: %v", c, err)
		}
	}
	golden(t, "commands.txt", out.Bytes())
	if _, err := DecodeCommand([]byte{200, 1}); !errors.Is(err, ErrUnknownCommand) {
		t.Errorf("unknown kind: %v", err)
	}
	if _, err := DecodeCommand(make([]byte, MaxCommandLen+1)); err == nil {
		t.Error("too long a command was accepted")
	}
}

func TestResultGolden(t *testing.T) {
	var out bytes.Buffer
	for _, r := range sampleResults() {
		b := r.AppendBinary(nil)
		fmt.Fprintf(&out, "%v %s\n", r.Outcome, hex.EncodeToString(b))
		got, err := DecodeResult(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("decoded %+v, %v, want %+v", got, err, r)
		}
		for n := range b {
			if _, err := DecodeResult(b[:n]); err == nil {
				t.Errorf("%d of %d bytes were accepted", n, len(b))
			}
		}
	}
	golden(t, "results.txt", out.Bytes())
}

func TestCommandLimits(t *testing.T) {
	long := strings.Repeat("a", 300)
	reg := register("n1", 1)
	for i, c := range []Command{
		func() Command { r := reg; r.Node = cluster.NodeID(long); return r }(),
		func() Command { r := reg; r.Node = ""; return r }(),
		func() Command { r := reg; r.API = long; return r }(),
		func() Command { r := reg; r.Zone = long; return r }(),
		func() Command { r := reg; r.Store = cluster.StoreID{}; return r }(),
		func() Command { r := reg; r.Boot = cluster.BootID{}; return r }(),
		Create{Name: name("acme", long), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1)},
		Create{Name: name(long, "a"), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1)},
		Create{Name: name("acme", "a/b"), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1)},
		Create{Name: name("acme", "a"), Owner: owner("n1", 1), Set: setOf("n1", 1)},
		Create{Name: name("acme", "a"), Incarnation: incarnation(1), Set: setOf("n1", 1)},
		Create{Name: name("acme", "a"), Incarnation: incarnation(1), Owner: owner("n1", 1)},
		SetClusterID{},
		func() Command { r := reg; r.Version = long; return r }(),
		SetNode{Node: "n1", State: 3},
		SetNode{State: NodeDraining},
		RemoveNode{},
		Pin{Pinned: true},
		Create{Name: name("acme", "a"), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1), Lineage: facet.Lineage{Lossy: true}},
		ChangeTenant{Tenant: "acme"},
		ChangeTenant{Tenant: "acme", Fields: 1 << 9},
		ChangeTenant{Tenant: "Acme", Fields: facet.FieldOf(0)},
		ChangeTenant{Tenant: "acme", Fields: facet.FieldFreeze, Settings: facet.TenantSettings{Freeze: 3}},
		ChangeTenant{Fields: facet.FieldFreeze, Settings: facet.TenantSettings{Freeze: facet.FreezeAll}},
	} {
		if got, err := DecodeCommand(AppendCommand(nil, c)); err == nil {
			t.Errorf("command %d %+v was accepted as %+v", i, c, got)
		}
	}
	// One set has one encoding.
	good := AppendCommand(nil, Acquire{Incarnation: incarnation(1), Owner: owner("n1", 1), Set: mustSet(Member{"n1", storeID(1)}, Member{"n2", storeID(2)})})
	swapped := bytes.Replace(bytes.Replace(bytes.Replace(good, []byte("\x02n1P"), []byte("\x02nxP"), 1), []byte("\x02n2P"), []byte("\x02n1P"), 1), []byte("\x02nxP"), []byte("\x02n2P"), 1)
	if bytes.Equal(good, swapped) {
		t.Fatal("the test swaps nothing")
	}
	if _, err := DecodeCommand(swapped); err == nil {
		t.Error("an unsorted set was accepted")
	}
	for i, list := range [][]Member{
		{{"n1", storeID(1)}, {"n1", storeID(2)}},
		{{"n1", cluster.StoreID{}}},
		{{"-", storeID(1)}},
		make([]Member, MaxMembers+1),
	} {
		if s, err := NewSet(list...); err == nil {
			t.Errorf("set %d %v was accepted", i, s)
		}
	}
}

func TestCommandRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 3000 {
		c := randomCommand(rng)
		b := AppendCommand(nil, c)
		got, err := DecodeCommand(b)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("decoded %+v, %v, want %+v", got, err, c)
		}
	}
}

func FuzzDecodeCommand(f *testing.F) {
	for _, c := range samples() {
		f.Add(AppendCommand(nil, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCommand(b)
		if err != nil {
			return
		}
		if again := AppendCommand(nil, c); !bytes.Equal(again, b) {
			t.Fatalf("%x became %+v became %x", b, c, again)
		}
		tab := NewTable()
		if _, err := tab.ApplyCommands(1, register("n1", 1), c); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	for _, r := range sampleResults() {
		f.Add(r.AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeResult(b)
		if err != nil {
			return
		}
		if again := r.AppendBinary(nil); !bytes.Equal(again, b) {
			t.Fatalf("%x became %+v became %x", b, r, again)
		}
	})
}

func TestProposer(t *testing.T) {
	tab := NewTable()
	var index uint64
	p := Proposer{Propose: func(_ context.Context, cmd []byte) ([]byte, error) {
		index++
		if err := tab.Check(cmd); err != nil {
			return nil, err
		}
		out, err := tab.Apply(index, [][]byte{cmd})
		if err != nil {
			return nil, err
		}
		return out[0], nil
	}}
	if r, err := p.Do(t.Context(), register("n1", 1)); err != nil || r.Outcome != Done {
		t.Fatalf("register: %+v, %v", r, err)
	}
	c := Create{Name: name("acme", "notes"), Incarnation: incarnation(1), Owner: owner("n1", 1), Set: setOf("n1", 1)}
	r, err := p.Do(t.Context(), c)
	if err != nil || r.Facet.Name != c.Name || r.Facet.Epoch != 1 || r.Facet.State != Creating || r.Index != 2 {
		t.Fatalf("create: %+v, %v", r, err)
	}
	_, err = p.Do(t.Context(), Activate{Incarnation: incarnation(1), Epoch: 4, Boot: bootID(1)})
	var refusal *Refusal
	if !errors.Is(err, RefusedEpoch) || errors.Is(err, RefusedBoot) || !errors.As(err, &refusal) || refusal.Facet.Epoch != 1 {
		t.Fatalf("activate: %v", err)
	}
	if !strings.Contains(err.Error(), "acme/notes") {
		t.Errorf("refusal does not name the facet: %v", err)
	}
	if _, err := p.Do(t.Context(), Create{Name: facet.Name{Tenant: "acme"}}); err == nil {
		t.Error("a command without a name went through")
	}
}
