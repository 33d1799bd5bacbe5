package forward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestSendTLS carries requests to an owner that speaks TLS, over one connection, and
// goes by what is trusted when a connection is made.
func TestSendTLS(t *testing.T) {
	back := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 || r.TLS == nil {
			t.Errorf("%s, TLS %v", r.Proto, r.TLS != nil)
		}
		io.Copy(w, r.Body)
	}))
	back.EnableHTTP2 = true
	back.Config.ErrorLog = log.New(io.Discard, "", 0)
	back.StartTLS()
	defer back.Close()
	trusted, asked := x509.NewCertPool(), 0
	f := New(Options{TLS: func() *tls.Config { asked++; return &tls.Config{RootCAs: trusted.Clone()} }})
	defer f.Close()
	send := func() (*httptest.ResponseRecorder, error) {
		w := httptest.NewRecorder()
		return w, f.Send(w, httptest.NewRequest(http.MethodPost, "/a", nil), []byte("hello"), back.URL)
	}
	if _, err := send(); !errors.Is(err, ErrUnsent) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("to a stranger: %v", err)
	}
	trusted.AddCert(back.Certificate())
	asked = 0
	for range 3 {
		if w, err := send(); err != nil || w.Code != http.StatusOK || w.Body.String() != "hello" {
			t.Fatalf("%d %s %v", w.Code, w.Body, err)
		}
	}
	if asked != 1 {
		t.Errorf("%d connections for three requests", asked)
	}
	// The roots of the system do not know it.
	g := New(Options{})
	defer g.Close()
	w := httptest.NewRecorder()
	if err := g.Send(w, httptest.NewRequest(http.MethodPost, "/a", nil), nil, back.URL); !errors.Is(err, ErrUnsent) {
		t.Error(err)
	}
}
