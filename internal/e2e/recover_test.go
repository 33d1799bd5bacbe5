//go:build unix

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// TestFacetRecover is what docs/OPERATIONS.md tells of lost copies: of three nodes two
// are lost with their disks, the placement log is recovered on the third, two new nodes
// come, and each facet goes on from the copy that is left (R25). One lost node is taken
// out; the other one turns up again, and changes nothing.
func TestFacetRecover(t *testing.T) {
	c := newCluster(t, 3, false)
	n1, n2, n3 := c.members[0], c.members[1], c.members[2]
	cl := c.dial(client.Options{Idempotent: true})
	names := []string{"acme/notes", "acme/other"}
	var facets []*client.Facet
	for _, name := range names {
		f, err := cl.Facet(name)
		if err != nil {
			t.Fatal(err)
		}
		facets = append(facets, f)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := f.Script(ctx, "CREATE TABLE note (i INTEGER NOT NULL)"); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if _, err := f.Exec(ctx, "INSERT INTO note VALUES (?)", i); err != nil {
				t.Fatal(err)
			}
		}
		// The owner is one of those that will be lost.
		if _, err := f.Move(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
	}
	cli := func(at *member, args ...string) (string, error) {
		t.Helper()
		out, err := facetd(t, "", append(args, "--server", "http://"+at.api())...)
		t.Logf("facetd %s\n%s", strings.Join(args, " "), out)
		return out, err
	}
	recoverFrom := func(f *client.Facet, dry bool) (client.Recovery, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return f.Recover(ctx, client.RecoverRequest{From: "n3", DryRun: dry})
	}
	old := make([]string, len(names))
	for i, f := range facets {
		c.until("n3 has all of "+names[i], func() error {
			look, err := recoverFrom(f, true)
			if err != nil {
				return err
			}
			if old[i] = look.Incarnation; look.Refused == "" {
				t.Errorf("%s may be recovered by force although all is there", names[i])
			}
			for _, x := range look.Copies {
				if x.Position != look.Position {
					return fmt.Errorf("%s is at %s, n3 at %s", x.Node, x.Position, look.Position)
				}
			}
			return nil
		})
	}
	if out, err := cli(n1, "facet", "recover", "--from", "n3", "--yes", names[0]); err == nil || !strings.Contains(out, "nothing is to be forced") {
		t.Errorf("forced without need: %v, %s", err, out)
	}

	// Two nodes are lost, and with them the placement log's majority.
	killAll([]*member{n1, n2})
	aside := n1.dir + ".aside"
	if err := os.Rename(n1.dir, aside); err != nil {
		t.Fatal(err)
	}
	n2.wipe()
	n1.removed, n2.removed = true, true // for heal and endpoints
	n3.term()
	if out, err := facetd(t, "", "recover", "--data", n3.dir); err != nil {
		t.Fatalf("recover the placement log: %v, %s", err, out)
	}
	n3.launch()
	n3.ready()
	if out, err := cli(n3, "facet", "recover", "--from", "n3", "--yes", names[0]); err == nil || !strings.Contains(out, "start or add nodes until 2 do") {
		t.Errorf("with nobody to keep it: %v, %s", err, out)
	}
	n4, n5 := c.join(), c.join()

	for i, f := range facets {
		c.until(names[i]+" is recovered", func() error {
			// n4 sends the command on to n3. Those that came may not be seen by all yet.
			if out, err := cli(n4, "facet", "recover", "--from", "n3", "--yes", names[i]); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		out, err := cli(n5, "facet", "stat", names[i])
		if err != nil || !strings.Contains(out, "LOSSY, recovered from one copy of "+old[i]) {
			t.Errorf("stat: %v, %s", err, out)
		}
		if out, err := cli(n5, "facet", "recover", "--from", "n3", "--yes", names[i]); err != nil || !strings.Contains(out, "was recovered before") {
			t.Errorf("again: %v, %s", err, out)
		}
		counted(t, f, 20)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := f.Exec(ctx, "INSERT INTO note VALUES (20)"); err != nil {
			t.Fatal(err)
		}
	}
	// Nothing names the lost nodes any more, so they can go.
	now := c.dial(client.Options{})
	c.operation(now, client.OperationRequest{Kind: "decommission", Node: "n2"})
	c.operation(now, client.OperationRequest{Kind: "remove", Node: "n2"})

	// The other one comes back with its disk, and the old copies on it.
	if err := os.Rename(aside, n1.dir); err != nil {
		t.Fatal(err)
	}
	if out, err := facetd(t, "", "recover", "--data", n1.dir, "--rejoin"); err != nil {
		t.Fatalf("rejoin: %v, %s", err, out)
	}
	n1.removed = false
	n1.launch()
	n1.ready()
	c.until("n1 has given up its old copies", func() error {
		for _, id := range old {
			if _, err := os.Stat(filepath.Join(n1.dir, "data", "facets", id[:2], id+".db")); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("it keeps %s: %v", id, err)
			}
		}
		return nil
	})
	at, err := client.Open(t.Context(), []string{n1.api()}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	for i, name := range names {
		f, err := at.Facet(name)
		if err != nil {
			t.Fatal(err)
		}
		counted(t, f, 21)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		info, err := f.Stat(ctx)
		if err != nil || info.Incarnation == old[i] || info.Lineage == nil || info.Lineage.Source != old[i] {
			t.Errorf("%s after n1 is back: %+v, %v", name, info, err)
		}
	}
	if _, err := recoverFrom(facets[0], false); err != nil {
		t.Errorf("asked for again: %v", err)
	}
	if info, err := facets[0].Stat(t.Context()); err != nil || info.Lineage == nil || info.Lineage.Source != old[0] {
		t.Errorf("recovered twice: %+v, %v", info, err)
	}
}

// counted wants the facet to hold the numbers from 0 on, each once.
func counted(t *testing.T, f *client.Facet, want int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var rows, different int
	err := f.QueryRow(ctx, "SELECT count(*), count(DISTINCT i) FROM note").Scan(&rows, &different)
	for errors.Is(err, facet.ErrUnavailable) && ctx.Err() == nil {
		err = f.QueryRow(ctx, "SELECT count(*), count(DISTINCT i) FROM note").Scan(&rows, &different)
	}
	if err != nil || rows != want || different != want {
		t.Errorf("%s holds %d rows, %d of them different, want %d: %v", f.Name(), rows, different, want, err)
	}
}
