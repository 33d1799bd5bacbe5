package sqldriver_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
)

// startCluster starts two nodes. stop ends one, as a crash would.
func startCluster(t *testing.T) (c *nativetest.Cluster, addrs []string, stop func(i int)) {
	t.Helper()
	var listeners []net.Listener
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		addrs = append(addrs, l.Addr().String())
	}
	c = nativetest.NewCluster(addrs...)
	stops := make([]func(), len(listeners))
	for i, l := range listeners {
		nat := native.New(c.Node(i), native.Options{Log: slog.New(slog.DiscardHandler)})
		mux := http.NewServeMux()
		mux.Handle(wire.Path, nat)
		srv := &http.Server{Handler: mux}
		served := make(chan struct{})
		go func() { defer close(served); srv.Serve(l) }()
		stops[i] = func() {
			srv.Close()
			<-served
			gone, cancel := context.WithCancel(context.Background())
			cancel()
			nat.Close(gone)
		}
		t.Cleanup(stops[i])
	}
	return c, addrs, func(i int) { stops[i]() }
}

func TestSeveralHosts(t *testing.T) {
	c, addrs, stop := startCluster(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	db, err := sql.Open("facetd", "facetd://"+strings.Join(append([]string{dead}, addrs...), ",")+"/acme/notes?idempotent=true")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	write := func() {
		t.Helper()
		if _, err := db.Exec("INSERT 1"); err != nil {
			t.Fatal(err)
		}
	}
	write()
	c.Move(notes, 1, 2)
	write()

	// A transaction ends with the ownership it was begun under; the database goes on.
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT 1"); err != nil {
		t.Fatal(err)
	}
	c.Move(notes, 0, 3)
	if _, err := tx.Exec("INSERT 1"); !errors.Is(err, facet.ErrTxClosed) {
		t.Fatalf("a statement after the move: %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, facet.ErrTxClosed) {
		t.Fatalf("COMMIT after the move: %v", err)
	}
	write()

	// The owner dies.
	stop(0)
	c.Move(notes, 1, 4)
	write()
	var n int
	if err := db.QueryRow("SELECT COUNT").Scan(&n); err != nil || n != 4 {
		t.Fatalf("%d writes, %v", n, err)
	}
}
