package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
)

func TestForm(t *testing.T) {
	for _, n := range []int{3, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, nil)
			defer f.stopAll()
			start := time.Now()
			l := f.form(n)
			t.Logf("%d nodes have a leader after %v", n, time.Since(start))
			for _, b := range f.up() {
				if b.node.ClusterID() != l.node.ClusterID() || b.node.ClusterID().IsZero() {
					t.Errorf("%s is of cluster %v, %s of %v", b.id, b.node.ClusterID(), l.id, l.node.ClusterID())
				}
				if err := f.propose(b, "hello "+string(b.id), time.Second); err != nil {
					t.Error(err)
				}
			}
			f.check()
			if s := l.node.Stats(); s.Voters != n || s.Members != n {
				t.Errorf("%d voters of %d members", s.Voters, s.Members)
			}
		})
	}
}

// TestCommitIsHeardAtOnce: a node that forwarded a command applies it a round
// trip after the leader, and the others soon after, with nothing following it.
func TestCommitIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(5)
		time.Sleep(10 * time.Second)
		b := f.follower()
		for i := range 5 {
			if err := f.propose(b, fmt.Sprint(i), time.Second); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			f.until(time.Second, "applied where it was proposed", func() bool { return len(b.ledger.all()) == i+1 })
			own := time.Since(start)
			f.until(time.Second, "applied everywhere", func() bool {
				return !slices.ContainsFunc(f.up(), func(o *box) bool { return len(o.ledger.all()) != i+1 })
			})
			if all := time.Since(start); own > 5*time.Millisecond || all > 20*time.Millisecond {
				t.Errorf("applied where it was proposed after %v, everywhere after %v", own, all)
			}
			time.Sleep(3 * time.Second)
		}
		f.check()
	})
}

// TestKillUnderLoad kills and restarts machines, the leader among them, while
// callers propose at every node.
func TestKillUnderLoad(t *testing.T) {
	for _, n := range []int{3, 5} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, func(c *Config) { c.SnapshotBytes, c.Trailing = 2000, 10 })
			defer f.stopAll()
			f.form(n)
			stop := f.load(8, 20*time.Millisecond)
			var worst time.Duration
			for round := range 12 {
				time.Sleep(2 * time.Second)
				victim := f.leader(10 * time.Second)
				if round%3 == 2 {
					victim = f.follower()
				}
				start := time.Now()
				f.crash(victim.id)
				next := f.leader(10 * time.Second)
				if err := f.propose(next, fmt.Sprintf("after %d", round), 5*time.Second); err != nil {
					t.Error(err)
				}
				worst = max(worst, time.Since(start))
				time.Sleep(time.Second)
				f.start(victim.id)
				f.see()
			}
			stop()
			t.Logf("%d nodes: worst time from a kill to the next commit %v; %d acknowledged, %d unknown, %d refused", n, worst, len(f.acked), len(f.maybe), len(f.refused))
			if worst > 1500*time.Millisecond {
				t.Errorf("failover took %v", worst)
			}
			if len(f.acked) < 1000 || len(f.refused) > 0 {
				t.Errorf("%d acknowledged, refused %q", len(f.acked), f.refused)
			}
			f.check()
			if v := f.leader(time.Second).node.Stats().Voters; v != n {
				t.Errorf("%d voters", v)
			}
		})
	}
}

// TestPartitions cuts the network at random: halves, the leader alone, one
// direction only.
func TestPartitions(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 7))
			f := newFleet(t, func(c *Config) { c.SnapshotBytes, c.Trailing = 2000, 10 })
			defer f.stopAll()
			f.form(5)
			f.net.Latency(time.Millisecond, 4*time.Millisecond, 0.005)
			stop := f.load(8, 20*time.Millisecond)
			for range 10 {
				ids := []string{"n1", "n2", "n3", "n4", "n5"}
				rng.Shuffle(5, func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
				switch rng.IntN(4) {
				case 0:
					f.net.Partition(ids[:2], ids[2:])
				case 1:
					l := string(f.leader(20 * time.Second).id)
					f.net.Partition([]string{l}, slices.DeleteFunc(ids, func(s string) bool { return s == l }))
				case 2: // hears and is not heard
					for _, to := range ids[1:] {
						f.net.Cut(ids[0], to)
					}
				case 3: // no majority anywhere
					f.net.Partition(ids[:2], ids[2:4])
				}
				time.Sleep(time.Duration(1+rng.IntN(8)) * time.Second)
				f.net.HealAll()
				time.Sleep(time.Duration(rng.IntN(4)) * time.Second)
			}
			f.net.HealAll()
			f.net.Latency(200*time.Microsecond, 0, 0)
			stop()
			f.check()
			t.Logf("seed %d: %d acknowledged, %d unknown, %d given up with nothing done", seed, len(f.acked), len(f.maybe), len(f.refused))
			if len(f.acked) < 200 {
				t.Errorf("only %d acknowledged", len(f.acked))
			}
		})
	}
}

