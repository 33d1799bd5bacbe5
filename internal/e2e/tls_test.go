//go:build unix

package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// shield is what a cluster needs that is closed to strangers: certificates, keys of
// gossip, and tokens, all made with the commands an operator uses.
type shield struct {
	c    *cluster
	dir  string
	tls  *tls.Config
	root string // token of a supervisor
	app  string // token of tenant acme
}

// newShielded starts n nodes on loopback with TLS and tokens.
func newShielded(t testing.TB, n int) *cluster {
	t.Helper()
	c := prepare(t, n, false, func(int) []string { return nil }, nil)
	s := &shield{c: c, dir: t.TempDir()}
	c.shield = s
	s.run("cert", "ca", "--network", "127.0.0.0/8")
	for _, m := range c.members {
		s.run("cert", "node", "--id", m.name, "--host", m.host)
	}
	s.run("token", "keygen", "--key", "signing.pem", "--auth-keys", "auth-keys.json")
	s.root = s.run("token", "create", "--key", "signing.pem", "--tenant", "*", "--access", "admin")
	s.app = s.run("token", "create", "--key", "signing.pem", "--tenant", "acme", "--access", "rw")
	s.put("root.token", s.root)
	s.put("gossip.keys", gossipKey('a'))
	var err error
	if s.tls, err = client.LoadTLS(s.path("ca.pem"), "", ""); err != nil {
		t.Fatal(err)
	}
	c.start()
	return c
}

// gossipKey is 32 bytes in base64.
func gossipKey(c byte) string { return strings.Repeat(string(c), 43) + "=\n" }

func (s *shield) path(name string) string { return filepath.Join(s.dir, name) }

func (s *shield) put(name, content string) {
	s.c.t.Helper()
	if err := os.WriteFile(s.path(name)+".new", []byte(content), 0o600); err != nil {
		s.c.t.Fatal(err)
	}
	if err := os.Rename(s.path(name)+".new", s.path(name)); err != nil {
		s.c.t.Fatal(err)
	}
}

