package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// long bounds every wait of the tests: more than anything takes on a loaded machine.
const long = 2 * time.Minute

// startNode builds facetd and starts it with the two commands of the package comment. It
// gives the URL and the file with the signing key.
func startNode(t *testing.T) (url, key string) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "facetd")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
	}
	run("go", "build", "-o", binary, "../../cmd/facetd")
	key = filepath.Join(dir, "signing.pem")
	keys := filepath.Join(dir, "auth-keys.json")
	run(binary, "token", "keygen", "--key", key, "--auth-keys", keys)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	node := exec.Command(binary, "serve", "--node-id", "n1", "--data", filepath.Join(dir, "n1"), "--listen", addr, "--auth-keys", keys)
	node.Stdout, node.Stderr = log, log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Kill() // it may have ended
		_ = node.Wait()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("the node said:\n%s", said)
		}
	})
	url = "http://" + addr
	until(t, "the node is ready", func() error {
		res, err := http.Get(url + "/readyz")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	return url, key
}

// until asks again and again until there is no error.
func until(t *testing.T, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(long)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("wait until %s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond): // a poll of another process, bounded by the deadline
		}
	}
}

// site is a platform with a node, as its users meet it.
type site struct {
	t   *testing.T
	p   *platform
	url string // of the platform
	db  string // of the node
}

func newSite(t *testing.T, life time.Duration, freezeAt uint64) *site {
	t.Helper()
	db, key := startNode(t)
	sign, err := readSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	p, err := newPlatform(ctx, config{servers: []string{db}, sign: sign, operatorKey: "secret", tokenLife: life, lookEvery: 100 * time.Millisecond, freezeAt: freezeAt})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	srv := httptest.NewServer(p.handler())
	t.Cleanup(srv.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return &site{t: t, p: p, url: srv.URL, db: db}
}

// ask sends a request to the platform, or to the node.
func (s *site) ask(method, url, key, body string) (status int, answer string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(raw))
}

// do is ask of what must succeed.
func (s *site) do(method, path, key, body string, into any) {
	s.t.Helper()
	status, answer := s.ask(method, s.url+path, key, body)
	if status != http.StatusOK {
		s.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(answer), into); err != nil {
			s.t.Fatalf("%s: %v", answer, err)
		}
	}
}

func (s *site) customer(tenant, plan string) (key string) {
	s.t.Helper()
	var out struct{ Key string }
	s.do("PUT", "/customers/"+tenant, "secret", fmt.Sprintf(`{"plan":%q}`, plan), &out)
	return out.Key
}

func (s *site) token(key, app string) (tok, url string) {
	s.t.Helper()
	var out struct{ Token, URL string }
	s.do("POST", "/apps/"+app+"/token", key, "", &out)
	return out.Token, out.URL
}

// guestbook is an app that does what it should, and lets visitors try what it should not.
const guestbook = `{
	"setup": ["CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, who TEXT)"],
	"routes": {
		"sign": {"facet": "guestbook.main", "sql": "INSERT INTO entry (who) VALUES (:who)", "params": ["who"]},
		"list": {"facet": "guestbook.main", "sql": "SELECT id, who FROM entry ORDER BY id"},
		"peek": {"facet": ":db", "sql": "SELECT * FROM entry"}
	}
}`