// TestSnapshotReachesTheLagging keeps a node down until the log it needs is
// gone, and brings it back under load.
func TestSnapshotReachesTheLagging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, func(c *Config) { c.SnapshotBytes, c.Trailing = 1000, 5 })
		defer f.stopAll()
		f.form(3)
		victim := f.follower()
		f.crash(victim.id)
		stop := f.load(4, 20*time.Millisecond)
		f.until(time.Minute, "snapshots", func() bool { return f.leader(time.Second).node.Stats().Snapshots > 3 })
		first, _ := f.leader(time.Second).node.stores.log.FirstIndex()
		if last, _ := f.boxes[victim.id].mem.disk.LastIndex(); first <= last {
			t.Fatalf("the log begins at %d, the victim's ends at %d", first, last)
		}
		b := f.start(victim.id)
		f.until(20*time.Second, "catching up", func() bool { return b.node.Applied()+50 > f.leader(time.Second).node.Applied() })
		stop()
		f.check()
		if s, _ := b.mem.disk.List(); len(s) == 0 {
			t.Error("the victim got no snapshot")
		}
	})
}

// TestTransfer moves leadership on request, under load: nobody notices.
func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		stop := f.load(4, 20*time.Millisecond)
		for range 10 {
			time.Sleep(time.Second)
			l, to := f.leader(time.Second), f.follower()
			start := time.Now()
			if err := l.node.TransferLeadership(t.Context(), to.id); err != nil {
				t.Fatal(err)
			}
			if now := f.leader(time.Second, l.id); now.id != to.id {
				t.Errorf("%s leads, want %s", now.id, to.id)
			}
			if took := time.Since(start); took > 50*time.Millisecond {
				t.Errorf("a transfer took %v", took)
			}
			if err := l.node.TransferLeadership(t.Context(), ""); !errors.Is(err, ErrNotLeader) {
				t.Errorf("transfer by a follower: %v", err)
			}
		}
		l := f.leader(time.Second)
		if err := l.node.TransferLeadership(t.Context(), "n9"); !errors.Is(err, ErrNoMember) {
			t.Errorf("transfer to nobody: %v", err)
		}
		stop()
		if len(f.maybe) > 0 || len(f.refused) > 0 {
			t.Errorf("unknown %v, refused %v", f.maybe, f.refused)
		}
		f.check()
	})
}

// TestStalledDisk hangs the leader's disk: another leads, and the first follows
// once its disk moves again.
func TestStalledDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		l := f.form(3)
		resume := l.mem.Stall()
		defer resume()
		start := time.Now()
		got := make(chan error, 1)
		go func() { got <- f.propose(l, "stuck", time.Minute) }()
		next := f.leader(20*time.Second, l.id)
		if err := f.propose(next, "goes on", time.Second); err != nil {
			t.Error(err)
		}
		t.Logf("another leader after %v", time.Since(start))
		if took := time.Since(start); took > defaultStall+time.Second {
			t.Errorf("another leader after %v", took)
		}
		time.Sleep(20 * time.Second)
		if now, _ := l.node.Leadership(); now.Leading || f.leader(time.Second).id == l.id {
			t.Error("the stalled node leads")
		}
		resume()
		if err := <-got; err != nil && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("the stuck proposal: %v", err)
		}
		f.check()
		if s := l.node.Stats(); s.Asides == 0 {
			t.Error("it did not step aside")
		}
	})
}

