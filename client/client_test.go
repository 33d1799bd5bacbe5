package client_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
	"github.com/facetd/facetd/node/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testNode is a node with the toy service behind the native protocol.
type testNode struct {
	svc    *nativetest.Service
	native *native.Server
	addr   string

	mu    sync.Mutex
	conns []net.Conn
}

// dropConns cuts every connection to the node.
func (n *testNode) dropConns() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	n.conns = nil
}

type keepingListener struct {
	net.Listener
	n *testNode
}

func (l keepingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.n.mu.Lock()
		l.n.conns = append(l.n.conns, c)
		l.n.mu.Unlock()
	}
	return c, err
}

func startNode(t testing.TB, svc *nativetest.Service, opt native.Options) *testNode {
	t.Helper()
	n := startService(t, svc, opt)
	n.svc = svc
	return n
}

type waiter interface {
	service.Service
	Release()
	Wait()
}

func startService(t testing.TB, svc waiter, opt native.Options) *testNode {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opt.Log = slog.New(slog.DiscardHandler)
	n := &testNode{native: native.New(svc, opt), addr: l.Addr().String()}
	mux := http.NewServeMux()
	mux.Handle(wire.Path, n.native)
	srv := &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(keepingListener{l, n}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		svc.Release()
		n.native.Close(ctx)
		srv.Close()
		<-served
		svc.Wait()
	})
	return n
}

