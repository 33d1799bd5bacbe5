package peer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/placement"
)

var update = flag.Bool("update", false, "write the golden files")

func body(t wire.Type, fl wire.Flags, id uint32, b []byte) []byte {
	dst, at := wire.BeginFrame(nil, t, fl, id)
	return wire.EndFrame(append(dst, b...), at)
}

var (
	idA = facet.Incarnation{0xaa, 0x01, 15: 0xa1}
	idB = facet.Incarnation{0xbb, 0x02, 15: 0xb1}
	pos = facet.Position{Epoch: 7, Seq: 41, Sum: facet.Sum{Hi: 0x1111, Lo: 0x2222}}
)

// sampleItems are appends that use every form of an item.
func sampleItems() []any {
	first := &facet.Commit{Incarnation: idA, Kind: facet.KindBarrier, Epoch: 7, Seq: 42, PrevEpoch: 7, PreSum: pos.Sum, PostSum: pos.Sum, DBPages: 300}
	second := &facet.Commit{Incarnation: idA, Kind: facet.KindCommit, Epoch: 7, Seq: 43, PrevEpoch: 7, PreSum: pos.Sum,
		PostSum: facet.Sum{Hi: 3, Lo: 4}, DBPages: 301, Pages: []byte("pages")}
	older := &facet.Commit{Incarnation: idB, Kind: facet.KindCommit, Epoch: 2, Seq: 1, PostSum: facet.Sum{Hi: 5, Lo: 6}, DBPages: 1, Pages: []byte{1}}
	again := *second
	return []any{
		AppendItem{7, 40, first}, AppendItem{7, 1000, second}, AppendItem{3, 0, older}, AppendItem{7, 42, &again},
		KnownItem{idA, 7, facet.Position{Epoch: 7, Seq: 43}}, KnownItem{idB, 4, facet.Position{Epoch: 2, Seq: 1}},
	}
}

func encodeItems(m *memory, items []any) []byte {
	var dst []byte
	for _, it := range items {
		switch it := it.(type) {
		case AppendItem:
			dst = m.appendItem(dst, &it)
		case KnownItem:
			dst = m.appendKnown(dst, &it)
		}
	}
	return dst
}

func sampleAcks() []Ack {
	return []Ack{
		{idA, 7, 42, nil}, {idA, 7, 43, nil}, {idB, 3, 1, &replica.EpochError{Promised: 9}}, {idB, 3, 2, &replica.GapError{Last: pos}},
		{idA, 8, 300, replica.ErrFull}, {idA, 8, 301, ErrBusy},
	}
}

func encodeAcks(m *ackMemory, acks []Ack) []byte {
	var dst []byte
	for _, a := range acks {
		dst = m.append(dst, Session{a.Incarnation, a.Epoch}, a.Seq, a.Err)
	}
	return dst
}

func samplePromise() *replica.Promise {
	return &replica.Promise{Incarnation: idA, Epoch: 7, Last: pos, CommitKnown: 40, Health: replica.Uncertain,
		Base: pages.Base{Position: facet.Position{Epoch: 6, Seq: 30, Sum: facet.Sum{Hi: 7, Lo: 8}}, Pages: 12}}
}

func sampleGreeting() *greeting {
	return &greeting{kind: kindAsk, verdict: badVersion, versionMin: 1, versionMax: 2, version: 2, extraLen: 5,
		cluster: testCluster, boot: bootOf(1), store: cluster.StoreID{9}, node: "node-1", wanted: "node-2"}
}

func sampleOrder() *Order {
	set, err := placement.NewSet(placement.Member{Node: "n3", Store: cluster.StoreID{3}}, placement.Member{Node: "n2", Store: cluster.StoreID{2}})
	if err != nil {
		panic(err)
	}
	return &Order{Kind: OrderMove, Incarnation: idA, Epoch: 7, Owner: "n2", Set: set}
}