// TestProposeAs: what is committed as the leader of a term was committed in it.
func TestProposeAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		l := f.form(3)
		now, _ := l.node.Leadership()
		if now.Since.IsZero() || time.Since(now.Since) < 0 {
			t.Errorf("leads since %v", now.Since)
		}
		r, err := l.node.ProposeAs(t.Context(), now.Term, []byte("a"), []byte("b"))
		if err != nil || len(r) != 2 || string(r[0]) != "1:a" || string(r[1]) != "2:b" {
			t.Errorf("%q, %v", r, err)
		}
		if got := fmt.Sprint(l.ledger.batches); got != "[2]" {
			t.Errorf("entries of %v commands, want one of 2", got)
		}
		if _, err := l.node.ProposeAs(t.Context(), now.Term+1, []byte("c")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("in another term: %v", err)
		}
		if _, err := f.follower().node.ProposeAs(t.Context(), now.Term, []byte("c")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("by a follower: %v", err)
		}
		if _, err := f.follower().node.Accept(t.Context(), "n9", [][]byte{[]byte("c")}); !errors.Is(err, ErrNotLeader) {
			t.Errorf("forwarded to a follower: %v", err)
		}
		// Cut off, the leader commits nothing, and knows it soon.
		f.net.Partition([]string{string(l.id)})
		start := time.Now()
		if _, err := l.node.ProposeAs(t.Context(), now.Term, []byte("d")); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("cut off: %v", err)
		}
		if took := time.Since(start); took > 2*defaultHeartbeat {
			t.Errorf("it took %v to know", took)
		}
		f.net.HealAll()
		f.until(10*time.Second, "a later term", func() bool {
			then, _ := f.leader(10 * time.Second).node.Leadership()
			return then.Term > now.Term
		})
	})
}

// TestForwardedOutcomes: what a caller at a follower is told when the leader
// goes away with its command.
func TestForwardedOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		b := f.follower()
		// Nobody leads: proposals wait, and leave no trace when given up.
		f.net.Partition()
		f.until(5*time.Second, "no leader", func() bool { _, _, ok := b.node.Leader(); return !ok })
		err := f.propose(b, "given up", 2*time.Second)
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without a leader: %v", err)
		}
		done := make(chan error, 1)
		go func() { done <- f.propose(b, "patient", time.Minute) }()
		time.Sleep(5 * time.Second)
		f.net.HealAll()
		if err := <-done; err != nil {
			t.Errorf("once there is a leader: %v", err)
		}
		if err := f.propose(b, "bad", time.Second); !errors.Is(err, ErrInvalid) {
			t.Errorf("an invalid one: %v", err)
		}
		// The leader takes it and cannot answer: nobody knows.
		l := f.leader(10 * time.Second)
		b = f.follower()
		f.net.Cut(string(l.id), string(b.id))
		if err := f.propose(b, "no answer", 300*time.Millisecond); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without an answer: %v", err)
		}
		f.net.HealAll()
		f.check()
		if slices.Contains(b.ledger.all(), "given up") {
			t.Error("a command that was given up with nothing done is there")
		}
	})
}

// TestOneBadCommandSpoilsNobody: the leader cannot read one command of a
// forwarded batch (it is of an older release); the others go through.
func TestOneBadCommandSpoilsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		b := f.follower()
		// Commands gather while nobody leads.
		f.net.Partition()
		f.until(5*time.Second, "no leader", func() bool { _, _, ok := b.node.Leader(); return !ok })
		errs := make(chan error, 10)
		for i := range 10 {
			go func() {
				c := fmt.Sprintf("good %d", i)
				if i == 4 {
					c = "future"
				}
				errs <- f.propose(b, c, time.Minute)
			}()
		}
		for _, o := range f.up() {
			if o.id != b.id {
				o.ledger.old.Store(true)
			}
		}
		f.net.Partition([]string{"n1", "n2", "n3"})
		f.net.HealAll()
		invalid := 0
		for range 10 {
			err := <-errs
			if errors.Is(err, ErrInvalid) {
				invalid++
			} else if err != nil {
				t.Error(err)
			}
		}
		if l := f.leader(time.Second); l.id != b.id && invalid != 1 {
			t.Errorf("%d were invalid, want 1", invalid)
		}
		f.check()
	})
}

