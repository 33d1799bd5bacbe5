package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
)

var update = flag.Bool("update", false, "write the golden files anew")

// samples are one frame of every type and shape, by name.
func samples() []struct {
	name  string
	frame []byte
} {
	name := facet.Name{Tenant: "acme", Facet: "notes"}
	args := facet.AppendBlob(facet.AppendText(facet.AppendFloat(facet.AppendInt(facet.AppendNull(nil), -300), 1.5), "é"), []byte{0, 255})
	tx := facet.TxID{1, 2, 3, 15: 16}
	ok, at := facet.BeginItem(nil, facet.ItemColumns)
	ok = facet.EndItem(facet.AppendStr(facet.AppendStr(append(ok, 1), "n"), "INTEGER"), at)
	ok, at = facet.BeginItem(ok, facet.ItemRow)
	ok = facet.EndItem(facet.Result(facet.AppendInt(facet.Values(ok), 42)), at)
	ok = facet.AppendDone(ok, facet.Done{RowsOut: 1, Duration: 1500 * time.Microsecond})
	pos := facet.Position{Epoch: 7, Seq: 12, Sum: facet.Sum{Hi: 1, Lo: 2}}
	mark := facet.Bookmark{Facet: facet.Incarnation{3, 15: 4}, Epoch: 7, Seq: 12}
	notOwner := facet.Errorf(facet.CodeNotOwner, "n2 owns acme/notes")
	notOwner.Owner, notOwner.Epoch = "10.0.0.2:7400", 8
	sqlErr := &facet.Error{Code: facet.CodeSQL, SQLite: 2067, Offset: 12, Message: "UNIQUE constraint failed: note.id"}
	return []struct {
		name  string
		frame []byte
	}{
		{"hello", AppendHello(nil, Hello{VersionMin: 1, VersionMax: 1, Software: "facetd-go", Token: "tok"})},
		{"hello-ok", AppendHelloOK(nil, HelloOK{Version: 1, MaxFrame: MaxFrame, MaxInFlight: 1024, Node: "n1", Cluster: "c1", Software: "facetd 1"})},
		{"request-plain", AppendRequest(nil, 1, &facet.Request{Name: name, ReadOnly: true,
			Steps: []facet.Step{{SQL: []byte("SELECT 42"), Args: facet.Values{}}}})},
		{"request-args", AppendRequest(nil, 2, &facet.Request{Name: name, Timeout: 1500 * time.Millisecond, Key: facet.Key{Client: [16]byte{9}, N: 300},
			Steps: []facet.Step{{SQL: []byte("INSERT INTO t VALUES (?,?,?,?,?)"), Args: args, NArgs: 5, NoRows: true}}})},
		{"request-batch", AppendRequest(nil, 3, &facet.Request{Name: name, Atomic: true, Tx: tx, KeepTx: true, Steps: []facet.Step{
			{SQL: []byte("CREATE TABLE t(a); CREATE TABLE u(b)"), Args: facet.Values{}, Kind: facet.StepScript},
			{SQL: []byte("SELECT :a"), Args: facet.AppendInt(nil, 1), NArgs: 1, Names: []string{":a"}},
			{SQL: []byte("ROLLBACK"), Args: facet.Values{}, Condition: &facet.Condition{Op: facet.CondAnd, Conds: []facet.Condition{
				{Op: facet.CondNot, Conds: []facet.Condition{{Op: facet.CondOK, Step: 1}}},
				{Op: facet.CondOr, Conds: []facet.Condition{{Op: facet.CondError, Step: 0}, {Op: facet.CondAutocommit}}}}}},
		}})},
		{"request-quorum", AppendRequest(nil, 6, &facet.Request{Name: name, ReadOnly: true, Read: facet.ReadQuorum,
			Steps: []facet.Step{{SQL: []byte("SELECT 42"), Args: facet.Values{}}}})},
		{"request-bookmark", AppendRequest(nil, 7, &facet.Request{Name: name, ReadOnly: true, Read: facet.ReadFollower, After: mark, Bookmark: true,
			Steps: []facet.Step{{SQL: []byte("SELECT 42"), Args: facet.Values{}}}})},
		{"response-bookmark", AppendResponse(nil, 7, &facet.Response{Result: ok, Position: pos, Bookmark: mark})},
		{"response", AppendResponse(nil, 1, &facet.Response{Result: ok, Position: pos})},
		{"response-tx", AppendResponse(nil, 3, &facet.Response{Result: facet.AppendDone(nil, facet.Done{Transaction: true}), Tx: tx})},
		{"error-not-owner", AppendError(nil, TypeError, 4, notOwner)},
		{"error-sql", AppendError(nil, TypeError, 5, sqlErr)},
		{"cancel", AppendEmpty(nil, TypeCancel, 5)},
		{"ping", AppendPing(nil, TypePing, 6, []byte("hi"))},
		{"pong", AppendPing(nil, TypePong, 6, []byte("hi"))},
		{"go-away", AppendError(nil, TypeGoAway, 0, facet.Errorf(facet.CodeUnavailable, "the node is shutting down"))},
	}
}

