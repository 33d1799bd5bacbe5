package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every single input: without the limits of the node some take hours.
const patience = time.Minute

// world is one node that wants tokens, a tenant that attacks it, and a victim.
type world struct {
	t    *testing.T
	dir  string
	n    *node.Node
	log  *logbook
	http *http.Client
	keys [3]ed25519.PrivateKey // k1 signs for all tenants, "bolt" for tenant bolt, the last is not known

	root, mallory, victim string // tokens of admins
	vault                 string // what the victim's facet holds
	clients               map[string]*client.Client
}

// vaultSQL is what the victim has, and vaultLook how it is looked at.
const (
	vaultSQL  = "CREATE TABLE gold (id INTEGER PRIMARY KEY, v TEXT); WITH RECURSIVE r(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM r WHERE i<200) INSERT INTO gold SELECT i, 'CANARY-of-the-victim-'||i FROM r"
	vaultLook = "SELECT count(*) AS n, sum(length(v)) AS l, min(v) AS a, max(v) AS z FROM gold"
	canary    = "CANARY-of-the-victim"
)

func newWorld(t *testing.T, change func(*node.Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), log: &logbook{}, http: &http.Client{
		Transport:     &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}, clients: make(map[string]*client.Client)}
	t.Cleanup(w.http.CloseIdleConnections)
	for i := range w.keys {
		w.keys[i] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte('a' + i)}, ed25519.SeedSize))
	}
	file, err := json.Marshal(map[string]any{
		"keys":    []token.JWK{token.NewJWK(w.public(0), "k1", ""), token.NewJWK(w.public(1), "bolt", "bolt")},
		"revoked": []map[string]string{{"jti": "lost"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := node.Config{
		Dir: filepath.Join(w.dir, "data"), Listen: "127.0.0.1:0", AuthKeys: path,
		Logger: slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if w.n, err = node.Open(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	w.root = w.sign(token.Claims{Tenant: "*", Facets: []string{"*"}, Access: token.Admin})
	w.mallory = w.sign(token.Claims{Tenant: "mallory", Facets: []string{"*"}, Access: token.Admin})
	w.victim = w.sign(token.Claims{Tenant: "victim", Facets: []string{"*"}, Access: token.Admin})
	w.mustExec(w.victim, "victim/vault", vaultSQL)
	_, w.vault = w.exec(w.victim, "victim/vault", vaultLook)
	w.vault = rowsOf(w.vault)
	if !strings.Contains(w.vault, `"n":200`) {
		t.Fatalf("the vault: %s", w.vault)
	}
	return w
}

func (w *world) close() {
	for _, c := range w.clients {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.n.Close(ctx); err != nil {
		w.t.Errorf("close the node: %v", err)
	}
	for _, bad := range []string{"panic", "goroutine ", canary} {
		if line := w.log.find(bad); line != "" {
			w.t.Errorf("%q is in the node's log: %s", bad, line)
		}
	}
}

func (w *world) public(i int) ed25519.PublicKey { return w.keys[i].Public().(ed25519.PublicKey) }

// sign makes a token of k1 that ends in an hour, unless the claims say otherwise.
func (w *world) sign(c token.Claims) string {
	w.t.Helper()
	if c.Expires.IsZero() {
		c.Expires = time.Now().Add(time.Hour)
	}
	tok, err := token.Sign(w.keys[0], "k1", c)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok
}

// jws signs any header and claims.
func jws(key ed25519.PrivateKey, header, claims string) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString([]byte(claims))
	return signed + "." + enc.EncodeToString(ed25519.Sign(key, []byte(signed)))
}

func (w *world) url(path string) string { return "http://" + w.n.Addr().String() + path }

// call sends a request and gives status, body and headers.
func (w *world) call(tok, method, path, body string, headers ...string) (int, string, http.Header) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url(path), strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	res, err := w.http.Do(req)
	if err != nil {
		w.t.Fatalf("%s %.80s: %v", method, path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %.80s: %v", method, path, err)
	}
	return res.StatusCode, string(b), res.Header
}

// exec runs SQL by plain HTTP.
func (w *world) exec(tok, name, sql string) (int, string) {
	w.t.Helper()
	status, body, _ := w.call(tok, "POST", "/v1/db/"+name+"/exec", sql, "Content-Type: application/sql")
	return status, body
}

func (w *world) mustExec(tok, name, sql string) string {
	w.t.Helper()
	status, body := w.exec(tok, name, sql)
	if status != 200 {
		w.t.Fatalf("%.200s: %d %s", sql, status, body)
	}
	return body
}

// set changes the limits of a tenant.
func (w *world) set(tenant, limits string) {
	w.t.Helper()
	if status, body, _ := w.call(w.root, "PATCH", "/v1/tenants/"+tenant, limits); status != 200 {
		w.t.Fatalf("set %s: %d %s", limits, status, body)
	}
}

// client is an SDK client that shows the token and does not try again.
func (w *world) client(tok string) *client.Client {
	w.t.Helper()
	if c := w.clients[tok]; c != nil {
		return c
	}
	c, err := client.Open(w.t.Context(), []string{w.n.Addr().String()}, client.Options{Token: tok, RetryFor: -1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.clients[tok] = c
	return c
}

// rowsOf is the part of an answer of exec that does not change.
func rowsOf(body string) string {
	rows, _, _ := strings.Cut(body, `,"rows_affected"`)
	return rows
}

// unharmed asks the node whether it lives and the victim whether it has what it had, by
// another connection than the attacker's.
func (w *world) unharmed() {
	w.t.Helper()
	if status, body, _ := w.call("", "GET", "/livez", ""); status != 200 {
		w.t.Fatalf("the node is not alive: %d %s", status, body)
	}
	select {
	case err := <-w.n.Failed():
		w.t.Fatalf("the node failed: %v", err)
	default:
	}
	if status, body := w.exec(w.victim, "victim/vault", vaultLook); status != 200 || rowsOf(body) != w.vault {
		w.t.Fatalf("the victim: %d %s, want %s", status, body, w.vault)
	}
}

// clear is what every refusal must be: JSON with a code, and a message that is neither
// empty nor endless, nor tells of the victim or of the inside of the node.
func (w *world) clear(body string) (code, message string) {
	w.t.Helper()
	var plain struct {
		Error                json.RawMessage
		Code                 string
		Message, Hint, Limit string
	}
	if err := json.Unmarshal([]byte(body), &plain); err != nil {
		w.t.Errorf("no JSON: %v: %.300s", err, body)
		return "", ""
	}
	if plain.Code == "" { // not of Hrana
		var inner struct{ Code, Message, Hint, Limit string }
		if err := json.Unmarshal(plain.Error, &inner); err != nil {
			w.t.Errorf("no error: %.300s", body)
			return "", ""
		}
		plain.Code, plain.Message, plain.Hint, plain.Limit = inner.Code, inner.Message, inner.Hint, inner.Limit
	}
	w.clearText(plain.Code, plain.Message)
	return plain.Code, strings.Join([]string{plain.Message, plain.Hint, plain.Limit}, " ")
}

func (w *world) clearText(code, message string) {
	w.t.Helper()
	switch {
	case code == "" || message == "":
		w.t.Errorf("an error without a code or message: %q %q", code, message)
	case len(message) > 4096:
		w.t.Errorf("a message of %d bytes", len(message))
	case strings.Contains(message, w.dir) || strings.Contains(message, canary):
		w.t.Errorf("a message tells too much: %s", message)
	case strings.EqualFold(code, "internal") || strings.EqualFold(code, "corrupt"):
		w.t.Errorf("the node blames itself: %s: %s", code, message)
	}
}

// codeOf is the code and text of an error of the SDK.
func (w *world) codeOf(err error) (code, message string) {
	w.t.Helper()
	var fe *facet.Error
	if !errors.As(err, &fe) {
		w.t.Errorf("%T is no error of facetd: %v", err, err)
		return "", ""
	}
	w.clearText(fe.Code.String(), fe.Message)
	return fe.Code.String(), fe.Message + " " + fe.Limit
}

// raw sends bytes on a connection of its own and gives back what came until the node
// closed it, or said nothing for the time given. The first need bytes are waited for
// however long it takes.
func (w *world) raw(addr net.Addr, wait time.Duration, need int, parts ...[]byte) string {
	w.t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	go func() {
		for _, p := range parts {
			if _, err := c.Write(p); err != nil {
				return // it was refused already
			}
		}
	}()
	var out bytes.Buffer
	buf := make([]byte, 16<<10)
	for out.Len() < 1<<20 {
		limit := wait
		if out.Len() < need {
			limit = patience
		}
		c.SetReadDeadline(time.Now().Add(limit))
		n, err := c.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return out.String()
}

// usage is what the process holds: what tests compare before and after.
type usage struct {
	goroutines, files int
	heap              uint64
}

func inUse() usage {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	fds, _ := os.ReadDir("/proc/self/fd") // nowhere else than on Linux
	return usage{runtime.NumGoroutine(), len(fds), s[0].Value.Uint64()}
}

// back waits until goroutines and files are what they were, but for a few that the node
// keeps or that are about to end.
func (w *world) back(was usage) {
	w.t.Helper()
	const slack = 16
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		w.http.CloseIdleConnections()
		now := inUse()
		if now.goroutines <= was.goroutines+slack && now.files <= was.files+slack {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("%d goroutines and %d files are left, there were %d and %d", now.goroutines, now.files, was.goroutines, was.files)
		}
	}
}

// logbook keeps the end of the node's log.
type logbook struct {
	mu sync.Mutex
	b  []byte
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b = append(l.b, p...); len(l.b) > 4<<20 {
		l.b = append([]byte(nil), l.b[2<<20:]...)
	}
	return len(p), nil
}

func (l *logbook) find(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.b) {
		if bytes.Contains(line, []byte(text)) {
			return fmt.Sprintf("%.500s", line)
		}
	}
	return ""
}

// hs256 is a token whose MAC has the public key for its secret.
func hs256(secret []byte, claims string) string {
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT","kid":"k1"}`)) + "." + enc.EncodeToString([]byte(claims))
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(signed))
	return signed + "." + enc.EncodeToString(h.Sum(nil))
}
