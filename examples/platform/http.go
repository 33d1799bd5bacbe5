package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/facetd/facetd/facet"
)

// requestTime bounds a request: long enough for a facet to fail over to another node.
const requestTime = 10 * time.Second

// handler is the platform as others see it. Operators have the operator's key, customers
// theirs, and visitors none.
func (p *platform) handler() http.Handler {
	mux := http.NewServeMux()
	operator := func(pattern string, h func(*http.Request, string) (any, error)) {
		mux.Handle(pattern, answer(func(r *http.Request) (any, error) {
			got, want := sha256.Sum256([]byte(bearer(r))), sha256.Sum256([]byte(p.cfg.operatorKey))
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				return nil, errKey
			}
			return h(r, r.PathValue("tenant"))
		}))
	}
	customer := func(pattern string, h func(*http.Request, appID) (any, error)) {
		mux.Handle(pattern, answer(func(r *http.Request) (any, error) {
			tenant, err := p.customer(r.Context(), bearer(r))
			switch {
			case errors.Is(err, sql.ErrNoRows):
				return nil, errKey
			case err != nil:
				return nil, err
			}
			return h(r, appID{tenant, r.PathValue("app")})
		}))
	}

	operator("PUT /customers/{tenant}", func(r *http.Request, tenant string) (any, error) {
		var in struct{ Plan string }
		if err := read(r, &in); err != nil {
			return nil, err
		}
		key, err := p.putCustomer(r.Context(), tenant, in.Plan)
		return map[string]string{"tenant": tenant, "key": key}, err
	})
	operator("GET /customers/{tenant}", func(r *http.Request, tenant string) (any, error) {
		return p.supervisor.Tenant(r.Context(), tenant)
	})
	operator("PUT /customers/{tenant}/freeze", func(r *http.Request, tenant string) (any, error) {
		return p.supervisor.FreezeTenant(r.Context(), tenant, false)
	})
	operator("DELETE /customers/{tenant}/freeze", func(r *http.Request, tenant string) (any, error) {
		return p.supervisor.UnfreezeTenant(r.Context(), tenant)
	})

	customer("PUT /apps/{app}", func(r *http.Request, id appID) (any, error) {
		src, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, facet.Errorf(facet.CodeBadRequest, "read the program: %v", err)
		}
		return map[string]string{"app": id.name}, p.putApp(r.Context(), id, src)
	})
	// For an app that runs elsewhere: in a container, a sandbox, a browser.
	customer("POST /apps/{app}/token", func(r *http.Request, id appID) (any, error) {
		if _, err := p.program(r.Context(), id); err != nil {
			return nil, err
		}
		tok, expires, err := p.mint(id.claims())
		return map[string]any{"token": tok, "expires": expires.UTC(), "url": p.url(id, "main")}, err
	})

	mux.Handle("POST /run/{tenant}/{app}/{route}", answer(func(r *http.Request) (any, error) {
		params := make(map[string]any)
		if err := read(r, &params); err != nil {
			return nil, err
		}
		for name, v := range params {
			if n, ok := v.(json.Number); ok {
				params[name] = number(n)
			}
		}
		return p.run(r.Context(), appID{r.PathValue("tenant"), r.PathValue("app")}, r.PathValue("route"), params)
	}))
	return mux
}

// url is where clients of libSQL, and curl, find a facet of an app.
func (p *platform) url(id appID, name string) string {
	server := p.cfg.servers[0]
	if !strings.Contains(server, "://") {
		server = "http://" + server
	}
	return fmt.Sprintf("%s/v1/db/%s/%s.%s/", server, id.tenant, id.name, name)
}

func bearer(r *http.Request) string {
	key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return key
}

func read(r *http.Request, into any) error {
	dec := json.NewDecoder(r.Body)
	dec.UseNumber()
	if err := dec.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return facet.Errorf(facet.CodeBadRequest, "read the request: %v", err)
	}
	return nil
}

// number keeps integers whole.
func number(n json.Number) any {
	if i, err := n.Int64(); err == nil {
		return i
	}
	f, _ := n.Float64() // infinite where it does not fit
	return f
}

var errKey = errors.New("the key is not good for this")

func answer(h func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), requestTime)
		defer cancel()
		r = r.WithContext(ctx)
		r.Body = http.MaxBytesReader(w, r.Body, maxProgram)
		out, err := h(r)
		status := http.StatusOK
		if err != nil {
			var text string
			status, text = explain(err)
			if status == http.StatusInternalServerError {
				log.Printf("%s %s: %v", r.Method, r.URL.Path, err)
			}
			out = map[string]string{"error": text}
		}
		body, err := json.Marshal(out)
		if err != nil {
			status, body = http.StatusInternalServerError, []byte(`{"error":"the answer is no JSON"}`)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(append(body, '\n')) // who asked has gone
	})
}

// explain is what others are told of an error. What is about the platform itself, its
// registry or its tokens, stays inside.
func explain(err error) (status int, text string) {
	var fe *facet.Error
	switch {
	case errors.Is(err, errKey):
		return http.StatusUnauthorized, err.Error()
	case errors.Is(err, errNoDatabase), errors.Is(err, errNoRoute), errors.Is(err, errNoApp):
		return http.StatusNotFound, err.Error()
	case errors.Is(err, errBusyApp):
		return http.StatusTooManyRequests, err.Error()
	case errors.Is(err, errBusy):
		return http.StatusServiceUnavailable, err.Error()
	case !errors.As(err, &fe):
		if errors.Is(err, context.DeadlineExceeded) {
			return http.StatusGatewayTimeout, "the request took too long"
		}
		return http.StatusInternalServerError, "something is wrong here"
	}
	switch fe.Code {
	case facet.CodeSQL, facet.CodeDenied, facet.CodeBadRequest, facet.CodeReadOnly:
		return http.StatusBadRequest, fe.Message
	case facet.CodeTimeout, facet.CodeCanceled:
		return http.StatusRequestTimeout, fe.Message
	case facet.CodeLimit:
		return http.StatusInsufficientStorage, fe.Message
	case facet.CodeFrozen:
		return http.StatusForbidden, fe.Message
	case facet.CodeThrottled:
		return http.StatusTooManyRequests, fe.Message
	case facet.CodeBusy, facet.CodeOverloaded, facet.CodeUnavailable, facet.CodeDiskFull:
		return http.StatusServiceUnavailable, "try again: nothing was done"
	case facet.CodeUnknownOutcome:
		return http.StatusBadGateway, "it may have happened or not: look before you send it again"
	}
	return http.StatusInternalServerError, "something is wrong here"
}