// run runs a command in the directory of the shield.
func (s *shield) run(args ...string) string {
	s.c.t.Helper()
	cmd := exec.CommandContext(s.c.t.Context(), binary, args...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.c.t.Fatalf("facetd %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (s *shield) args(m *member) []string {
	own := s.path(m.name + ".pem")
	return []string{"--auth-keys", s.path("auth-keys.json"), "--tls-cert", own, "--tls-ca", s.path("ca.pem"),
		"--peer-cert", own, "--peer-ca", s.path("ca.pem"), "--gossip-keys", s.path("gossip.keys")}
}

// http is a client that follows redirects, as curl -L --oauth2-bearer does.
func (s *shield) http(tok string) *http.Client {
	tr := &http.Transport{TLSClientConfig: s.tls.Clone(), DisableKeepAlives: true, ForceAttemptHTTP2: true}
	return &http.Client{Timeout: patience, Transport: bearing{tr, tok}}
}

type bearing struct {
	http.RoundTripper
	token string
}

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

func post(c *http.Client, url, body string) (status int, out string, err error) {
	res, err := c.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, string(raw), err
}

// TestEverythingEncrypted runs three nodes with TLS on every port, keys of gossip and
// tokens, and reaches a facet through each of them with everything that speaks to
// facetd. Then the certificates are exchanged, and a stranger knocks.
func TestEverythingEncrypted(t *testing.T) {
	c := newShielded(t, 3)
	s := c.shield
	cl := c.dial(client.Options{TLS: s.tls, Token: s.app, Idempotent: true})
	f, err := cl.Facet("acme/notes")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Exec(t.Context(), "CREATE TABLE t (who TEXT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	web := s.http(s.app)
	writes := 0
	// A node may be slow, and lose a facet: what was not done is done again, once.
	everywhere := func(when string) {
		t.Helper()
		for _, m := range c.members {
			// One endpoint: what it does not own it sends the client to.
			one, err := client.Open(t.Context(), []string{m.url()}, client.Options{TLS: s.tls, Token: s.app, DialTimeout: 20 * time.Second, Idempotent: true})
			if err != nil {
				t.Fatalf("%s, the SDK at %s: %v", when, m.name, err)
			}
			f, err := one.Facet("acme/notes")
			if err == nil {
				_, err = f.Exec(t.Context(), "INSERT INTO t VALUES (?)", fmt.Sprint("sdk ", writes))
			}
			if one.Close(); err != nil {
				t.Errorf("%s, the SDK at %s: %v", when, m.name, err)
			}
			insert := func(who string) string { return fmt.Sprintf("INSERT OR IGNORE INTO t VALUES ('%s %d')", who, writes) }
			for path, body := range map[string]string{
				"exec":        `{"sql":"` + insert("http") + `"}`,
				"v3/pipeline": `{"requests":[{"type":"execute","stmt":{"sql":"` + insert("hrana") + `"}},{"type":"close"}]}`,
			} {
				c.until(fmt.Sprintf("%s, %s at %s", when, path, m.name), func() error {
					status, out, err := post(web, m.url()+"/v1/db/acme/notes/"+path, body)
					if err == nil && (status != http.StatusOK || strings.Contains(out, `"error"`)) {
						err = fmt.Errorf("%d %s", status, out)
					}
					return err
				})
			}
			writes += 3
		}
		var n int
		if err := f.QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != writes {
			t.Errorf("%s: %d rows, want %d: %v", when, n, writes, err)
		}
	}
	everywhere("at first")
	for _, m := range c.members {
		// The stock client of libSQL, and the commands.
		if out, err := facetd(t, "", "sql", "--server", m.url(), "--ca", s.path("ca.pem"), "--token", s.app, "acme/notes", "SELECT 'seen'"); err != nil || !strings.Contains(out, "seen") {
			t.Errorf("sql at %s: %v: %s", m.name, err, out)
		}
	}
	s.libsql(c.members)
	if out := s.run("status", "--server", c.members[0].url(), "--ca", "ca.pem", "--token-file", "root.token"); strings.Count(out, "https://"+c.subnet) != 3 {
		t.Errorf("status: %s", out)
	}

	// Who speaks plainly, to a port that does not, is told so.
	if _, err := client.Open(t.Context(), []string{"http://" + c.members[0].api()}, client.Options{Token: s.app}); !errors.Is(err, facet.ErrBadRequest) || !strings.Contains(err.Error(), "write its address as https://") {
		t.Errorf("the SDK in the clear: %v", err)
	}
	if status, out, err := post(web, "http://"+c.members[0].api()+"/v1/db/acme/notes/exec", "SELECT 1"); err != nil || status != http.StatusBadRequest || !strings.Contains(out, "HTTPS") {
		t.Errorf("HTTP in the clear: %d %s %v", status, out, err)
	}
	if status, _, err := post(s.http("x"), c.members[0].url()+"/v1/db/acme/notes/exec", "SELECT 1"); err != nil || status != http.StatusUnauthorized {
		t.Errorf("with a wrong token: %d %v", status, err)
	}

	s.strangers()

	// Everybody gets another certificate and another key of gossip; nobody is restarted.
	s.put("gossip.keys", gossipKey('a')+gossipKey('b'))
	s.taken("gossip")
	s.put("gossip.keys", gossipKey('b')+gossipKey('a'))
	s.taken("gossip")
	s.put("gossip.keys", gossipKey('b'))
	s.taken("gossip")
	for _, m := range c.members {
		s.run("cert", "node", "--id", m.name, "--host", m.host, "--expires", "48h", "--replace")
	}
	s.taken("api")
	s.taken("peer")
	everywhere("with other certificates")
	for _, m := range c.members {
		if b, err := os.ReadFile(m.log.Name()); err != nil || strings.Count(string(b), "a certificate ends soon") < 2 {
			t.Errorf("%s does not say that its certificates end within two days: %v", m.name, err)
		}
	}
	// A node that was away comes back.
	last := c.members[2]
	last.term()
	last.launch()
	last.ready()
	everywhere("after a restart")
}

// taken waits until every node has taken up what its files hold: it says so, once for
// each change.
func (s *shield) taken(what string) {
	s.c.t.Helper()
	for _, m := range s.c.members {
		m.taken++
		s.c.until(fmt.Sprintf("%s takes up %s", m.name, what), func() error {
			b, err := os.ReadFile(m.log.Name())
			if err == nil && strings.Count(string(b), `action="change credentials"`) < m.taken {
				err = errors.New("not yet")
			}
			return err
		})
	}
}

// libsql runs the stock client for Go at each node. It knows the CA as every program of
// this machine would.
func (s *shield) libsql(members []*member) {
	t := s.c.t
	t.Helper()
	if testing.Short() {
		return
	}
	dir := filepath.Join(t.TempDir(), "libsql")
	if err := os.CopyFS(dir, os.DirFS("../../node/hrana/testdata/libsql-go")); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		cmd := exec.CommandContext(t.Context(), "go", "run", "-mod=readonly", ".", m.url()+"/v1/db/acme/go-"+m.name+"/?authToken="+s.app)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "SSL_CERT_FILE="+s.path("ca.pem"), "SSL_CERT_DIR="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("libSQL at %s: %v\n%s", m.name, err, out)
		}
	}
}

// strangers has nodes knock that must not come in.
func (s *shield) strangers() {
	t := s.c.t
	t.Helper()
	s.run("cert", "ca", "--out", "other.pem", "--key-out", "other.key")
	s.run("cert", "node", "--id", "n9", "--host", "127.0.0.1", "--ca", "other.pem", "--ca-key", "other.key", "--out", "n9-other.pem")
	s.run("cert", "node", "--id", "n9", "--host", "127.0.0.1")
	s.put("other.keys", gossipKey('c'))
	host := s.c.subnet + "99"
	at := func(port string) string { return net.JoinHostPort(host, port) }
	for name, args := range map[string][]string{
		"no certificate":        {"--gossip-keys", s.path("gossip.keys")},
		"another CA":            {"--gossip-keys", s.path("gossip.keys"), "--peer-cert", s.path("n9-other.pem"), "--peer-ca", s.path("other.pem")},
		"another key of gossip": {"--gossip-keys", s.path("other.keys"), "--peer-cert", s.path("n9.pem"), "--peer-ca", s.path("ca.pem")},
	} { // the log of who refuses it is rationed, so this takes some seconds
		cmd := exec.Command(binary, append([]string{"serve", "--insecure", "--node-id", "n9", "--data", filepath.Join(t.TempDir(), "n9"),
			"--listen", at(apiPort), "--peer-listen", at(peerPort), "--gossip-listen", at(gossipPort),
			"--join", net.JoinHostPort(s.c.members[0].host, gossipPort)}, args...)...)
		var said output
		cmd.Stdout, cmd.Stderr = &said, &said
		p := &process{cmd: cmd, addr: at(apiPort), done: make(chan error, 1)}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { p.done <- cmd.Wait() }()
		t.Cleanup(p.kill)
		// It knocks a few times, and is told so by those who hear it.
		refused := func() (n int) {
			for _, m := range s.c.members {
				if b, err := os.ReadFile(m.log.Name()); err == nil {
					n += strings.Count(string(b), "connection to the peer port refused") + strings.Count(string(b), "gossip alarm")
				}
			}
			return n
		}
		before := refused()
		s.c.until("a node with "+name+" is refused", func() error {
			if strings.Contains(said.String(), "node is ready") {
				t.Fatalf("a node with %s came in", name)
			}
			select {
			case err := <-p.done:
				p.done <- err
				t.Fatalf("a node with %s ended: %v\n%s", name, err, said.String())
			default:
			}
			if refused() == before {
				return errors.New("nobody says so")
			}
			return nil
		})
		p.kill()
		if strings.Contains(said.String(), "node is ready") {
			t.Errorf("a node with %s came in", name)
		}
	}
	// One that takes the certificate of another is told at once.
	out, err := facetd(t.(*testing.T), "", "serve", "--insecure", "--node-id", "n9", "--data", filepath.Join(t.TempDir(), "n9"),
		"--listen", at(apiPort), "--peer-listen", at(peerPort), "--gossip-listen", at(gossipPort), "--join", at(gossipPort),
		"--gossip-keys", s.path("gossip.keys"), "--peer-cert", s.path("n1.pem"), "--peer-ca", s.path("ca.pem"))
	if err == nil || !strings.Contains(out, "the certificate is of node n1, not of node n9") {
		t.Errorf("with the certificate of n1: %v\n%s", err, out)
	}
}