func open(t testing.TB, opt client.Options, nodes ...*testNode) *client.Client {
	t.Helper()
	var eps []string
	for _, n := range nodes {
		eps = append(eps, n.addr)
	}
	c, err := client.Open(t.Context(), eps, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func openFacet(t testing.TB, c *client.Client) *client.Facet {
	t.Helper()
	b, err := c.Bind("acme")
	if err != nil {
		t.Fatal(err)
	}
	f, err := b.Facet("notes")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func simple(t testing.TB) (*testNode, *client.Facet) {
	n := startNode(t, &nativetest.Service{}, native.Options{})
	return n, openFacet(t, open(t, client.Options{}, n))
}

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

func TestExecAndQuery(t *testing.T) {
	n, f := simple(t)
	ctx := t.Context()
	for i := 1; i <= 3; i++ {
		res, err := f.Exec(ctx, "INSERT INTO t VALUES (?)", i)
		if err != nil || res != (client.Result{RowsAffected: 1, LastInsertID: int64(i)}) {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	var count int
	if err := f.QueryRow(ctx, "SELECT COUNT").Scan(&count); err != nil || count != 3 {
		t.Fatalf("count %d, %v", count, err)
	}
	if n.svc.Writes(notes) != 3 {
		t.Fatalf("%d writes", n.svc.Writes(notes))
	}
	_, err := f.Exec(ctx, "FAIL")
	var fe *facet.Error
	if !errors.Is(err, facet.ErrSQL) || !errors.As(err, &fe) || fe.SQLite != 1 {
		t.Fatalf("got %v", err)
	}
	if _, err := f.Query(ctx, "FAIL"); !errors.Is(err, facet.ErrSQL) {
		t.Fatalf("got %v", err)
	}
	if err := f.QueryRow(ctx, "SELECT ROWS 0 0").Scan(&count); !errors.Is(err, sql.ErrNoRows) {
		t.Fatalf("got %v", err)
	}
	if _, err := f.ReadOnly().Exec(ctx, "INSERT 1"); err == nil {
		t.Fatal("a read-only handle wrote")
	}
}

type myString string

func TestArgsAndScan(t *testing.T) {
	_, f := simple(t)
	when := time.Date(2026, 7, 1, 12, 30, 0, 5, time.UTC)
	n := 7
	var nothing *int
	args := []any{
		nil, int64(math.MinInt64), 1.5, "text", []byte{0, 1}, true, when, &n, nothing, uint16(9), myString("my"),
		sql.NullString{}, sql.NullInt64{Int64: 5, Valid: true}, float32(0.5), []byte(nil), "",
	}
	rows, err := f.Query(t.Context(), "SELECT ARGS", args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	var (
		a0     any = "x"
		a1     int64
		a2     float64
		a3     string
		a4     []byte
		a5     bool
		a6     time.Time
		a7     *int
		a8     *int
		a9     uint8
		a10    myString
		a11    sql.NullString
		a12    any
		a13    float32
		a14    []byte
		a15    facet.Value
		target = []any{&a0, &a1, &a2, &a3, &a4, &a5, &a6, &a7, &a8, &a9, &a10, &a11, &a12, &a13, &a14, &a15}
	)
	if err := rows.Scan(target...); err != nil {
		t.Fatal(err)
	}
	if a0 != nil || a1 != math.MinInt64 || a2 != 1.5 || a3 != "text" || !bytes.Equal(a4, []byte{0, 1}) || !a5 ||
		!a6.Equal(when) || a7 == nil || *a7 != 7 || a8 != nil || a9 != 9 || a10 != "my" || a11.Valid || a12 != int64(5) ||
		a13 != 0.5 || a14 != nil || a15.Type != facet.Text {
		t.Fatalf("%v %v %v %v %v %v %v %v %v %v %v %v %v %v %v %v", a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15)
	}
	var small int8
	if err := rows.Scan(target[:3]...); err == nil {
		t.Error("three destinations for sixteen columns")
	}
	if err := client.ScanValue(&small, facet.Value{Type: facet.Integer, Int: 200}); err == nil {
		t.Error("200 fit into an int8")
	}
	if rows.Next() || rows.Err() != nil {
		t.Fatal("more rows than one")
	}

	named, err := f.Query(t.Context(), "SELECT ARGS", client.Named("a", 1), sql.Named("b", 2))
	if err != nil {
		t.Fatal(err)
	}
	if c := named.Columns(); len(c) != 2 || c[0].Name != "a" || c[1].Name != "b" {
		t.Fatalf("%v", c)
	}
	named.Close()
	for _, bad := range [][]any{{1, client.Named("a", 1)}, {client.Named("a", 1), 1}, {make(chan int)}, {uint64(math.MaxUint64)}} {
		if _, err := f.Query(t.Context(), "SELECT ARGS", bad...); !errors.Is(err, facet.ErrBadRequest) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestBigResultsStream(t *testing.T) {
	_, f := simple(t)
	const n, size = 3000, 4000 // 12 MB, cut into many frames
	rows, err := f.Query(t.Context(), fmt.Sprintf("SELECT ROWS %d %d", n, size))
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	var b []byte
	for rows.Next() {
		if err := rows.Scan(&b); err != nil {
			t.Fatal(err)
		}
		if len(b) != size || b[size-1] != byte(got) {
			t.Fatalf("row %d: %d bytes, last %d", got, len(b), b[len(b)-1])
		}
		got++
	}
	if rows.Err() != nil || got != n {
		t.Fatalf("%d rows, %v", got, rows.Err())
	}
	// One value larger than any chunk.
	if err := f.QueryRow(t.Context(), "SELECT ROWS 1 9000000").Scan(&b); err != nil || len(b) != 9000000 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	// Rows closed early leave the connection in order.
	for range 5 {
		rows, err := f.Query(t.Context(), fmt.Sprintf("SELECT ROWS %d %d", n, size))
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		rows.Close()
	}
	var count int
	if err := f.QueryRow(t.Context(), "SELECT COUNT").Scan(&count); err != nil {
		t.Fatal(err)
	}
}

func TestMaxResult(t *testing.T) {
	n := startNode(t, &nativetest.Service{}, native.Options{})
	f := openFacet(t, open(t, client.Options{MaxResult: 1 << 20}, n))
	for range 3 {
		_, err := f.Exec(t.Context(), "SELECT ROWS 1000 4000")
		if !errors.Is(err, facet.ErrLimit) {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := f.Exec(t.Context(), "SELECT ROWS 10 10"); err != nil {
		t.Fatal(err)
	}
}

func TestLargeRequests(t *testing.T) {
	_, f := simple(t)
	blob := bytes.Repeat([]byte{7}, 8<<20)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			var got []byte
			if err := f.QueryRow(t.Context(), "SELECT ARGS", blob).Scan(&got); err != nil || !bytes.Equal(got, blob) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if _, err := f.Exec(t.Context(), "SELECT ARGS", make([]byte, facet.MaxValueLen+1)); err == nil {
		t.Error("a value over the limit went through")
	}
	three := make([]byte, facet.MaxValueLen-1)
	if _, err := f.Exec(t.Context(), "SELECT ARGS", three, three, three); !errors.Is(err, facet.ErrLimit) {
		t.Errorf("a request over the limit: %v", err)
	}
}

func TestOutOfOrderAndMany(t *testing.T) {
	n := startNode(t, &nativetest.Service{Async: true}, native.Options{MaxInFlight: 16})
	f := openFacet(t, open(t, client.Options{}, n))
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for i := range 50 {
				want := int64(w*1000 + i)
				var got int64
				if err := f.QueryRow(t.Context(), "SELECT ARGS", want).Scan(&got); err != nil || got != want {
					t.Errorf("asked %d, got %d, %v", want, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestBatchAndPipeline(t *testing.T) {
	n, f := simple(t)
	ctx := t.Context()
	res, err := f.Batch(ctx, client.Stmt{SQL: "INSERT 1"}, client.Stmt{SQL: "SELECT ARGS", Args: []any{"x", 2}}, client.Stmt{SQL: "INSERT 2"})
	if err != nil || len(res) != 3 || res[2].LastInsertID != 2 || len(res[1].Rows) != 1 || string(res[1].Rows[0][0].Bytes) != "x" {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err = f.Batch(ctx, client.Stmt{SQL: "INSERT 3"}, client.Stmt{SQL: "FAIL"}); !errors.Is(err, facet.ErrSQL) {
		t.Fatalf("got %v", err)
	}
	if w := n.svc.Writes(notes); w != 2 {
		t.Fatalf("%d writes after a failed batch", w)
	}
	res, err = f.Pipeline(ctx, client.Stmt{SQL: "INSERT 3"}, client.Stmt{SQL: "FAIL"}, client.Stmt{SQL: "INSERT 4"})
	if err != nil || len(res) != 3 || res[0].Err != nil || !errors.Is(res[1].Err, facet.ErrSQL) || res[2].LastInsertID != 4 {
		t.Fatalf("%+v, %v", res, err)
	}
	many := make([]client.Stmt, 300)
	for i := range many {
		many[i] = client.Stmt{SQL: "SELECT ARGS", Args: []any{i, client.Stmt{}.SQL}}
	}
	res, err = f.Batch(ctx, many...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range res {
		if res[i].Rows[0][0].Int != int64(i) {
			t.Fatalf("statement %d got %d", i, res[i].Rows[0][0].Int)
		}
	}
}

// TestQuorumReads: the wish for a majority goes with every request, in transactions
// too, and with no other.
func TestQuorumReads(t *testing.T) {
	var mu sync.Mutex
	var modes []facet.ReadMode
	svc := &nativetest.Service{Before: func(r *facet.Request) error {
		mu.Lock()
		defer mu.Unlock()
		modes = append(modes, r.Read)
		return nil
	}}
	n := startNode(t, svc, native.Options{})
	ctx := t.Context()
	use := func(f *client.Facet) {
		t.Helper()
		var count int
		if err := f.QueryRow(ctx, "SELECT COUNT").Scan(&count); err != nil {
			t.Fatal(err)
		}
		if err := f.Tx(ctx, func(tx *client.Tx) error { return tx.QueryRow(ctx, "SELECT COUNT").Scan(&count) }); err != nil {
			t.Fatal(err)
		}
	}
	want := func(mode facet.ReadMode) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if len(modes) != 4 {
			t.Errorf("%d requests", len(modes))
		}
		for _, m := range modes {
			if m != mode {
				t.Errorf("modes %v, want %v", modes, mode)
			}
		}
		modes = nil
	}
	f := openFacet(t, open(t, client.Options{}, n))
	use(f)
	want(facet.ReadOwner)
	use(f.QuorumReads())
	want(facet.ReadQuorum)
	use(openFacet(t, open(t, client.Options{QuorumReads: true}, n)))
	want(facet.ReadQuorum)
}

// TestFollowerReads: reads go to the node the client is connected to, and only reads
// do, whoever the owner is; who answered one is not taken for the owner.
func TestFollowerReads(t *testing.T) {
	var owner atomic.Pointer[testNode]
	var nodes [2]*testNode
	var mu sync.Mutex
	var reads [2]int // of followers, answered there
	var lagging atomic.Bool
	for i := range nodes {
		svc := &nativetest.Service{}
		svc.Before = func(r *facet.Request) error {
			own := owner.Load()
			switch {
			case own == nodes[i]:
				if r.Read == facet.ReadFollower && lagging.Load() {
					return nil
				}
			case r.Read == facet.ReadFollower && !lagging.Load():
			default:
				return &facet.Error{Code: facet.CodeNotOwner, Owner: own.addr, Epoch: 2}
			}
			if r.Read == facet.ReadFollower {
				mu.Lock()
				reads[i]++
				mu.Unlock()
			}
			return nil
		}
		nodes[i] = startNode(t, svc, native.Options{})
	}
	owner.Store(nodes[1])
	f := openFacet(t, open(t, client.Options{}, nodes[0])).FollowerReads()
	ctx := t.Context()
	read := func() {
		t.Helper()
		var n int
		if err := f.QueryRow(ctx, "SELECT COUNT").Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	read()
	if _, err := f.Exec(ctx, "INSERT 1"); err != nil {
		t.Fatal(err)
	}
	if err := f.Tx(ctx, func(tx *client.Tx) error { _, err := tx.Exec(ctx, "INSERT 2"); return err }); err != nil {
		t.Fatal(err)
	}
	read() // though the owner is known now
	answered := func() [2]int {
		mu.Lock()
		defer mu.Unlock()
		return reads
	}
	if w := nodes[1].svc.Writes(notes); w != 2 || answered() != [2]int{2, 0} {
		t.Errorf("%d writes, reads %v", w, answered())
	}
	lagging.Store(true)
	read()
	lagging.Store(false)
	read()
	if answered() != [2]int{3, 0} {
		t.Errorf("reads %v", answered())
	}
	if _, err := f.Exec(ctx, "INSERT 3"); err != nil || nodes[1].svc.Writes(notes) != 3 {
		t.Errorf("%v", err)
	}
}

func TestTx(t *testing.T) {
	n, f := simple(t)
	ctx := t.Context()
	err := f.Tx(ctx, func(tx *client.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT 1"); err != nil {
			return err
		}
		var count int
		if err := tx.QueryRow(ctx, "SELECT COUNT").Scan(&count); err != nil || count != 1 {
			return fmt.Errorf("count %d, %w", count, err)
		}
		return nil
	})
	if err != nil || n.svc.Writes(notes) != 1 || n.svc.OpenTx(notes) {
		t.Fatalf("%v, %d writes", err, n.svc.Writes(notes))
	}
	boom := errors.New("boom")
	err = f.Tx(ctx, func(tx *client.Tx) error {
		tx.Exec(ctx, "INSERT 2")
		return boom
	})
	if !errors.Is(err, boom) || n.svc.Writes(notes) != 1 || n.svc.OpenTx(notes) {
		t.Fatalf("%v, %d writes", err, n.svc.Writes(notes))
	}
	// A second transaction waits for the first.
	tx, err := f.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := f.Exec(ctx, "INSERT 3")
		got <- err
	}()
	if _, err := tx.Exec(ctx, "INSERT 4"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil || n.svc.Writes(notes) != 3 {
		t.Fatalf("%v, %d writes", err, n.svc.Writes(notes))
	}
	if err := tx.Commit(ctx); !errors.Is(err, facet.ErrTxClosed) || tx.Rollback(ctx) != nil {
		t.Fatalf("a transaction that is over: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	tx, err = f.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := f.Begin(short); !errors.Is(err, facet.ErrBusy) && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestTxDiesWithConnection(t *testing.T) {
	// One connection, so that the transaction's end tells the SDK of the loss: a
	// write on another one that is cut as well would be of unknown outcome.
	n := startNode(t, &nativetest.Service{}, native.Options{})
	f := openFacet(t, open(t, client.Options{ConnsPerNode: 1}, n))
	ctx := t.Context()
	tx, err := f.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT 1"); err != nil {
		t.Fatal(err)
	}
	n.dropConns()
	if _, err := tx.Exec(ctx, "INSERT 2"); !errors.Is(err, facet.ErrTxClosed) {
		t.Fatalf("got %v", err)
	}
	if err := tx.Commit(ctx); !errors.Is(err, facet.ErrTxClosed) {
		t.Fatalf("got %v", err)
	}
	// The node rolled it back: a write goes through, once the rollback ran.
	if _, err := f.Exec(ctx, "INSERT 3"); err != nil || n.svc.Writes(notes) != 1 {
		t.Fatalf("%v, %d writes", err, n.svc.Writes(notes))
	}
}

func TestCancel(t *testing.T) {
	n, f := simple(t)
	for _, write := range []bool{true, false} {
		g := f
		if !write {
			g = f.ReadOnly()
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		waiting := n.svc.Waiting()
		why := errors.New("changed my mind")
		go func() {
			<-waiting
			cancel(why)
		}()
		_, err := g.Exec(ctx, "WAIT")
		if !errors.Is(err, why) {
			t.Fatalf("got %v", err)
		}
		if errors.Is(err, facet.ErrUnknownOutcome) != write {
			t.Fatalf("write %v: %v", write, err)
		}
		n.svc.Wait() // the node was told: WAIT ended without Release
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if _, err := f.Exec(ctx, "INSERT 1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestUnknownOutcome(t *testing.T) {
	var n *testNode
	var armed atomic.Bool
	svc := &nativetest.Service{After: func(r *facet.Request) {
		if armed.CompareAndSwap(true, false) {
			n.dropConns()
		}
	}}
	n = startNode(t, svc, native.Options{})
	f := openFacet(t, open(t, client.Options{}, n))
	ctx := t.Context()

	armed.Store(true)
	_, err := f.Exec(ctx, "INSERT 1")
	if !errors.Is(err, facet.ErrUnknownOutcome) {
		t.Fatalf("an unkeyed write: %v", err)
	}
	if svc.Writes(notes) != 1 {
		t.Fatalf("%d writes: it was sent again", svc.Writes(notes))
	}
	armed.Store(true)
	if _, err := f.Exec(ctx, "SELECT COUNT"); err != nil {
		t.Fatalf("a read: %v", err)
	}
	armed.Store(true)
	if res, err := f.Idempotent().Exec(ctx, "INSERT 2"); err != nil || res.LastInsertID != 2 || svc.Writes(notes) != 2 {
		t.Fatalf("a keyed write: %+v, %v, %d writes", res, err, svc.Writes(notes))
	}
	key := facet.Key{Client: [16]byte{1}, N: 1}
	for range 3 {
		armed.Store(true)
		res, err := f.Exec(client.WithKey(ctx, key), "INSERT 3")
		if err != nil || res.LastInsertID != 3 || svc.Writes(notes) != 3 {
			t.Fatalf("my own key: %+v, %v, %d writes", res, err, svc.Writes(notes))
		}
	}
	tx, err := f.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "INSERT 4"); err != nil {
		t.Fatal(err)
	}
	armed.Store(true)
	if err := tx.Commit(ctx); !errors.Is(err, facet.ErrUnknownOutcome) {
		t.Fatalf("commit: %v", err)
	}
	if svc.Writes(notes) != 4 {
		t.Fatalf("%d writes", svc.Writes(notes))
	}
}

// endedBy reports whether err is what a write that is retried until its context
// ends may give: the error of the last try when there is no time for another, or,
// when the context ended while a try
// was on its way, that nobody knows. Which of them is up to the clock.
func endedBy(ctx context.Context, err, last error) bool {
	return errors.Is(err, last) || ctx.Err() != nil && errors.Is(err, facet.ErrUnknownOutcome) && errors.Is(err, ctx.Err())
}

func TestRetriesWhatWasNotDone(t *testing.T) {
	var fails atomic.Int32
	svc := &nativetest.Service{Before: func(r *facet.Request) error {
		if fails.Add(-1) >= 0 {
			return facet.Errorf(facet.CodeOverloaded, "not now")
		}
		return nil
	}}
	n := startNode(t, svc, native.Options{})
	c := open(t, client.Options{}, n)
	f := openFacet(t, c)
	fails.Store(4)
	if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil || svc.Writes(notes) != 1 {
		t.Fatalf("%v, %d writes", err, svc.Writes(notes))
	}
	fails.Store(1 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := f.Exec(ctx, "INSERT 2"); !endedBy(ctx, err, facet.ErrOverloaded) {
		t.Fatalf("got %v", err)
	}
	h := openFacet(t, open(t, client.Options{RetryFor: 50 * time.Millisecond}, n))
	if _, err := h.Exec(t.Context(), "INSERT 2"); !errors.Is(err, facet.ErrOverloaded) {
		t.Fatalf("after RetryFor: %v", err)
	}
	if w := svc.Writes(notes); w != 1 {
		t.Fatalf("%d writes", w)
	}
	g := openFacet(t, open(t, client.Options{RetryFor: -1}, n))
	fails.Store(1)
	if _, err := g.Exec(t.Context(), "INSERT 2"); !errors.Is(err, facet.ErrOverloaded) {
		t.Fatalf("without retries: %v", err)
	}
}

func TestRedirect(t *testing.T) {
	var owner atomic.Pointer[testNode]
	var asked [2]atomic.Int32
	nodes := make([]*testNode, 2)
	for i := range nodes {
		svc := &nativetest.Service{}
		svc.Before = func(r *facet.Request) error {
			asked[i].Add(1)
			if o := owner.Load(); o != nodes[i] {
				e := facet.Errorf(facet.CodeNotOwner, "another node owns %v", r.Name)
				e.Owner, e.Epoch = o.addr, 3
				return e
			}
			return nil
		}
		nodes[i] = startNode(t, svc, native.Options{})
	}
	owner.Store(nodes[1])
	f := openFacet(t, open(t, client.Options{}, nodes[0]))
	for range 5 {
		if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := asked[0].Load(), asked[1].Load(); a != 1 || b != 5 {
		t.Fatalf("asked %d and %d times: the way was not remembered", a, b)
	}
	owner.Store(nodes[0])
	for range 5 {
		if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
			t.Fatal(err)
		}
	}
	if w0, w1 := nodes[0].svc.Writes(notes), nodes[1].svc.Writes(notes); w0 != 5 || w1 != 5 {
		t.Fatalf("%d and %d writes", w0, w1)
	}
	// A loop of redirects ends with the context.
	nobody := &testNode{addr: nodes[1].addr}
	owner.Store(nobody)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Exec(ctx, "INSERT 1"); !endedBy(ctx, err, facet.ErrNotOwner) {
		t.Fatalf("got %v", err)
	}
	if n := asked[1].Load(); n > 200 {
		t.Fatalf("asked %d times in 100 ms", n)
	}
}

func TestFailover(t *testing.T) {
	nodes := []*testNode{
		startNode(t, &nativetest.Service{}, native.Options{}),
		startNode(t, &nativetest.Service{}, native.Options{}),
	}
	f := openFacet(t, open(t, client.Options{}, nodes...))
	if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
		t.Fatal(err)
	}
	// The first node drains and goes; nobody notices.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var done atomic.Int32
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	if err := nodes[0].native.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := done.Load()
	for done.Load() < before+100 && !t.Failed() {
		if _, err := f.Exec(t.Context(), "SELECT COUNT"); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if got, want := nodes[0].svc.Writes(notes)+nodes[1].svc.Writes(notes), int(done.Load())+1; got != want {
		t.Fatalf("%d writes happened, %d were acknowledged", got, want)
	}
}

func TestDrainWaitsForWork(t *testing.T) {
	n, f := simple(t)
	waiting := n.svc.Waiting()
	answered := make(chan error, 1)
	go func() {
		_, err := f.Exec(t.Context(), "WAIT")
		answered <- err
	}()
	<-waiting
	closed := make(chan error, 1)
	go func() { closed <- n.native.Close(t.Context()) }()
	select {
	case <-closed:
		t.Fatal("the server closed over a request")
	case <-time.After(50 * time.Millisecond):
	}
	n.svc.Release()
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

func TestOpenErrors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := client.Open(t.Context(), []string{addr}, client.Options{}); !errors.Is(err, facet.ErrUnavailable) {
		t.Errorf("nobody listens: %v", err)
	}
	for _, bad := range []string{"", "host", "ftp://h:1", "http://h:1/path", "h:", ":7400", "http://u:p@h:1"} {
		if _, err := client.Open(t.Context(), []string{bad}, client.Options{}); !errors.Is(err, facet.ErrBadRequest) {
			t.Errorf("endpoint %q: %v", bad, err)
		}
	}
	if _, err := client.Open(t.Context(), nil, client.Options{}); !errors.Is(err, facet.ErrBadRequest) {
		t.Errorf("no endpoint: %v", err)
	}
	n := startNode(t, &nativetest.Service{}, native.Options{})
	c := open(t, client.Options{}, n)
	f := openFacet(t, c)
	c.Close()
	if _, err := f.Exec(t.Context(), "SELECT COUNT"); err == nil {
		t.Error("a closed client works")
	}
}

// bearer may write when its token is rw, and only read when it is ro.
type bearer string

func (b bearer) Facet(facet.Name) (readOnly bool, err error) { return b == "ro", nil }
func (b bearer) Check() error                                { return nil }
func (b bearer) Until() time.Time                            { return time.Time{} }

func TestAuthorize(t *testing.T) {
	n := startNode(t, &nativetest.Service{}, native.Options{Authenticate: func(tok string) (native.Bearer, error) {
		if tok == "" {
			return nil, facet.Errorf(facet.CodeUnauthorized, "no token")
		}
		return bearer(tok), nil
	}})
	if _, err := client.Open(t.Context(), []string{n.addr}, client.Options{}); !errors.Is(err, facet.ErrUnauthorized) {
		t.Errorf("without a token: %v", err)
	}
	for tok, want := range map[string]error{"rw": nil, "ro": facet.ErrSQL} {
		f := openFacet(t, open(t, client.Options{Token: tok}, n))
		_, err := f.Exec(t.Context(), "INSERT 1")
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("token %q: %v, want %v", tok, err, want)
		}
		if _, err := f.Exec(t.Context(), "SELECT COUNT"); err != nil {
			t.Errorf("token %q reads: %v", tok, err)
		}
	}
	f := openFacet(t, open(t, client.Options{TokenSource: func(context.Context) (string, error) { return "rw", nil }}, n))
	if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
		t.Error(err)
	}
}

// ending is a bearer whose token ends when the test says so.
type ending struct {
	bearer
	over *atomic.Bool
}

func (b ending) Facet(facet.Name) (bool, error) { return false, b.Check() }
func (b ending) Check() error {
	if b.over.Load() {
		return facet.Errorf(facet.CodeUnauthorized, "the token expired")
	}
	return nil
}

// A token that is not good any more costs a client with a source of them a new
// connection: what is under way is answered, what comes after goes with the new one.
func TestTokenIsRenewed(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told=%v", told), func(t *testing.T) { tokenIsRenewed(t, told) })
	}
}

func tokenIsRenewed(t *testing.T, told bool) {
	var over atomic.Bool
	svc := &nativetest.Service{Async: true}
	n := startNode(t, svc, native.Options{Authenticate: func(tok string) (native.Bearer, error) {
		switch tok {
		case "first":
			return ending{over: &over}, nil
		case "second":
			return bearer("rw"), nil
		}
		return nil, facet.Errorf(facet.CodeUnauthorized, "no token")
	}})
	var asked atomic.Int32
	source := func(context.Context) (string, error) {
		asked.Add(1)
		if over.Load() {
			return "second", nil
		}
		return "first", nil
	}
	f := openFacet(t, open(t, client.Options{TokenSource: source, RetryFor: time.Minute}, n))
	old := openFacet(t, open(t, client.Options{Token: "first"}, n))
	for _, f := range []*client.Facet{f, old} {
		if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
			t.Fatal(err)
		}
	}
	answered := make(chan error, 1)
	go func() {
		_, err := f.Exec(t.Context(), "WAIT")
		answered <- err
	}()
	<-svc.Waiting()
	before := asked.Load()
	over.Store(true)
	if told {
		n.native.Recheck() // as when other keys are in force
	}
	for range 3 {
		if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
			t.Errorf("after the token ended: %v", err)
		}
	}
	svc.Release()
	if err := <-answered; err != nil {
		t.Errorf("what was under way: %v", err)
	}
	if asked.Load() == before {
		t.Error("nobody was asked for another token")
	}
	// Without a source it is the caller's matter. A connection that was told has ended,
	// or is about to.
	if _, err := old.Exec(t.Context(), "INSERT 1"); !told && !errors.Is(err, facet.ErrUnauthorized) {
		t.Errorf("an old token: %v", err)
	}
}

func TestConnsPerNode(t *testing.T) {
	n := startNode(t, &nativetest.Service{Async: true}, native.Options{})
	f := openFacet(t, open(t, client.Options{ConnsPerNode: 3}, n))
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for range 20 {
				if _, err := f.Exec(t.Context(), "INSERT 1"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if w := n.svc.Writes(notes); w != 640 {
		t.Fatalf("%d writes", w)
	}
}