// TestGrowAndShrink: a single node becomes a cluster of five, loses some, and
// goes back to three.
func TestGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, func(c *Config) { c.GoneAfter = time.Minute })
		defer f.stopAll()
		l := f.start("n1", func(c *Config) { c.Bootstrap = true })
		if err := l.node.WaitLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
		voters := func(want, members int) func() bool {
			return func() bool {
				s := f.leader(10 * time.Second).node.Stats()
				return s.Voters == want && s.Members == members
			}
		}
		stop := f.load(2, 200*time.Millisecond)
		f.start("n2")
		f.see()
		f.until(20*time.Second, "a follower of one voter", voters(1, 2))
		f.start("n3")
		f.see()
		f.until(30*time.Second, "three voters", voters(3, 3))
		f.start("n4")
		f.see()
		f.until(20*time.Second, "a follower of three voters", voters(3, 4))
		f.start("n5")
		f.see()
		f.until(30*time.Second, "five voters", voters(5, 5))
		f.start("n6")
		f.see()
		f.until(20*time.Second, "a follower of five voters", voters(5, 6))
		// A voter is lost: the spare one takes its place, and it comes back as
		// the spare one.
		f.crash("n2")
		f.see()
		f.until(2*replaceAfter, "a replacement", func() bool {
			for _, m := range f.leader(10 * time.Second).node.Members() {
				if m.ID == "n2" && m.Votes || m.ID == "n6" && !m.Votes {
					return false
				}
			}
			return true
		})
		f.start("n2")
		f.see()
		// The leader is asked to go: another one takes over and removes it.
		gone := f.leader(10 * time.Second).id
		rest := slices.DeleteFunc(names(6), func(id cluster.NodeID) bool { return id == gone })
		f.see(rest...)
		f.until(30*time.Second, "removal", func() bool {
			l := f.leader(10 * time.Second)
			err := l.node.Remove(t.Context(), gone)
			return err == nil && l.id != gone
		})
		f.crash(gone)
		delete(f.boxes, gone)
		f.until(60*time.Second, "five again", voters(5, 5))
		// One is gone for good and forgotten by gossip; the others stay five
		// voters until somebody removes it, since nobody is there to replace it.
		lost := f.follower().id
		rest = slices.DeleteFunc(rest, func(id cluster.NodeID) bool { return id == lost })
		f.crash(lost)
		delete(f.boxes, lost)
		f.see(rest...)
		time.Sleep(3 * time.Minute)
		if !voters(5, 5)() {
			t.Errorf("%+v", f.leader(time.Second).node.Members())
		}
		if err := f.leader(10*time.Second).node.Remove(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		f.until(30*time.Second, "three voters of four", voters(3, 4))
		stop()
		f.check()
	})
}

// TestQuorumIsKept: a change that would leave no working majority is refused.
func TestQuorumIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		f.crash(f.follower().id)
		time.Sleep(3 * time.Second)
		l, b := f.leader(10*time.Second), f.follower()
		if err := l.node.Remove(t.Context(), b.id); !errors.Is(err, ErrQuorum) {
			t.Errorf("remove one of the last two: %v", err)
		}
		if err := l.node.Demote(t.Context(), b.id); !errors.Is(err, ErrQuorum) {
			t.Errorf("demote one of the last two: %v", err)
		}
		if err := l.node.Promote(t.Context(), "n9"); !errors.Is(err, ErrNoMember) {
			t.Errorf("promote nobody: %v", err)
		}
		if err := b.node.Remove(t.Context(), l.id); !errors.Is(err, ErrNotLeader) {
			t.Errorf("remove by a follower: %v", err)
		}
		f.check()
	})
}

// TestReplacedDisk: a voter that comes back with an empty disk has forgotten its
// votes. It gets no message until it was removed and taken in anew.
func TestReplacedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		stop := f.load(4, 20*time.Millisecond)
		time.Sleep(2 * time.Second)
		victim := f.follower().id
		f.crash(victim)
		old := f.boxes[victim].mem
		f.boxes[victim].mem = NewMemory()
		b := f.start(victim, func(c *Config) { c.Expect = 3 })
		if _, err := old.disk.Get(keyLog); err != nil {
			t.Fatal(err)
		}
		f.see()
		was := b.node.id.log
		f.until(time.Minute, "a voter again", func() bool {
			for _, m := range f.leader(10 * time.Second).node.Members() {
				if m.ID == victim && m.Votes && m.Log == was {
					return true
				}
			}
			return false
		})
		stop()
		f.check()
	})
}

// TestMove gives a member another address, while the cluster runs.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		b := f.follower()
		f.crash(b.id)
		f.boxes[b.id].address = "elsewhere"
		f.net.Host(string(b.id)) // the old name leads nowhere now
		l := f.net.Host("elsewhere").Listen()
		f.start(b.id, func(c *Config) {
			p := newPort(l)
			old := c.Stream.(*port)
			old.Close()
			f.boxes[b.id].port = p
			c.Stream, c.Exchange, c.Forward = p, p.exchange, p.forward(b.id)
		})
		f.see()
		f.until(20*time.Second, "the new address", func() bool {
			return slices.ContainsFunc(f.leader(10*time.Second).node.Members(), func(m Member) bool {
				return m.ID == b.id && m.Address == "elsewhere"
			})
		})
		f.check()
	})
}
