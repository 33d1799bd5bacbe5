//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// build makes a facetd of a certain version that speaks other versions of the protocols.
func build(t testing.TB, version, tags string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "facetd-"+version)
	cmd := exec.Command("go", "build", "-tags", tags, "-ldflags", "-X main.version="+version, "-o", out, "../../cmd/facetd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	return out
}

// TestUpgrade replaces the nodes of a cluster under load, one after the other, by those of
// a release that speaks one more version of the protocols, and back: no request may fail,
// those without a key neither. A release that speaks none of the cluster's versions is
// told so, as a node and as a client.
func TestUpgrade(t *testing.T) {
	next, later := build(t, "2.0.0", "facetd_next"), build(t, "3.0.0", "facetd_later")
	s := newSite(t, false, short)
	s.load.calm.Store(true)
	old := s.members[0].binary
	for _, to := range []struct{ binary, version string }{{next, "2.0.0"}, {old, ""}} {
		for _, m := range s.alive() {
			m.term()
			s.load.progress() // with nodes of two versions, or one fewer
			m.binary = to.binary
			m.launch()
			m.ready()
			s.load.progress()
		}
		s.until("all nodes tell their version", func() error {
			for _, n := range s.status(s.load.probe).Nodes {
				if n.State != "alive" || (n.Version == "2.0.0") != (to.version == "2.0.0") {
					return fmt.Errorf("%s is %s and runs %s", n.ID, n.State, n.Version)
				}
			}
			return nil
		})
	}
	t.Run("clients", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if out, err := exec.CommandContext(ctx, next, "sql", "--server", "http://"+s.members[0].api(), "acme/upgrade", "SELECT 42").CombinedOutput(); err != nil || !strings.Contains(string(out), "42") {
			t.Errorf("a client of the next release: %v\n%s", err, out)
		}
		out, err := exec.CommandContext(ctx, later, "sql", "--server", "http://"+s.members[0].api(), "acme/upgrade", "SELECT 42").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "version_mismatch") || !strings.Contains(string(out), "upgrade the older one") {
			t.Errorf("a client of a release that is too far away: %v\n%s", err, out)
		}
	})
	t.Run("node", func(t *testing.T) {
		m := s.add(filepath.Dir(s.members[0].log.Name()), false)
		m.binary = later
		m.launch()
		s.until("a node of a release that is too far away says so", func() error {
			log, err := os.ReadFile(m.log.Name())
			if err == nil && !strings.Contains(string(log), "no protocol version in common") {
				err = errors.New("its log says: " + m.tail())
			}
			return err
		})
		m.kill()
		s.members = s.members[:len(s.members)-1]
		m.log.Close()
		for _, n := range s.status(s.load.probe).Nodes {
			if n.ID == m.name {
				t.Errorf("it was let in: %+v", n)
			}
		}
	})
	s.load.finish()
}