// TestIsolation: an app does its work, and by no name and through no door does it reach
// what is another's, or learn whether it is there.
func TestIsolation(t *testing.T) {
	s := newSite(t, time.Minute, 1000)
	acme, zeta := s.customer("acme", "free"), s.customer("zeta", "free")
	s.do("PUT", "/apps/guestbook", acme, guestbook, nil)
	shop := strings.ReplaceAll(guestbook, "guestbook.main", "shop.main")
	s.do("PUT", "/apps/shop", acme, shop, nil) // another app of the same customer
	s.do("PUT", "/apps/shop", zeta, shop, nil)
	for _, path := range []string{"acme/guestbook", "acme/shop", "zeta/shop"} {
		s.do("POST", "/run/"+path+"/sign", "", fmt.Sprintf(`{"who":%q}`, path), nil)
		var list result
		s.do("POST", "/run/"+path+"/list", "", "", &list)
		if fmt.Sprint(list.Rows) != fmt.Sprintf("[[1 %s]]", path) {
			t.Errorf("%s has %v", path, list.Rows)
		}
	}
	s.do("POST", "/run/acme/guestbook/peek", "", `{"db":"guestbook.other"}`, nil) // its own, made by this

	// Through the platform every name that is not the app's is answered alike.
	for _, name := range []string{
		"shop.main", "guestbook", "guestbookx.main", "registry", "no.such", "zeta/shop.main", "../zeta/shop.main",
		"guestbook.main/../../zeta/shop.main", "platform/registry", "guestbook.*", "*", "", ".", "..", "guestbook.main\x00", strings.Repeat("x", 500),
	} {
		body, _ := json.Marshal(map[string]string{"db": name})
		status, answer := s.ask("POST", s.url+"/run/acme/guestbook/peek", "", string(body))
		if status != http.StatusNotFound || answer != `{"error":"there is no such database"}` {
			t.Errorf("the name %.40q: %d %s", name, status, answer)
		}
	}
	for _, sql := range []string{"ATTACH 'zeta.sqlite' AS z", "SELECT load_extension('x')", "VACUUM INTO 'x'"} {
		prog, _ := json.Marshal(program{Routes: map[string]route{"go": {SQL: sql, Facet: "guestbook.main"}}})
		s.do("PUT", "/apps/guestbook", acme, string(prog), nil)
		if status, answer := s.ask("POST", s.url+"/run/acme/guestbook/go", "", ""); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", sql, status, answer)
		}
	}

	// With the token of the app, at the node itself: what is there and what is not have one answer.
	tok, url := s.token(acme, "guestbook")
	if status, answer := s.ask("POST", url+"exec", tok, "SELECT who FROM entry"); status != http.StatusOK || !strings.Contains(answer, "acme/guestbook") {
		t.Errorf("its own facet: %d %s", status, answer)
	}
	for _, there := range []string{"zeta/shop.main", "acme/shop.main", "platform/registry"} {
		tenant, _, _ := strings.Cut(there, "/")
		missing := tenant + "/missing"
		for _, door := range []struct{ method, path, body string }{
			{"POST", "/v1/db/%s/exec", "SELECT * FROM entry"},
			{"POST", "/v1/db/%s/exec", "CREATE TABLE mine (x)"},
			{"POST", "/v1/db/%s/v3/pipeline", `{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}}]}`},
			{"GET", "/v1/facets/%s", ""},
			{"DELETE", "/v1/facets/%s", ""},
			{"GET", "/v1/facets/%s/export", ""},
			{"POST", "/v1/facets/%s/clone", `{"to":"acme/guestbook.stolen"}`},
			{"POST", "/v1/facets/%s/move", `{"to":"n1"}`},
		} {
			status, answer := s.ask(door.method, s.db+fmt.Sprintf(door.path, there), tok, door.body)
			status2, answer2 := s.ask(door.method, s.db+fmt.Sprintf(door.path, missing), tok, door.body)
			if status == http.StatusOK || status != status2 || strings.ReplaceAll(answer, there, missing) != answer2 {
				t.Errorf("%s %s %s:\nthere   %d %s\nmissing %d %s", door.method, door.path, there, status, answer, status2, answer2)
			}
		}
	}
	if status, answer := s.ask("PATCH", s.db+"/v1/tenants/acme", tok, `{"facets":"none"}`); status == http.StatusOK {
		t.Errorf("an app sets its own quota: %s", answer)
	}
	if status, answer := s.ask("POST", s.url+"/apps/guestbook/token", zeta, ""); status != http.StatusNotFound {
		t.Errorf("a token for another's app: %d %s", status, answer)
	}
	for _, key := range []string{"", "wrong", acme} {
		if status, _ := s.ask("PUT", s.url+"/customers/acme", key, `{"plan":"paid"}`); status != http.StatusUnauthorized {
			t.Errorf("the key %q makes customers: %d", key, status)
		}
	}
}

