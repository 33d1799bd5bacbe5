package auth

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var notes = facet.Name{Tenant: "acme", Facet: "notes"}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

// content is a file with these keys, each named by its seed.
func content(t *testing.T, revoked string, seeds ...byte) string {
	t.Helper()
	var list []token.JWK
	for _, s := range seeds {
		list = append(list, token.NewJWK(key(s).Public().(ed25519.PublicKey), fmt.Sprint("k", s), ""))
	}
	src, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return `{"keys":` + string(src) + `,"revoked":[` + revoked + `]}`
}

func sign(t *testing.T, seed byte, id string, lasts time.Duration) string {
	t.Helper()
	tok, err := token.Sign(key(seed), fmt.Sprint("k", seed), token.Claims{
		Tenant: "acme", Facets: []string{"notes"}, Access: token.Write, ID: id, Expires: time.Now().Add(lasts),
	})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// ring is a keyring on a file, which put replaces as an operator should.
type ring struct {
	*Keyring
	t    *testing.T
	file string
	log  *syncBuffer
}

func (r *ring) put(src string) {
	r.t.Helper()
	if err := os.WriteFile(r.file+".new", []byte(src), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(r.file+".new", r.file); err != nil {
		r.t.Fatal(err)
	}
}

func open(t *testing.T, src string, poll time.Duration) *ring {
	t.Helper()
	r := &ring{t: t, file: filepath.Join(t.TempDir(), "keys.json"), log: &syncBuffer{}}
	r.put(src)
	var err error
	r.Keyring, err = Open(Options{File: r.file, Poll: poll, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		r.Close() // as often as one likes
	})
	return r
}

func (r *ring) want(tok string, good bool) {
	r.t.Helper()
	g, err := r.Verify(tok)
	switch {
	case good && (err != nil || g.Facet(notes) != token.Write):
		r.t.Errorf("refused: %v", err)
	case !good && !errors.Is(err, facet.ErrUnauthorized):
		r.t.Errorf("let in, or %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.json")
	if _, err := Open(Options{File: file}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, src := range []string{"", "{}", strings.Repeat(" ", token.MaxFile+1)} {
		if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(Options{File: file}); err == nil {
			t.Errorf("%.20q is enough", src)
		}
	}
}

// A key is exchanged while the node runs: both are good for a while, then one.
func TestRotation(t *testing.T) {
	r := open(t, content(t, "", 1), time.Hour)
	one, two := sign(t, 1, "a", time.Hour), sign(t, 2, "b", time.Hour)
	r.want(one, true)
	r.want(two, false)
	r.put(content(t, "", 1, 2))
	r.Reload()
	r.want(one, true)
	r.want(two, true)
	r.put(content(t, "", 2))
	r.Reload()
	r.want(one, false) // though it was verified a moment ago
	r.want(two, true)
	if got := strings.Count(r.log.String(), "audit=true"); got != 2 {
		t.Errorf("%d lines of changes, want 2:\n%s", got, r.log.String())
	}
}

func TestRevocation(t *testing.T) {
	r := open(t, content(t, "", 1, 2), time.Hour)
	a, b, other := sign(t, 1, "a", time.Hour), sign(t, 1, "b", time.Hour), sign(t, 2, "c", time.Hour)
	bearer, err := r.Bearer(a)
	if err != nil {
		t.Fatal(err)
	}
	if readOnly, err := bearer.Facet(notes); readOnly || err != nil {
		t.Errorf("%v, %v", readOnly, err)
	}
	if _, err := bearer.Facet(facet.Name{Tenant: "acme", Facet: "other"}); !errors.Is(err, facet.ErrNotFound) {
		t.Errorf("out of reach: %v", err)
	}
	var told atomic.Int32
	r.OnChange(func() {
		told.Add(1)
		if err := bearer.Check(); !errors.Is(err, facet.ErrUnauthorized) {
			t.Errorf("told before it holds: %v", err)
		}
	})
	r.put(content(t, `{"jti":"a"}`, 1, 2))
	r.Reload()
	r.Reload() // nothing has changed
	if told.Load() != 1 {
		t.Errorf("told %d times", told.Load())
	}
	r.want(a, false)
	r.want(b, true)
	if _, err := bearer.Facet(notes); !errors.Is(err, facet.ErrUnauthorized) {
		t.Errorf("a connection goes on: %v", err)
	}
	r.OnChange(nil)
	r.put(content(t, `{"kid":"k1"}`, 1, 2))
	r.Reload()
	r.want(b, false)
	r.want(other, true)
	if s := r.Stats(); s.Keys != 2 || s.Revoked != 1 || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

// What cannot be taken changes nothing, and is said once.
func TestBadContentKeepsTheKeys(t *testing.T) {
	r := open(t, content(t, "", 1), time.Hour)
	one := sign(t, 1, "a", time.Hour)
	for i, bad := range []string{"", "{", content(t, ""), `{"keys":[],"revoked":[]}`, strings.Repeat(" ", token.MaxFile+1)} {
		r.put(bad)
		r.Reload()
		r.Reload()
		r.want(one, true)
		if got := int(r.Stats().Failures); got != i+1 {
			t.Errorf("%.20q: %d failures, want %d", bad, got, i+1)
		}
	}
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.Reload()
	r.want(one, true)
	if got := strings.Count(r.log.String(), "cannot be used"); got != 6 {
		t.Errorf("it was said %d times:\n%s", got, r.log.String())
	}
	r.put(content(t, "", 2))
	r.Reload()
	r.want(one, false)
}

// The file is looked at without anybody asking.
func TestPoll(t *testing.T) {
	r := open(t, content(t, "", 1), time.Millisecond)
	changed := make(chan struct{})
	r.OnChange(func() { close(changed) })
	r.put(content(t, "", 2))
	select {
	case <-changed:
	case <-time.After(time.Minute):
		t.Fatal("nobody looked")
	}
	r.want(sign(t, 1, "a", time.Hour), false)
}

func TestTokenEnds(t *testing.T) {
	r := open(t, content(t, "", 1), time.Hour)
	tok := sign(t, 1, "a", time.Hour)
	b, err := r.Bearer(tok)
	if err != nil {
		t.Fatal(err)
	}
	if until := time.Until(b.Until()); until < 59*time.Minute || until > time.Hour+token.Leeway {
		t.Errorf("it ends in %v", until)
	}
	r.want(sign(t, 1, "b", -time.Hour), false)
	for _, none := range []string{"", "x", strings.Repeat("x", token.MaxToken+1)} {
		r.want(none, false)
		if _, err := r.Bearer(none); !errors.Is(err, facet.ErrUnauthorized) {
			t.Errorf("%.10q: %v", none, err)
		}
	}
}

// What is remembered has a bound.
func TestKnownIsBounded(t *testing.T) {
	r := open(t, content(t, "", 1), time.Hour)
	st := r.state.Load()
	g, err := r.Verify(sign(t, 1, "a", time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; len(st.known) < maxKnown; i++ {
		st.known[[32]byte{byte(i), byte(i >> 8), 31: 1}] = g
	}
	for i := range 3 {
		r.want(sign(t, 1, fmt.Sprint(i), time.Hour), true)
	}
	if len(st.known) != maxKnown {
		t.Errorf("%d are remembered", len(st.known))
	}
}