func sampleUse() *TenantUse {
	u := &TenantUse{Applied: 77, Freeze: facet.FreezeWrites}
	for i, v := range u.numbers() {
		*v = uint64(i + 1)
	}
	return u
}

// TestGoldenFrames holds one frame of every kind, byte for byte.
func TestGoldenFrames(t *testing.T) {
	sessions := []Session{{idA, 7}, {idB, 3}}
	offer := &SnapshotOffer{idA, 8, pos, 300}
	entries := appendEntry(appendEntry(nil, entry(idA, 7, 41, 3)), entry(idA, 7, 42, 0))
	frames := []struct {
		name string
		b    []byte
	}{
		{"greeting", sampleGreeting().append(nil)},
		{"append", body(typeAppend, 0, 0, encodeItems(new(memory), sampleItems()))},
		{"ack", body(typeAck, 0, 0, encodeAcks(new(ackMemory), sampleAcks()))},
		{"prepare", body(typePrepare, 0, 2, appendSessions(nil, sessions))},
		{"promise", body(typePromise, 0, 2, appendPromise(appendPromise(nil, 1, new(replica.Promise), replica.ErrUnknown), 0, samplePromise(), nil))},
		{"fetch", body(typeFetch, 0, 3, appendFetch(nil, &FetchRequest{idA, 7, 41, 99, 1 << 20}))},
		{"entries", body(typeEntries, 0, 3, entries)},
		{"entries_end", body(typeEntries, flagLast, 3, appendOutcome([]byte{1}, nil))},
		{"check", body(typeCheck, 0, 4, appendSessions(nil, sessions))},
		{"checked", body(typeChecked, 0, 4, []byte{1, 0})},
		{"renew", body(typeRenew, 0, 5, appendRenew(nil, &RenewRequest{1234, 5 * time.Second}))},
		{"grant", body(typeGrant, 0, 5, appendGrant(nil, &Grant{Stamp: 5 * time.Second, TTL: 1500 * time.Millisecond, Got: time.Hour, Answered: time.Hour + 50*time.Millisecond}, nil))},
		{"grant_refused", body(typeGrant, 0, 5, appendGrant(nil, &Grant{Stamp: 5 * time.Second, Apply: 1240}, ErrRefused))},
		{"propose", body(typePropose, 0, 6, appendCommands(nil, [][]byte{[]byte("one"), []byte("second")}))},
		{"result", body(typeResult, 0, 6, appendResult(appendResult(nil, 1, nil, &NotLeaderError{"n3"}), 0, []byte("done"), nil))},
		{"order", body(typeOrder, 0, 7, appendOrder(nil, sampleOrder()))},
		{"order_wake", body(typeOrder, 0, 8, appendOrder(nil, &Order{Kind: OrderWake, Incarnation: idB, Epoch: 3}))},
		{"order_tell", body(typeOrder, 0, 9, appendOrder(nil, &Order{Kind: OrderTell, Incarnation: idA, Epoch: 4}))},
		{"order_warm", body(typeOrder, 0, 9, appendOrder(nil, &Order{Kind: OrderWarm, Incarnation: idA, Epoch: 4}))},
		{"done", body(typeDone, 0, 7, appendDone(nil, nil))},
		{"done_busy", body(typeDone, 0, 8, appendDone(nil, fmt.Errorf("move: %w", ErrBusy)))},
		{"inspect", body(typeInspect, 0, 10, appendSessions(nil, sessions))},
		{"copy", body(typeCopy, 0, 10, appendPromise(appendPromise(nil, 0, samplePromise(), nil), 1, new(replica.Promise), replica.ErrUnknown))},
		{"order_heal", body(typeOrder, 0, 14, appendOrder(nil, &Order{Kind: OrderHeal, Incarnation: idA, Epoch: 4}))},
		{"compare", body(typeCompare, 0, 11, appendCompare(nil, &compare{kind: compareDigests}))},
		{"compare_copies", body(typeCompare, 0, 12, appendCompare(nil, &compare{kind: compareCopies, ids: []facet.Incarnation{idA, idB}}))},
		{"compare_outvoted", body(typeCompare, 0, 13, appendCompare(nil, &compare{kind: compareOutvoted, ids: []facet.Incarnation{idA}, at: pos}))},
		{"compared_copies", body(typeCompared, 0, 12, appendCopyState(appendCopyState(appendOutcome(nil, nil), &CopyState{}), &CopyState{true, replica.Holed, pos}))},
		{"compared_outvoted", body(typeCompared, 0, 13, appendOutcome(nil, replica.ErrUnknown))},
		{"use", body(typeUse, 0, 15, appendUse(nil, "acme"))},
		{"used", body(typeUsed, 0, 15, appendUsed(nil, sampleUse()))},
		{"used_busy", body(typeUsed, 0, 15, appendOutcome(nil, ErrBusy))},
		{"offer", body(typeOffer, 0, 0, appendOffer(nil, offer))},
		{"resume", body(typeResume, 0, 0, append(appendOutcome(nil, nil), 0, 0, 0, 15))},
		{"installed", body(typeInstalled, 0, 0, pos.AppendBinary(appendOutcome(nil, nil)))},
		{"other", appendOutcome(nil, errors.New("something else"))},
	}
	var out strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&out, "%s\n", f.name)
		for b := f.b; len(b) > 0; b = b[min(32, len(b)):] {
			fmt.Fprintf(&out, "    %s\n", hex.EncodeToString(b[:min(32, len(b))]))
		}
	}
	const file = "testdata/frames.golden"
	if *update {
		check(t, os.WriteFile(file, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	check(t, err)
	if out.String() != string(want) {
		t.Errorf("frames differ from %s; a released version must not change:\n%s", file, out.String())
	}
}

func decodeAll(t testing.TB, m *memory, b []byte) []any {
	t.Helper()
	var got []any
	var it item
	check(t, m.decodeItems(b, &it, func(it *item) {
		if it.known {
			got = append(got, it.k)
			return
		}
		c := *it.a.Entry
		c.Pages = append([]byte(nil), c.Pages...)
		got = append(got, AppendItem{it.a.Epoch, it.a.Commit, &c})
	}))
	return got
}

func TestItems(t *testing.T) {
	items := sampleItems()
	got := decodeAll(t, new(memory), encodeItems(new(memory), items))
	second := items[1].(AppendItem)
	second.Commit = second.Entry.Seq // more says no more
	items[1] = second
	if !reflect.DeepEqual(got, items) {
		t.Errorf("items come back as\n%+v, want\n%+v", got, items)
	}
}

// TestItemsRandom sends random sessions of few facets, many of which share slots.
func TestItemsRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var out, in memory
	for range 2000 {
		var items []any
		for range 1 + r.IntN(20) {
			id := facet.Incarnation{byte(r.IntN(3)), 0x10 * byte(r.IntN(3)), 15: 1} // 0x10 << 8 is slot 0 again
			e := facet.Epoch(1 + r.IntN(3))
			if r.IntN(5) == 0 {
				items = append(items, KnownItem{id, e, facet.Position{Epoch: e, Seq: facet.Seq(1 + r.IntN(9))}})
				continue
			}
			c := entry(id, e, facet.Seq(1+r.IntN(4)), r.IntN(50))
			if c.Pages = append([]byte(nil), c.Pages...); r.IntN(4) == 0 {
				c.Kind, c.Pages, c.PostSum = facet.KindBarrier, nil, c.PreSum
			}
			items = append(items, AppendItem{e + facet.Epoch(r.IntN(2)), c.Seq - facet.Seq(r.IntN(int(c.Seq)+1)), c})
		}
		if got := decodeAll(t, &in, encodeItems(&out, items)); !reflect.DeepEqual(got, items) {
			t.Fatalf("items come back as\n%+v, want\n%+v", got, items)
		}
	}
}

func TestAcks(t *testing.T) {
	want := sampleAcks()
	got, err := new(ackMemory).decode(encodeAcks(new(ackMemory), want), nil)
	check(t, err)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("acks come back as\n%+v, want\n%+v", got, want)
	}
}