// TestTokensRenewed: an app works longer than its tokens are good, and a token that has
// ended opens nothing.
func TestTokensRenewed(t *testing.T) {
	s := newSite(t, 6*time.Second, 1000)
	acme := s.customer("acme", "free")
	s.do("PUT", "/apps/guestbook", acme, guestbook, nil)
	s.do("POST", "/run/acme/guestbook/sign", "", `{"who":"first"}`, nil)
	expires := func() time.Time {
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		return s.p.live["acme"]
	}
	first, n := expires(), 1
	until(t, "the app has another token", func() error {
		s.do("POST", "/run/acme/guestbook/sign", "", `{"who":"again"}`, nil) // none fails meanwhile
		n++
		if !expires().After(first) {
			return errors.New("it has the first")
		}
		return nil
	})
	var list result
	s.do("POST", "/run/acme/guestbook/list", "", "", &list)
	if len(list.Rows) != n {
		t.Errorf("%d rows, %d were acknowledged", len(list.Rows), n)
	}
	ended, _, err := s.p.cfg.sign.token(appID{"acme", "guestbook"}.claims(), -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := s.ask("POST", s.db+"/v1/db/acme/guestbook.main/exec", ended, "SELECT 1"); status != http.StatusUnauthorized {
		t.Errorf("a token that has ended: %d %s", status, answer)
	}
}

// TestFreeze: a tenant that asks as fast as it can is held to its rate, then frozen by the
// platform; its neighbour is served, and it comes back as it was when it is unfrozen.
func TestFreeze(t *testing.T) {
	s := newSite(t, time.Minute, 50)
	acme, zeta := s.customer("acme", "free"), s.customer("zeta", "free")
	for tenant, key := range map[string]string{"acme": acme, "zeta": zeta} {
		s.do("PUT", "/apps/guestbook", key, guestbook, nil)
		s.do("POST", "/run/"+tenant+"/guestbook/sign", "", `{"who":"me"}`, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer cancel()
	group.Go(func() { s.p.watch(ctx) })

	// The app has its token, and does not wait when it is told to.
	tok, _ := s.token(acme, "guestbook")
	wild, err := client.Open(ctx, []string{s.db}, client.Options{Token: tok, RetryFor: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer wild.Close()
	book, err := wild.Facet("acme/guestbook.main")
	if err != nil {
		t.Fatal(err)
	}
	throttled, frozen := false, false
	deadline := time.Now().Add(long)
	for !frozen && time.Now().Before(deadline) {
		_, err := book.ReadOnly().Exec(ctx, "SELECT 1")
		throttled = throttled || errors.Is(err, facet.ErrThrottled)
		frozen = errors.Is(err, facet.ErrFrozen)
	}
	if !throttled || !frozen {
		t.Fatalf("throttled %v, frozen %v", throttled, frozen)
	}
	if status, answer := s.ask("POST", s.url+"/run/acme/guestbook/list", "", ""); status != http.StatusForbidden || !strings.Contains(answer, "frozen") {
		t.Errorf("a frozen tenant: %d %s", status, answer)
	}
	s.do("POST", "/run/zeta/guestbook/sign", "", `{"who":"neighbour"}`, nil)
	var told client.Tenant
	s.do("GET", "/customers/acme", "secret", "", &told)
	if told.Frozen != "all" || told.Limits.RequestsPerSecond != plans["free"]["requests_per_second"] {
		t.Errorf("told %+v", told)
	}

	s.do("DELETE", "/customers/acme/freeze", "secret", "", nil)
	var list result
	until(t, "the tenant has worked off its rate", func() error {
		status, answer := s.ask("POST", s.url+"/run/acme/guestbook/list", "", "")
		if status != http.StatusOK {
			return fmt.Errorf("%d %s", status, answer)
		}
		return json.Unmarshal([]byte(answer), &list)
	})
	if fmt.Sprint(list.Rows) != "[[1 me]]" {
		t.Errorf("after the freeze it has %v", list.Rows)
	}

	s.do("PUT", "/customers/zeta/freeze", "secret", "", nil) // by hand
	if status, answer := s.ask("POST", s.url+"/run/zeta/guestbook/list", "", ""); status != http.StatusForbidden {
		t.Errorf("frozen by hand: %d %s", status, answer)
	}
}

// TestPool: apps that are in use keep their places, the one unused for longest gives its
// own away, and no app has more requests under way than it may.
func TestPool(t *testing.T) {
	var made int
	p := pool{open: func(context.Context, appID) (*client.Client, Databases, error) { made++; return nil, databases{}, nil }}
	id := func(i int) appID { return appID{"acme", fmt.Sprint(i)} }
	none := func(Databases) error { return nil }
	err := p.use(t.Context(), id(0), func(Databases) error { // in use all the while
		for i := 1; i <= maxOpen; i++ {
			if err := p.use(t.Context(), id(i), none); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || made != maxOpen+1 || len(p.list) != maxOpen || p.list[id(0)] == nil {
		t.Fatalf("%v: %d were opened, %d are, the one in use: %v", err, made, len(p.list), p.list[id(0)])
	}
	var nest func(depth int) error
	nest = func(depth int) error {
		return p.use(t.Context(), id(0), func(Databases) error { return nest(depth + 1) })
	}
	if err := nest(0); !errors.Is(err, errBusyApp) {
		t.Errorf("requests without end: %v", err)
	}
	if o := p.list[id(0)]; o.users != 0 {
		t.Errorf("%d places were not given back", o.users)
	}
	p.open = func(context.Context, appID) (*client.Client, Databases, error) { return nil, nil, errNoApp }
	if err := p.use(t.Context(), id(-1), none); !errors.Is(err, errNoApp) || p.list[id(-1)] != nil {
		t.Errorf("an app that did not open: %v, kept %v", err, p.list[id(-1)])
	}
}
