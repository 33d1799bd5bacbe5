package sqldriver_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"go.uber.org/goleak"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/client/sqldriver"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

func start(t *testing.T) (*nativetest.Service, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	svc := &nativetest.Service{}
	nat := native.New(svc, native.Options{Log: slog.New(slog.DiscardHandler)})
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	srv := &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() { defer close(served); srv.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(ctx)
		srv.Close()
		<-served
	})
	return svc, l.Addr().String()
}

func openDB(t *testing.T) (*nativetest.Service, *sql.DB) {
	t.Helper()
	svc, addr := start(t)
	db, err := sql.Open("facetd", "facetd://"+addr+"/acme/notes?token=x&idempotent=true")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return svc, db
}

func TestDatabaseSQL(t *testing.T) {
	svc, db := openDB(t)
	ctx := t.Context()
	if err := db.PingContext(ctx); err != nil {
		t.Fatal(err)
	}
	res, err := db.Exec("INSERT 1", 1, "x")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := res.LastInsertId(); err != nil || id != 1 {
		t.Fatalf("%d, %v", id, err)
	}
	if n, err := res.RowsAffected(); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	st, err := db.Prepare("SELECT COUNT")
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	var n int
	if err := st.QueryRow().Scan(&n); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if _, err := db.Exec("FAIL"); !errors.Is(err, facet.ErrSQL) {
		t.Fatalf("got %v", err)
	}

	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT 2"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil || svc.Writes(notes) != 2 {
		t.Fatalf("%v, %d writes", err, svc.Writes(notes))
	}
	tx, err = db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT 3"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil || svc.Writes(notes) != 2 || svc.OpenTx(notes) {
		t.Fatalf("%v, %d writes", err, svc.Writes(notes))
	}
	if _, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadUncommitted}); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatalf("got %v", err)
	}
	ro, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ro.Exec("INSERT 4"); err == nil {
		t.Fatal("a read-only transaction wrote")
	}
	if err := ro.Rollback(); err != nil {
		t.Fatal(err)
	}
}

func TestTypes(t *testing.T) {
	_, db := openDB(t)
	when := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	rows, err := db.Query("SELECT ARGS", sql.Named("created", when), sql.Named("flag", true), sql.Named("price", 2), sql.Named("b", []byte{1}), sql.Named("x", "text"))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"DATETIME", "BOOLEAN", "DECIMAL", "BLOB", ""} {
		if got := types[i].DatabaseTypeName(); got != want {
			t.Errorf("column %d is %q, want %q", i, got, want)
		}
	}
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	var created, flag, price, b, x any
	if err := rows.Scan(&created, &flag, &price, &b, &x); err != nil {
		t.Fatal(err)
	}
	if at, ok := created.(time.Time); !ok || !at.Equal(when) {
		t.Errorf("created is %T %v", created, created)
	}
	if flag != true || price != int64(2) || string(b.([]byte)) != "\x01" || x != "text" {
		t.Errorf("%v %v %v %v", flag, price, b, x)
	}
	// What cannot be read as a time stays what it is.
	var odd any
	if err := db.QueryRow("SELECT ARGS", sql.Named("created", "soon")).Scan(&odd); err != nil || odd != "soon" {
		t.Errorf("%v, %v", odd, err)
	}
}

func TestSqlx(t *testing.T) {
	_, addr := start(t)
	sqlx.BindDriver("facetd", sqlx.QUESTION)
	db, err := sqlx.Open("facetd", "facetd://"+addr+"/acme/notes")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got struct {
		N int64  `db:"n"`
		B []byte `db:"b"`
	}
	if err := db.Get(&got, "SELECT ARGS", client.Named("n", 5), client.Named("b", []byte("x"))); err != nil || got.N != 5 || string(got.B) != "x" {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestConnector(t *testing.T) {
	svc, addr := start(t)
	c, err := client.Open(t.Context(), []string{addr}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	db := sql.OpenDB(sqldriver.NewConnector(c, notes))
	if _, err := db.Exec("INSERT 1"); err != nil || svc.Writes(notes) != 1 {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(t.Context()); err != nil {
		t.Fatalf("the client was closed with the database: %v", err)
	}
}

func TestParseDSN(t *testing.T) {
	for _, bad := range []string{
		"", "postgres://h:1/a/b", "facetd://", "facetd://h:1", "facetd://h:1/acme", "facetd:///acme/notes",
		"facetd://h:1/ACME/notes", "facetd://h:1/acme/notes?nope=true", "facetd://h:1/acme/notes?read=true", "facetd://h:1/acme/notes?tls=maybe", "facetd://h:1/acme/a/b",
	} {
		if _, err := sqldriver.ParseDSN(bad); !errors.Is(err, facet.ErrBadRequest) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := sqldriver.ParseDSN("facetd://h:1/acme/notes?ca=absent.pem"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a CA that is not there: %v", err)
	}
	for _, good := range []string{"facetd://h:1,g:2/acme/notes", "facetd://h:1/acme/notes/?token=a%3Db&tls=true&readonly=1", "facetd://h:1/acme/notes?read=quorum", "facetd://h:1/acme/notes?read=follower"} {
		if _, err := sqldriver.ParseDSN(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}
