package native

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/wire"
	"github.com/facetd/facetd/node/native/nativetest"
)

// holder may reach acme/notes until it is over.
type holder struct {
	readOnly bool
	over     atomic.Bool
	until    time.Time
}

func (b *holder) Check() error {
	if b.over.Load() || !b.until.IsZero() && !time.Now().Before(b.until) {
		return facet.Errorf(facet.CodeUnauthorized, "the token is over")
	}
	return nil
}

func (b *holder) Facet(name facet.Name) (bool, error) {
	if err := b.Check(); err != nil {
		return true, err
	}
	if name != notes {
		return true, facet.NoSuchFacet(name)
	}
	return b.readOnly, nil
}

func (b *holder) Until() time.Time { return b.until }

func only(tok string, b *holder) Options {
	return Options{Authenticate: func(shown string) (Bearer, error) {
		if shown != tok {
			return nil, facet.Errorf(facet.CodeUnauthorized, "no such token")
		}
		return b, nil
	}}
}

func (p *peer) wantGoAway(want error) {
	p.t.Helper()
	f := p.read()
	e, err := facet.DecodeError(f.Body)
	if f.Type != wire.TypeGoAway || err != nil || !errors.Is(e, want) {
		p.t.Fatalf("%v frame: %v, %v; want to be sent away with %v", f.Type, e, err, want)
	}
}

func (p *peer) wantEnd() {
	p.t.Helper()
	for {
		f, err := p.next()
		if err != nil {
			return
		}
		if f.Type != wire.TypePing {
			p.t.Fatalf("a %v frame, want the end", f.Type)
		}
	}
}

func hello(tok string) []byte {
	return wire.AppendHello(nil, wire.Hello{VersionMin: 1, VersionMax: 1, Token: tok})
}

func TestHelloNeedsAToken(t *testing.T) {
	s := start(t, &nativetest.Service{}, only("good", &holder{}))
	for _, c := range []struct {
		header, hello string
		ok            bool
	}{
		{"", "", false}, {"", "bad", false}, {"", "good", true},
		{"Authorization: Bearer good\r\n", "", true}, {"Authorization: Bearer bad\r\n", "", false},
		{"Authorization: Bearer bad\r\n", "good", true}, {"Authorization: Bearer good\r\n", "bad", false},
	} {
		p, status := dialRaw(t, s, upgradeHeader+c.header)
		if !strings.HasPrefix(status, "101") {
			t.Fatal(status)
		}
		p.write(hello(c.hello))
		if c.ok {
			if f := p.read(); f.Type != wire.TypeHelloOK {
				t.Errorf("%q and %q: %v", c.header, c.hello, f.Type)
			}
			continue
		}
		p.wantGoAway(facet.ErrUnauthorized)
		p.wantEnd()
	}
	// What is no token in the header is refused as HTTP.
	for _, header := range []string{"Authorization: Basic good\r\n", "Authorization: Bearer good\r\nAuthorization: Bearer good\r\n"} {
		if _, status := dialRaw(t, s, upgradeHeader+header); !strings.HasPrefix(status, "401") || !strings.Contains(status, `"code":"unauthorized"`) {
			t.Errorf("%q: %s", header, status)
		}
	}
}

func greeted(t *testing.T, s *server) *peer {
	t.Helper()
	p, status := dialRaw(t, s, upgradeHeader)
	if !strings.HasPrefix(status, "101") {
		t.Fatal(status)
	}
	p.write(hello("good"))
	if f := p.read(); f.Type != wire.TypeHelloOK {
		t.Fatalf("got %v", f.Type)
	}
	return p
}

func TestBearerReaches(t *testing.T) {
	s := start(t, &nativetest.Service{Before: func(r *facet.Request) error {
		if !r.ReadOnly {
			return facet.Errorf(facet.CodeInternal, "a request that may write came through")
		}
		return nil
	}}, only("good", &holder{readOnly: true}))
	p := greeted(t, s)
	p.write(wire.AppendRequest(nil, 1, &facet.Request{Name: facet.Name{Tenant: "acme", Facet: "other"}, Steps: step("SELECT COUNT")}))
	p.wantError(1, facet.ErrNotFound)
	p.request(2, facet.Request{Steps: step("SELECT COUNT")})
	if f := p.read(); f.Type != wire.TypeResponse {
		t.Fatalf("got %v", f.Type)
	}
}

// When other keys are in force and the token is not good by them, the client is told,
// what is under way is answered, an open transaction is over, and so is the
// connection.
func TestTokenIsOver(t *testing.T) {
	b := &holder{}
	s := start(t, &nativetest.Service{Async: true}, only("good", b))
	p := greeted(t, s)
	s.Recheck() // it is good still
	p.request(1, facet.Request{KeepTx: true, Steps: step("BEGIN")})
	part, err := wire.DecodeResponse(p.read())
	if err != nil {
		t.Fatal(err)
	}
	p.request(2, facet.Request{Steps: step("WAIT")})
	<-s.svc.Waiting()
	b.over.Store(true)
	s.Recheck()
	s.Recheck() // it is told once
	p.wantGoAway(facet.ErrUnauthorized)
	p.request(3, facet.Request{Steps: step("INSERT 1")})
	p.wantError(3, facet.ErrUnauthorized)
	p.request(4, facet.Request{KeepTx: true, Tx: part.Tx, Steps: step("COMMIT")})
	p.wantError(4, facet.ErrUnauthorized)
	s.svc.Release()
	if f := p.read(); f.Type != wire.TypeResponse || f.ID != 2 {
		t.Fatalf("what was under way: %v for %d", f.Type, f.ID)
	}
	p.wantEnd()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.svc.OpenTx(notes) || s.svc.Writes(notes) != 0 {
		t.Errorf("the transaction is open (%v) or was committed", s.svc.OpenTx(notes))
	}
}

// A connection that does nothing is told when its token ends.
func TestTokenEnds(t *testing.T) {
	s := start(t, &nativetest.Service{}, Options{Authenticate: func(string) (Bearer, error) {
		return &holder{until: time.Now().Add(time.Second)}, nil
	}})
	p := greeted(t, s)
	p.wantGoAway(facet.ErrUnauthorized)
	p.wantEnd()
}
