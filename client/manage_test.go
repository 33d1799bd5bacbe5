package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/native"
	"github.com/facetd/facetd/node/native/nativetest"
	"github.com/facetd/facetd/node/service"
)

// shelf is a service that keeps files: enough for the management calls.
type shelf struct {
	nativetest.Service
	mu    sync.Mutex
	files map[facet.Name][]byte
	of    map[facet.Name]facet.Lineage
}

func (s *shelf) info(n facet.Name) service.Info {
	return service.Info{Name: n, Incarnation: shelved(n), Lineage: s.of[n], Owner: "n1", OwnerURL: "http://n1", Epoch: 1 << 48, State: "active", SizeBytes: int64(len(s.files[n]))}
}

// shelved is the incarnation of a file.
func shelved(n facet.Name) (id facet.Incarnation) {
	copy(id[:], n.String())
	return id
}

func (s *shelf) Clone(_ context.Context, n, to facet.Name) (service.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.files[to]; there {
		return service.Info{}, facet.Errorf(facet.CodeExists, "%v exists", to)
	}
	s.files[to] = s.files[n]
	s.of = map[facet.Name]facet.Lineage{to: {Source: shelved(n), At: facet.Position{Epoch: 1, Seq: 9}}}
	return s.info(to), nil
}

func (s *shelf) Create(_ context.Context, n facet.Name) (service.Info, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.files[n]
	if !there {
		s.files[n] = nil
	}
	return s.info(n), !there, nil
}

func (s *shelf) Stat(_ context.Context, n facet.Name) (service.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.files[n]; !there {
		return service.Info{}, facet.Errorf(facet.CodeNotFound, "no facet %v", n)
	}
	return s.info(n), nil
}

func (s *shelf) Delete(ctx context.Context, n facet.Name) error {
	if _, err := s.Stat(ctx, n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, n)
	return nil
}

func (s *shelf) List(_ context.Context, t facet.Tenant, after string, limit int) (infos []service.Info, more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.files {
		if n.Tenant == t && n.Facet > after {
			infos = append(infos, s.info(n))
		}
	}
	slices.SortFunc(infos, func(a, b service.Info) int { return strings.Compare(a.Name.Facet, b.Name.Facet) })
	if more = len(infos) > limit; more {
		infos = infos[:limit]
	}
	return infos, more, nil
}

func (s *shelf) Import(_ context.Context, n facet.Name, file io.Reader, replace bool) (service.Info, error) {
	b, err := io.ReadAll(file)
	if err != nil {
		return service.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.files[n]; there && !replace {
		return service.Info{}, facet.Errorf(facet.CodeExists, "%v exists", n)
	}
	s.files[n] = b
	return s.info(n), nil
}

type exported struct{ *bytes.Reader }

func (e exported) Position() facet.Position { return facet.Position{Epoch: 1, Seq: 1} }
func (e exported) Close() error             { return nil }

func (s *shelf) Export(ctx context.Context, n facet.Name) (service.Export, error) {
	if _, err := s.Stat(ctx, n); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return exported{bytes.NewReader(s.files[n])}, nil
}

// TestClone loses the answer to the first try, and finds what it made; a facet that was
// there before is not taken for it.
func TestClone(t *testing.T) {
	ctx := t.Context()
	svc := &shelf{files: map[facet.Name][]byte{notes: []byte("file")}}
	nat := native.New(svc, native.Options{})
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(gone)
	})
	api := httpapi.New(svc, httpapi.Options{})
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	tries := 0 // they come one after the other
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			if tries++; tries == 1 {
				api.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
		}
		api.ServeHTTP(w, r)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := client.Open(ctx, []string{srv.URL}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f := openFacet(t, c)
	i, err := f.Clone(ctx, "acme/copy")
	if err != nil || i.Name.Facet != "copy" || i.Lineage == nil || i.Lineage.Lossy || i.Lineage.Position != "1.9" || tries != 2 {
		t.Fatalf("%+v, %v after %d tries", i, err, tries)
	}
	if _, err := f.Clone(ctx, "acme/copy"); !errors.Is(err, facet.ErrExists) {
		t.Fatalf("over a clone of before: %v", err)
	}
	if _, err := f.Clone(ctx, "copy"); !errors.Is(err, facet.ErrBadRequest) {
		t.Fatalf("to no name: %v", err)
	}
}

// TestManagement runs the SDK against the real HTTP API, through a node that
// redirects everything to another.
func TestManagement(t *testing.T) {
	ctx := t.Context()
	svc := &shelf{files: make(map[facet.Name][]byte)}
	nat := native.New(svc, native.Options{})
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		nat.Close(gone)
	})
	api := httpapi.New(svc, httpapi.Options{})
	owner := httptest.NewServer(api)
	t.Cleanup(owner.Close)
	mux := http.NewServeMux()
	mux.Handle(wire.Path, nat)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer tok" {
			t.Errorf("%s %s came without the token", r.Method, r.URL)
		}
		http.Redirect(w, r, owner.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)

	c, err := client.Open(ctx, []string{front.URL}, client.Options{Token: "tok"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f := openFacet(t, c)
	if _, err := f.Stat(ctx); !errors.Is(err, facet.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	if i, err := f.Create(ctx); err != nil || i.Name != notes || i.Epoch != 1<<48 || i.OwnerURL != "http://n1" {
		t.Fatalf("%+v, %v", i, err)
	}
	file := bytes.Repeat([]byte("SQLite "), 300_000)
	// A reader that cannot be read twice: the redirect must come before the body.
	once := io.MultiReader(bytes.NewReader(file))
	if _, err := f.Import(ctx, bytes.NewReader(file), false); !errors.Is(err, facet.ErrExists) {
		t.Fatalf("got %v", err)
	}
	if i, err := f.Import(ctx, once, true); err != nil || i.SizeBytes != int64(len(file)) {
		t.Fatalf("%+v, %v", i, err)
	}
	var got bytes.Buffer
	if n, err := f.Export(ctx, &got); err != nil || n != int64(len(file)) || !bytes.Equal(got.Bytes(), file) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := f.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(ctx); !errors.Is(err, facet.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	b, err := c.Bind("acme")
	if err != nil {
		t.Fatal(err)
	}
	const many = 1001 // more than a page
	for i := range many {
		svc.Create(ctx, facet.Name{Tenant: "acme", Facet: fmt.Sprintf("f%04d", i)})
	}
	n := 0
	for i, err := range b.List(ctx, "f0000") {
		if n++; err != nil || i.Name.Facet != fmt.Sprintf("f%04d", n) {
			t.Fatalf("%d: %+v, %v", n, i, err)
		}
	}
	if n != many-1 {
		t.Fatalf("listed %d", n)
	}
}
