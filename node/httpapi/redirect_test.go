package httpapi_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/httpapi"
	"github.com/facetd/facetd/node/internal/fakeservice"
)

// TestRedirects asks a node that owns nothing for everything only the owner does.
func TestRedirects(t *testing.T) {
	c := fakeservice.NewCluster(t.TempDir(), 2)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	var handlers [2]*httpapi.Handler
	var servers [2]*httptest.Server
	for i := range handlers {
		handlers[i] = httpapi.New(c.Node(i), httpapi.Options{Log: slog.New(slog.DiscardHandler)})
		t.Cleanup(handlers[i].Close)
		servers[i] = httptest.NewServer(handlers[i])
		t.Cleanup(servers[i].Close)
		c.Node(i).SetAddr(servers[i].Listener.Addr().String())
	}
	owner := servers[1].Listener.Addr().String()
	c.Move(facet.Name{Tenant: "acme", Facet: "notes"}, 1)
	c.Move(facet.Name{Tenant: "acme", Facet: "notes"}, 1)

	for _, tc := range []struct{ method, uri, body string }{
		{"POST", "/v1/db/acme/notes/exec?rows=arrays", "SELECT 1"},
		{"PUT", "/v1/facets/acme/notes", ""},
		{"DELETE", "/v1/facets/acme/notes", ""},
		{"GET", "/v1/facets/acme/notes/export", ""},
		{"PUT", "/v1/facets/acme/notes/import?replace=true", "not read"},
	} {
		for scheme, state := range map[string]*tls.ConnectionState{"http": nil, "https": {}} {
			r := httptest.NewRequest(tc.method, tc.uri, strings.NewReader(tc.body))
			r.TLS = state
			w := httptest.NewRecorder()
			handlers[0].ServeHTTP(w, r)
			var got struct {
				Error struct {
					Code, Owner string
					Epoch       int
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != scheme+"://"+owner+tc.uri || w.Header().Get("Facet-Epoch") != "2" ||
				got.Error.Code != "not_owner" || got.Error.Owner != owner || got.Error.Epoch != 2 {
				t.Errorf("%s %s: %d %v %s", tc.method, tc.uri, w.Code, w.Header(), w.Body)
			}
		}
	}

	// A client that follows redirects needs to know no more.
	for _, sql := range []string{"CREATE TABLE t (x)", "INSERT INTO t VALUES (1)", "SELECT x FROM t"} {
		resp, err := http.Post(servers[0].URL+"/v1/db/acme/notes/exec", "application/sql", strings.NewReader(sql))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s %v", sql, resp.StatusCode, body, err)
		}
	}
	// What does not exist belongs to whom the asked node chooses.
	c.Choose(1)
	for uri, body := range map[string]string{"/v1/db/acme/new/exec": "CREATE TABLE t (x)", "/v1/db/acme/newer/exec": "SELECT 1"} {
		w := httptest.NewRecorder()
		handlers[0].ServeHTTP(w, httptest.NewRequest("POST", uri, strings.NewReader(body)))
		if w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != "http://"+owner+uri {
			t.Errorf("%s: %d %s", uri, w.Code, w.Body)
		}
	}
}
