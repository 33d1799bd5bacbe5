//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/facetd/facetd/client"
)

// TestPlatform runs examples/platform, as it is, against three nodes with TLS and tokens:
// it goes on when the owner of an app's facet is killed. What it promises beyond that is
// tested beside it, with one node.
func TestPlatform(t *testing.T) {
	c := newShielded(t, 3)
	s := c.shield
	example := filepath.Join(t.TempDir(), "platform")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", example, "../../examples/platform").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	addr := freeAddr(t)
	cmd := exec.Command(example, "--server", strings.Join(c.endpoints(), ","), "--ca", s.path("ca.pem"), "--key", s.path("signing.pem"), "--listen", addr)
	cmd.Env = append(os.Environ(), "PLATFORM_OPERATOR_KEY=secret")
	var said output
	cmd.Stdout, cmd.Stderr = &said, &said
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the platform said:\n%s", said.String())
		}
	})
	ask := func(method, path, key, body string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		raw, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, raw)
		}
		return string(raw), err
	}
	until := func(what, method, path, key, body string) (answer string) {
		t.Helper()
		c.until(what, func() (err error) { answer, err = ask(method, path, key, body); return err })
		return answer
	}
	made := until("the platform has a customer", "PUT", "/customers/acme", "secret", `{"plan":"free"}`)
	_, key, _ := strings.Cut(made, `"key":"`)
	key, _, _ = strings.Cut(key, `"`)
	until("the customer has an app", "PUT", "/apps/guestbook", key, `{
		"setup": ["CREATE TABLE IF NOT EXISTS entry (who TEXT PRIMARY KEY)"],
		"routes": {
			"sign": {"facet": "guestbook.main", "sql": "INSERT OR IGNORE INTO entry VALUES (:who)", "params": ["who"]},
			"list": {"facet": "guestbook.main", "sql": "SELECT who FROM entry"}
		}}`)
	until("a visitor signs", "POST", "/run/acme/guestbook/sign", "", `{"who":"tea"}`)

	cl := c.dial(client.Options{TLS: s.tls, Token: s.root})
	c.owner(cl, "acme/guestbook.main").kill()
	until("another visitor signs", "POST", "/run/acme/guestbook/sign", "", `{"who":"coffee"}`)
	list := until("they are listed", "POST", "/run/acme/guestbook/list", "", "")
	if !strings.Contains(list, `[["coffee"],["tea"]]`) && !strings.Contains(list, `[["tea"],["coffee"]]`) {
		t.Errorf("listed: %s", list)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the platform ended: %v", err)
	}
}