func TestOutcomes(t *testing.T) {
	for c, e := range names {
		if e == nil {
			continue
		}
		b := appendOutcome(nil, fmt.Errorf("some verb: %w", e))
		if b[0] != byte(c) || len(b) != 1 {
			t.Errorf("%v is sent as %x, want code %d", e, b, c)
		}
		d := decoder{src: b}
		if got := d.outcome(); got != e || d.end("outcome") != nil {
			t.Errorf("code %d comes back as %v, want %v", c, got, e)
		}
	}
	long := errors.New(strings.Repeat("x", 1000))
	d := decoder{src: appendOutcome(nil, long)}
	if got := d.outcome(); got == nil || !strings.Contains(got.Error(), strings.Repeat("x", maxText)) || d.end("outcome") != nil {
		t.Errorf("a long text comes back as %v", got)
	}
	for _, e := range []error{&NotLeaderError{}, &NotLeaderError{"n7"}} {
		d := decoder{src: appendOutcome(nil, e)}
		if got := d.outcome(); !reflect.DeepEqual(got, e) {
			t.Errorf("%v comes back as %v", e, got)
		}
	}
}

func TestGreetingRoundTrip(t *testing.T) {
	want := sampleGreeting()
	b := want.append(nil)
	if len(b) != greetingLen {
		t.Fatalf("greeting of %d bytes, want %d", len(b), greetingLen)
	}
	got, err := readGreeting(bytes.NewReader(append(b, 1, 2, 3)))
	check(t, err)
	if got != *want {
		t.Errorf("greeting comes back as %+v, want %+v", got, *want)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 0x40
		if _, err := decodeGreeting(bad); !errors.Is(err, ErrGreeting) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
}

func TestAgree(t *testing.T) {
	for _, c := range []struct{ aMin, aMax, bMin, bMax, want uint8 }{
		{1, 1, 1, 1, 1}, {1, 2, 2, 3, 2}, {2, 3, 1, 2, 2}, {1, 3, 1, 3, 3}, {1, 1, 2, 3, 0}, {3, 4, 1, 2, 0},
	} {
		if got := agree(c.aMin, c.aMax, c.bMin, c.bMax); got != c.want {
			t.Errorf("%d to %d and %d to %d agree on %d, want %d", c.aMin, c.aMax, c.bMin, c.bMax, got, c.want)
		}
	}
}

// TestMalformed gives every decoder bodies it must refuse.
func TestMalformed(t *testing.T) {
	good := appendFetch(nil, &FetchRequest{idA, 7, 41, 99, 1 << 20})
	items := func(b []byte) error { return new(memory).decodeItems(b, new(item), func(*item) {}) }
	acks := func(b []byte) error { _, err := new(ackMemory).decode(b, nil); return err }
	fetch := func(b []byte) error { _, err := decodeFetch(b); return err }
	sessions := func(b []byte) error { _, err := decodeSessions(b); return err }
	cmds := func(b []byte) error { _, err := decodeCommands(b); return err }
	offer := func(b []byte) error { _, err := decodeOffer(b); return err }
	content := func(b []byte) error { _, _, err := decodePages(b, 20); return err }
	orders := func(b []byte) error { _, err := decodeOrder(b); return err }
	done := func(b []byte) error { _, err := decodeDone(b); return err }
	compares := func(b []byte) error { _, err := decodeCompare(b); return err }
	compared := func(b []byte) error {
		_, err := decodeCompared(b, &compare{kind: compareCopies}, nil, make([]CopyState, 1))
		return err
	}
	order := func(change func(o *Order)) []byte {
		o := *sampleOrder()
		change(&o)
		return appendOrder(nil, &o)
	}
	promises := func(b []byte) error {
		return decodePromises(b, make([]Session, 1), make([]PrepareResult, 1), func(int) {})
	}
	seven := make([]byte, 16+8)
	seven[0], seven[23] = 1, 1
	named := append([]byte{itemNamed, 1}, seven...)
	many := append(named[:len(named):len(named)], bytes.Repeat([]byte{itemKnown, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, MaxItems)...)
	many[0] |= itemKnown
	many = append(many[:26:26], append([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, many[26:]...)...)
	for _, c := range []struct {
		name   string
		decode func([]byte) error
		b      []byte
	}{
		{"unknown flag", items, []byte{0x80, 1}},
		{"slot not named", items, []byte{0, 1}},
		{"slot too high", items, []byte{itemNamed, 0x80, 0x20}},
		{"long form of a number", items, []byte{itemNamed, 0x81, 0x00}},
		{"follows none", items, append(append([]byte{itemNamed | itemFollows, 1}, seven...), make([]byte, 40)...)},
		{"cut short", items, named},
		{"too many items", items, many},
		{"ack not named", acks, []byte{0, 1, 1, 0}},
		{"ack of an unknown code", acks, append(append([]byte{0x80, 1}, seven...), 1, 200)},
		{"ack of seq zero", acks, append(append([]byte{0x80, 1}, seven...), 0, 0)},
		{"fetch of nothing", fetch, nil},
		{"fetch with more behind", fetch, append(bytes.Clone(good), 0)},
		{"fetch over the limit", fetch, appendFetch(nil, &FetchRequest{idA, 7, 41, 99, MaxFetch + 1})},
		{"fetch backwards", fetch, appendFetch(nil, &FetchRequest{idA, 7, 41, 40, 1})},
		{"no sessions", sessions, nil},
		{"too many sessions", sessions, bytes.Repeat(seven, MaxItems+1)},
		{"session of epoch zero", sessions, make([]byte, 24)},
		{"no commands", cmds, nil},
		{"command too long", cmds, appendCommands(nil, [][]byte{make([]byte, MaxCommand+1)})},
		{"too many commands", cmds, make([]byte, MaxItems+1)},
		{"offer beyond its session", offer, appendOffer(nil, &SnapshotOffer{idA, 6, pos, 1})},
		{"offer too large", offer, appendOffer(nil, &SnapshotOffer{idA, 8, pos, facet.MaxPages + 1})},
		{"half a page", content, make([]byte, 4+100)},
		{"no page", content, make([]byte, 4)},
		{"too many pages", content, make([]byte, 4+(snapshotPages+1)*facet.PageSize)},
		{"pages behind the end", content, append([]byte{0, 0, 0, 20}, make([]byte, facet.PageSize)...)},
		{"compare of no kind", compares, appendCompare(nil, &compare{})},
		{"compare nothing", compares, appendCompare(nil, &compare{kind: compareCopies})},
		{"compare too many", compares, appendCompare(nil, &compare{kind: compareCopies, ids: make([]facet.Incarnation, MaxItems+1)})},
		{"digests of one", compares, appendCompare(nil, &compare{kind: compareDigests, ids: []facet.Incarnation{idA}})},
		{"outvoted nowhere", compares, appendCompare(nil, &compare{kind: compareOutvoted, ids: []facet.Incarnation{idA}})},
		{"outvoted cut off", compares, appendCompare(nil, &compare{kind: compareOutvoted, ids: []facet.Incarnation{idA}, at: pos})[:40]},
		{"no copy at a position", compared, appendCopyState(appendOutcome(nil, nil), &CopyState{Last: pos})},
		{"copy of unknown health", compared, appendCopyState(appendOutcome(nil, nil), &CopyState{Held: true, Health: replica.Diverged + 1, Last: pos})},
		{"one copy too many", compared, appendCopyState(appendCopyState(appendOutcome(nil, nil), &CopyState{}), &CopyState{})},
		{"order of no kind", orders, order(func(o *Order) { o.Kind = 0 })},
		{"order of a later kind", orders, order(func(o *Order) { *o = Order{Kind: OrderHeal + 1, Incarnation: o.Incarnation, Epoch: o.Epoch} })},
		{"order about nothing", orders, order(func(o *Order) { o.Incarnation = facet.Incarnation{} })},
		{"order in no epoch", orders, order(func(o *Order) { o.Epoch = 0 })},
		{"move to nowhere", orders, order(func(o *Order) { o.Owner, o.Set = "", placement.Set{} })},
		{"tell elsewhere", orders, order(func(o *Order) { o.Kind = OrderTell })},
		{"warm elsewhere", orders, order(func(o *Order) { o.Kind = OrderWarm })},
		{"wake elsewhere", orders, order(func(o *Order) { o.Kind = OrderWake })},
		{"order to no name", orders, order(func(o *Order) { o.Owner = "-" })},
		{"set not sorted", orders, bytes.Replace(order(func(*Order) {}), []byte("\x02n3"), []byte("\x02n1"), 1)},
		{"set too large", orders, append(order(func(o *Order) { o.Set = placement.Set{} })[:28:28], 6)},
		{"order with more behind", orders, append(order(func(*Order) {}), 0)},
		{"done with a text", done, append(appendOutcome(nil, nil), 0, 1, 'x')},
		{"too long a text", done, append(append(appendOutcome(nil, ErrBusy), 1, 1), make([]byte, 257)...)},
		{"promise for an item not asked for", promises, appendPromise(nil, 1, samplePromise(), nil)},
	} {
		if err := c.decode(c.b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", c.name, err)
		}
	}
	if err := items(many[:26+16+18*(MaxItems-1)]); err != nil {
		t.Errorf("as many items as allowed: %v", err)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add(encodeItems(new(memory), sampleItems()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var items []any
		var it item
		var again []byte
		var m memory
		err := new(memory).decodeItems(b, &it, func(it *item) {
			if it.known {
				items = append(items, it.k)
				again = m.appendKnown(again, &it.k)
			} else {
				c := *it.a.Entry
				items = append(items, AppendItem{it.a.Epoch, it.a.Commit, &c})
				again = m.appendItem(again, &it.a)
			}
		})
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		// A sender may use other slots, and names where this one would not; what
		// is meant must survive.
		if got := decodeAll(t, new(memory), again); err == nil && fmt.Sprint(meaning(got)) != fmt.Sprint(meaning(items)) {
			t.Fatalf("%v\ncomes back as\n%v", meaning(items), meaning(got))
		}
	})
}

func meaning(items []any) (out []string) {
	for _, it := range items {
		if a, ok := it.(AppendItem); ok {
			out = append(out, fmt.Sprintf("%v %v %v %x", a.Epoch, a.Commit, a.Entry.Incarnation, a.Entry.AppendBinary(nil)))
		} else {
			out = append(out, fmt.Sprint(it))
		}
	}
	return out
}

func FuzzAck(f *testing.F) {
	f.Add(encodeAcks(new(ackMemory), sampleAcks()))
	f.Fuzz(func(t *testing.T, b []byte) {
		acks, err := new(ackMemory).decode(b, nil)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		again, aerr := new(ackMemory).decode(encodeAcks(new(ackMemory), acks), nil)
		if aerr != nil || len(again) != len(acks) {
			t.Fatalf("%d acks come back as %d: %v", len(acks), len(again), aerr)
		}
	})
}

// FuzzBodies gives every other decoder what it likes; none may panic, and what
// one of fixed form accepts is encoded as it was.
func FuzzBodies(f *testing.F) {
	f.Add(uint8(0), sampleGreeting().append(nil))
	f.Add(uint8(1), appendSessions(nil, []Session{{idA, 7}, {idB, 3}}))
	f.Add(uint8(2), appendFetch(nil, &FetchRequest{idA, 7, 41, 99, 1 << 20}))
	f.Add(uint8(3), appendRenew(nil, &RenewRequest{1234, 5}))
	f.Add(uint8(4), appendCommands(nil, [][]byte{[]byte("one"), nil}))
	f.Add(uint8(5), appendOffer(nil, &SnapshotOffer{idA, 8, pos, 300}))
	f.Add(uint8(6), appendPromise(nil, 0, samplePromise(), nil))
	f.Add(uint8(7), appendEntry(nil, entry(idA, 7, 41, 3)))
	f.Add(uint8(8), appendGrant(nil, &Grant{Stamp: 1, TTL: 2, Apply: 3, Got: 4, Answered: 5}, ErrRefused))
	f.Add(uint8(9), appendResult(nil, 0, []byte("done"), nil))
	f.Add(uint8(10), append([]byte{0, 0, 0, 1}, make([]byte, facet.PageSize)...))
	f.Add(uint8(11), append(appendOutcome(nil, replica.ErrUnknown), 0, 0, 0, 15))
	f.Add(uint8(12), pos.AppendBinary(appendOutcome(nil, errors.New("text"))))
	f.Add(uint8(13), appendOrder(nil, sampleOrder()))
	f.Add(uint8(14), appendDone(nil, fmt.Errorf("move: %w", ErrBusy)))
	f.Add(uint8(15), appendCompare(nil, &compare{kind: compareOutvoted, ids: []facet.Incarnation{idA}, at: pos}))
	f.Add(uint8(16), appendCopyState(appendOutcome(nil, nil), &CopyState{true, replica.Holed, pos}))
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		var again []byte
		var err error
		switch which % 17 {
		case 0:
			var g greeting
			if g, err = decodeGreeting(b); err == nil {
				again = g.append(nil)
				copy(again[13:14], b[13:14]) // ignored, for later versions
				copy(again[192:], b[192:])
			}
		case 1:
			var list []Session
			list, err = decodeSessions(b)
			again = appendSessions(nil, list)
		case 2:
			var r FetchRequest
			r, err = decodeFetch(b)
			again = appendFetch(nil, &r)
		case 3:
			var r RenewRequest
			r, err = decodeRenew(b)
			again = appendRenew(nil, &r)
		case 4:
			var cmds [][]byte
			cmds, err = decodeCommands(b)
			again = appendCommands(nil, cmds)
		case 5:
			var o SnapshotOffer
			o, err = decodeOffer(b)
			again = appendOffer(nil, &o)
		case 6:
			decodePromises(b, make([]Session, 2), make([]PrepareResult, 2), func(int) {})
			return
		case 7:
			decodeEntries(b, idA, 41, nil)
			return
		case 8:
			decodeGrant(b)
			return
		case 9:
			decodeResults(b, make([]ProposeResult, 2), func(int) {})
			return
		case 10:
			decodePages(b, 20)
			return
		case 11:
			decodeResume(b)
			return
		case 12:
			decodeInstalled(b)
			return
		case 13:
			var o Order
			o, err = decodeOrder(b)
			again = appendOrder(nil, &o)
		case 14:
			decodeDone(b)
			return
		case 15:
			var q compare
			q, err = decodeCompare(b)
			again = appendCompare(nil, &q)
		case 16:
			decodeUse(b)
			decodeUsed(b)
			decodeCompared(b, &compare{kind: compareDigests}, new(Digests), nil)
			decodeCompared(b, &compare{kind: compareCopies}, nil, make([]CopyState, 1))
			return
		}
		if err == nil && !bytes.Equal(again, b) {
			t.Fatalf("decoder %d takes\n%x, which is\n%x", which%17, b, again)
		}
	})
}

func wireFrame(b []byte) (wire.Frame, int, error) { return wire.DecodeFrame(b, maxFrame) }
