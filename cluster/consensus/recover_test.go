package consensus

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
)

// TestRecover loses two voters of three, recovers the third by force and lets
// the others join anew, all but one, which comes back as it was.
func TestRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		l := f.form(3)
		id := l.node.ClusterID()
		for range 20 {
			if err := f.propose(f.follower(), "c"+time.Now().String(), time.Second); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		want := len(l.ledger.all())
		for _, n := range names(3) {
			f.crash(n)
		}
		// The dry run changes nothing, and tells which survivor has most.
		look := func(n cluster.NodeID, dry bool) Recovery {
			r, err := Recover(RecoverConfig{ID: n, Memory: f.boxes[n].mem, StateMachine: &ledger{}, DryRun: dry})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		for range 2 {
			r := look("n1", true)
			if r.Cluster != id || r.Generation != 1 || len(r.Members) != 3 || r.LastIndex < uint64(want) || !strings.Contains(r.String(), "would become the only voter of generation 1") {
				t.Errorf("dry run: %+v\n%v", r, r.String())
			}
		}
		if r := look("n1", false); r.Newer(&r) || !strings.Contains(r.String(), "was made the only voter") {
			t.Errorf("%v", r.String())
		}
		b := f.start("n1")
		f.leader(time.Second)
		if b.node.Generation() != 1 || b.node.ClusterID() != id || len(b.ledger.all()) != want {
			t.Errorf("generation %d, cluster %v, %d commands, want %d", b.node.Generation(), b.node.ClusterID(), len(b.ledger.all()), want)
		}
		// One comes back as it was: it finds out and ends, rather than meeting
		// the other of its kind.
		old := f.start("n2")
		f.see()
		f.until(20*time.Second, "the one left behind ends", func() bool {
			select {
			case err := <-old.fatal:
				return errors.Is(err, ErrLeftBehind)
			default:
				return false
			}
		})
		f.crash("n2")
		// Joined anew, both are members and then voters of the new generation.
		for _, n := range []cluster.NodeID{"n2", "n3"} {
			f.boxes[n].mem = NewMemory()
			f.start(n, func(c *Config) { c.Expect = 3 })
		}
		f.see()
		f.until(time.Minute, "three voters", func() bool { return f.leader(10*time.Second).node.Stats().Voters == 3 })
		for _, b := range f.up() {
			if b.node.Generation() != 1 {
				t.Errorf("%s is of generation %d", b.id, b.node.Generation())
			}
		}
		f.check()
		// It can be done again.
		for _, n := range names(3) {
			f.crash(n)
		}
		if r := look("n3", false); r.Generation != 2 {
			t.Errorf("generation %d after the second recovery", r.Generation)
		}
		f.start("n3")
		f.check()
	})
}

func TestRecoverRefuses(t *testing.T) {
	if _, err := Recover(RecoverConfig{ID: "n1", Memory: NewMemory(), StateMachine: &ledger{}}); err == nil || !strings.Contains(err.Error(), "nothing to recover") {
		t.Errorf("an empty log: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "raft")
	if _, err := Recover(RecoverConfig{ID: "n1", Dir: dir, StateMachine: &ledger{}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := SetAside(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("set no directory aside: %v", err)
	}
	n := open(t, Config{Dir: dir, StateMachine: &ledger{}, Bootstrap: true, SnapshotBytes: 300})
	lead(t, n)
	for range 20 {
		propose(t, n, "0123456789")
	}
	if _, err := SetAside(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("set the log of a running node aside: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	// One more that no snapshot holds.
	n = open(t, Config{Dir: dir, StateMachine: &ledger{}})
	lead(t, n)
	propose(t, n, "last")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Recover(RecoverConfig{ID: "n2", Dir: dir, StateMachine: &ledger{}}); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("another node's log: %v", err)
	}
	// An entry that cannot be applied ends a recovery before it changed anything.
	l := &ledger{}
	l.fail.Store(true)
	if _, err := Recover(RecoverConfig{ID: "n1", Dir: dir, StateMachine: l}); !errors.Is(err, ErrFailed) {
		t.Errorf("a log that cannot be applied: %v", err)
	}
	r, err := Recover(RecoverConfig{ID: "n1", Dir: dir, StateMachine: &ledger{}})
	if err != nil || r.LastIndex < 20 {
		t.Errorf("%+v, %v", r, err)
	}
	l = &ledger{}
	n = open(t, Config{Dir: dir, StateMachine: l})
	lead(t, n)
	if len(l.all()) != 21 {
		t.Errorf("%d commands", len(l.all()))
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	var aside []string
	for range 2 {
		to, err := SetAside(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(to, logFile)); err != nil || slices.Contains(aside, to) {
			t.Errorf("%s: %v", to, err)
		}
		aside = append(aside, to)
		n := open(t, Config{Dir: dir, StateMachine: &ledger{}, Bootstrap: true})
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