// TestGolden holds the bytes still: docs/PROTOCOL.md shows them, other clients
// are written from them.
func TestGolden(t *testing.T) {
	var b strings.Builder
	for _, s := range samples() {
		fmt.Fprintf(&b, "%s\n", s.name)
		for rest := s.frame; len(rest) > 0; {
			n := min(16, len(rest))
			fmt.Fprintf(&b, "  %s\n", hex.EncodeToString(rest[:n]))
			rest = rest[n:]
		}
	}
	const file = "testdata/frames.golden"
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the bytes of a frame changed:\n%s", b.String())
	}
}

func decodeOne(t *testing.T, frame []byte) Frame {
	t.Helper()
	f, n, err := DecodeFrame(frame, MaxFrame)
	if err != nil || n != len(frame) {
		t.Fatalf("%d of %d bytes, %v", n, len(frame), err)
	}
	return f
}

func TestHandshakeRoundTrip(t *testing.T) {
	h := Hello{VersionMin: 1, VersionMax: 3, Software: "x/1", Token: strings.Repeat("t", MaxToken)}
	if got, err := DecodeHello(decodeOne(t, AppendHello(nil, h)).Body); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	ok := HelloOK{Version: 1, MaxFrame: 1 << 20, MaxInFlight: 9, Node: "n1", Cluster: "c", Software: "s"}
	if got, err := DecodeHelloOK(decodeOne(t, AppendHelloOK(nil, ok)).Body); err != nil || got != ok {
		t.Errorf("%+v, %v", got, err)
	}
	later := append(bytes.Clone(decodeOne(t, AppendHello(nil, h)).Body), "later versions append"...)
	if got, err := DecodeHello(later); err != nil || got != h {
		t.Errorf("a longer hello: %+v, %v", got, err)
	}
	h.Token += "t"
	if _, err := DecodeHello(decodeOne(t, AppendHello(nil, h)).Body); !errors.Is(err, ErrProtocol) {
		t.Errorf("a token over the limit: %v", err)
	}
	if _, err := DecodeHello([]byte("GET / HTTP/1.1\r\n")); !errors.Is(err, ErrProtocol) {
		t.Errorf("something else: %v", err)
	}
	for _, bad := range []HelloOK{
		{Version: 9, MaxFrame: 1 << 20, MaxInFlight: 1}, {Version: 1, MaxFrame: 10, MaxInFlight: 1}, {Version: 1, MaxFrame: 1 << 20},
	} {
		if _, err := DecodeHelloOK(decodeOne(t, AppendHelloOK(nil, bad)).Body); !errors.Is(err, ErrProtocol) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestRequestRoundTrip decodes all samples with the same scratch, twice, so that
// nothing of one request shows in the next.
func TestRequestRoundTrip(t *testing.T) {
	var sc Scratch
	var in Interner
	var r facet.Request
	for range 2 {
		for _, s := range samples() {
			f := decodeOne(t, s.frame)
			if f.Type != TypeRequest {
				continue
			}
			if err := DecodeRequest(f, &r, &sc, &in); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			if again := AppendRequest(nil, f.ID, &r); !bytes.Equal(again, s.frame) {
				t.Errorf("%s: encodes to\n%x, was\n%x", s.name, again, s.frame)
			}
		}
	}
	if len(in.names) != 1 || len(in.params) != 1 {
		t.Errorf("interned %d names, %d parameters", len(in.names), len(in.params))
	}
}

func TestRequestDecodeDoesNotAllocate(t *testing.T) {
	var sc Scratch
	var in Interner
	var r facet.Request
	for _, s := range samples() {
		f := decodeOne(t, s.frame)
		if f.Type != TypeRequest || s.name == "request-batch" { // conditions allocate
			continue
		}
		if n := testing.AllocsPerRun(100, func() {
			if err := DecodeRequest(f, &r, &sc, &in); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", s.name, n)
		}
	}
}

func TestInternerIsBounded(t *testing.T) {
	var sc Scratch
	var in Interner
	var r facet.Request
	for i := range maxInterned + 100 {
		req := facet.Request{Name: facet.Name{Tenant: "acme", Facet: fmt.Sprintf("f%d", i)},
			Steps: []facet.Step{{SQL: []byte("SELECT :a"), Args: facet.AppendNull(nil), NArgs: 1, Names: []string{fmt.Sprint("p", i)}}}}
		if err := DecodeRequest(decodeOne(t, AppendRequest(nil, 1, &req)), &r, &sc, &in); err != nil {
			t.Fatal(err)
		}
		if r.Name != req.Name || r.Steps[0].Names[0] != req.Steps[0].Names[0] {
			t.Fatalf("read %v %v", r.Name, r.Steps[0].Names)
		}
	}
	if len(in.names) > maxInterned || len(in.params) > maxInterned {
		t.Errorf("%d names, %d parameters", len(in.names), len(in.params))
	}
}

func TestRequestRefuses(t *testing.T) {
	name := facet.Name{Tenant: "acme", Facet: "notes"}
	step := func(s facet.Step) facet.Request { return facet.Request{Name: name, Steps: []facet.Step{s}} }
	deep := facet.Condition{Op: facet.CondAutocommit}
	for range facet.MaxConditionDepth {
		deep = facet.Condition{Op: facet.CondNot, Conds: []facet.Condition{deep}}
	}
	wide := facet.Condition{Op: facet.CondOr, Conds: make([]facet.Condition, MaxConditions)}
	for i := range wide.Conds {
		wide.Conds[i].Op = facet.CondAutocommit
	}
	one := facet.AppendNull(nil)
	for _, tc := range []struct {
		name string
		req  facet.Request
		want error
	}{
		{"tenant", facet.Request{Name: facet.Name{Tenant: "ACME", Facet: "x"}}, facet.ErrBadRequest},
		{"facet", facet.Request{Name: facet.Name{Tenant: "acme", Facet: "a/b"}}, facet.ErrBadRequest},
		{"long facet", facet.Request{Name: facet.Name{Tenant: "acme", Facet: strings.Repeat("f", 500)}}, facet.ErrBadRequest},
		{"too few arguments", step(facet.Step{Args: one, NArgs: 2}), facet.ErrBadRequest},
		{"too many arguments", step(facet.Step{Args: append(one, one...), NArgs: 1}), facet.ErrBadRequest},
		{"broken value", step(facet.Step{Args: facet.Values{9}, NArgs: 1}), facet.ErrBadRequest},
		{"argument count", step(facet.Step{NArgs: facet.MaxArgs + 1}), facet.ErrLimit},
		{"kind", step(facet.Step{Kind: 3}), facet.ErrBadRequest},
		{"sql", step(facet.Step{SQL: make([]byte, facet.MaxSQLLen+1)}), facet.ErrLimit},
		{"steps", facet.Request{Name: name, Steps: make([]facet.Step, facet.MaxSteps+1)}, facet.ErrLimit},
		{"condition on itself", step(facet.Step{Condition: &facet.Condition{Op: facet.CondOK}}), facet.ErrBadRequest},
		{"condition operator", step(facet.Step{Condition: &facet.Condition{Op: 77}}), facet.ErrBadRequest},
		{"deep condition", step(facet.Step{Condition: &deep}), facet.ErrLimit},
		{"wide condition", step(facet.Step{Condition: &wide}), facet.ErrLimit},
		{"key and tx", facet.Request{Name: name, Key: facet.Key{N: 1}, Tx: facet.TxID{1}, Steps: make([]facet.Step, 1)}, facet.ErrBadRequest},
		{"key and steps", facet.Request{Name: name, Key: facet.Key{N: 1}, Steps: make([]facet.Step, 2)}, facet.ErrBadRequest},
		{"timeout", facet.Request{Name: name, Timeout: math.MaxInt64, Steps: make([]facet.Step, 1)}, nil},
	} {
		var r facet.Request
		err := DecodeRequest(decodeOne(t, AppendRequest(nil, 1, &tc.req)), &r, new(Scratch), new(Interner))
		if !errors.Is(err, tc.want) || (tc.want != nil && !errors.As(err, new(*facet.Error))) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestResponseStream(t *testing.T) {
	var res facet.Result
	for i := range 3000 {
		var at int
		res, at = facet.BeginItem(res, facet.ItemRow)
		res = facet.EndItem(facet.Result(facet.AppendBlob(facet.Values(res), bytes.Repeat([]byte{byte(i)}, i))), at)
	}
	res = facet.AppendDone(res, facet.Done{RowsOut: 3000})
	whole := facet.Response{Result: res, Tx: facet.TxID{1}, Position: facet.Position{Epoch: 3, Seq: 4}}
	s := ResponseStream{ID: 9, Response: &whole}
	var got facet.Response
	for frames, more := 1, true; more; frames++ {
		var frame []byte
		left := s.Pending()
		frame, more = s.Next(nil)
		f := decodeOne(t, frame)
		p, err := DecodeResponse(f)
		if err != nil || p.More != more || f.ID != 9 || s.Pending() != left-len(p.Items) {
			t.Fatalf("frame %d: %+v, %v, %d pending after %d", frames, p, err, s.Pending(), left)
		}
		if len(p.Items) > ChunkLen {
			t.Fatalf("frame %d has %d bytes of items", frames, len(p.Items))
		}
		for rest := p.Items; len(rest) > 0; {
			if _, rest, err = rest.Next(); err != nil {
				t.Fatalf("frame %d is cut inside an item: %v", frames, err)
			}
		}
		got.Result = append(got.Result, p.Items...)
		got.Tx, got.Position = p.Tx, p.Position
	}
	if !reflect.DeepEqual(got, whole) {
		t.Error("the parts are not the whole")
	}

	// One item above the chunk travels alone; a broken result ends with an error.
	long, at := facet.BeginItem(nil, facet.ItemRow)
	long = facet.EndItem(append(long, make([]byte, 3*ChunkLen)...), at)
	s = ResponseStream{Response: &facet.Response{Result: append(long, long...)}}
	if frame, more := s.Next(nil); !more || len(frame) != HeaderLen+len(long) {
		t.Errorf("%d bytes, more %v", len(frame), more)
	}
	s = ResponseStream{Response: &facet.Response{Result: facet.Result{77, 1}}}
	frame, more := s.Next(nil)
	f := decodeOne(t, frame)
	if e, err := facet.DecodeError(f.Body); more || f.Type != TypeError || err != nil || e.Code != facet.CodeUnknownOutcome {
		t.Errorf("%+v, %v, %v", f, e, err)
	}
}

func TestErrorIsCut(t *testing.T) {
	e := facet.Errorf(facet.CodeSQL, "%s", strings.Repeat("x", MaxErrorLen+1))
	got, err := facet.DecodeError(decodeOne(t, AppendError(nil, TypeError, 1, e)).Body)
	if err != nil || len(got.Message) != MaxErrorLen || len(e.Message) != MaxErrorLen+1 {
		t.Errorf("%d bytes, %v", len(got.Message), err)
	}
}

func FuzzDecodeFrame(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.frame)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		fr, n, err := DecodeFrame(src, MaxHello)
		if err != nil || n == 0 {
			return
		}
		if n > len(src) || len(fr.Body) != n-HeaderLen {
			t.Fatalf("%d of %d bytes, body %d", n, len(src), len(fr.Body))
		}
		again, at := BeginFrame(nil, fr.Type, fr.Flags, fr.ID)
		if again = EndFrame(append(again, fr.Body...), at); !bytes.Equal(again, src[:n]) {
			t.Fatalf("%x encodes to %x", src[:n], again)
		}
	})
}

// FuzzDecodeRequest: what is accepted keeps every limit and means the same after
// another round.
func FuzzDecodeRequest(f *testing.F) {
	for _, s := range samples() {
		if fr, _, _ := DecodeFrame(s.frame, MaxFrame); fr.Type == TypeRequest {
			f.Add(uint8(fr.Flags), fr.Body)
		}
	}
	f.Fuzz(func(t *testing.T, flags uint8, body []byte) {
		var r, again facet.Request
		var in Interner
		err := DecodeRequest(Frame{Type: TypeRequest, Flags: Flags(flags), ID: 1, Body: body}, &r, new(Scratch), &in)
		if err != nil {
			if !errors.As(err, new(*facet.Error)) {
				t.Fatalf("%v is no facet.Error", err)
			}
			return
		}
		if len(r.Steps) > facet.MaxSteps {
			t.Fatalf("%d steps", len(r.Steps))
		}
		for _, s := range r.Steps {
			vs, err := s.Args.Decode(nil)
			if err != nil || len(vs) != s.NArgs || s.Names != nil && len(s.Names) != s.NArgs {
				t.Fatalf("%d values, %d arguments, %d names, %v", len(vs), s.NArgs, len(s.Names), err)
			}
		}
		fr, _, err := DecodeFrame(AppendRequest(nil, 1, &r), MaxFrame)
		if err != nil {
			t.Fatal(err)
		}
		if err := DecodeRequest(fr, &again, new(Scratch), &in); err != nil {
			t.Fatalf("%+v is refused the second time: %v", r, err)
		}
		if a, b := AppendRequest(nil, 1, &r), AppendRequest(nil, 1, &again); !bytes.Equal(a, b) {
			t.Fatalf("%x\n%x", a, b)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	for _, s := range samples() {
		if fr, _, _ := DecodeFrame(s.frame, MaxFrame); fr.Type == TypeResponse {
			f.Add(uint8(fr.Flags), fr.Body)
		}
	}
	f.Fuzz(func(t *testing.T, flags uint8, body []byte) {
		p, err := DecodeResponse(Frame{Type: TypeResponse, Flags: Flags(flags), Body: body})
		if err == nil && len(p.Items) > len(body) {
			t.Fatalf("%d bytes of items from %d", len(p.Items), len(body))
		}
	})
}

func FuzzDecodeHandshake(f *testing.F) {
	for _, s := range samples()[:2] {
		f.Add(s.frame[HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if h, err := DecodeHello(body); err == nil && (len(h.Token) > MaxToken || len(h.Software) > MaxLabel) {
			t.Fatalf("%+v", h)
		}
		if h, err := DecodeHelloOK(body); err == nil && (h.MaxFrame > MaxFrame || h.MaxInFlight == 0 || len(h.Node) > MaxLabel) {
			t.Fatalf("%+v", h)
		}
	})
}
