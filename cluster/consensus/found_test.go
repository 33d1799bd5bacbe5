package consensus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/facetd/facetd/cluster"
)

// TestFoundingRaces starts nodes at different times, lets them see different
// parts of each other, cuts and kills them in the middle, and lets more of them
// start than were expected. Whatever happens there is one cluster in the end,
// every node belongs to it, and no node ever belonged to another.
func TestFoundingRaces(t *testing.T) {
	seeds := 150
	if testing.Short() {
		seeds = 30
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(seed), 11))
			f := newFleet(t, nil)
			defer f.stopAll()
			f.net.Latency(time.Millisecond, time.Duration(1+rng.IntN(300))*time.Millisecond, 0.02)
			expect := 2 + rng.IntN(3)
			all := names(expect + rng.IntN(3))
			belonged := map[cluster.NodeID]cluster.ID{}
			look := func() {
				for _, b := range f.up() {
					if c := b.node.ClusterID(); !c.IsZero() {
						if was, ok := belonged[b.id]; ok && was != c {
							t.Fatalf("seed %d: %s was of cluster %v and is of %v", seed, b.id, was, c)
						}
						belonged[b.id] = c
					}
				}
			}
			start := func(id cluster.NodeID) { f.start(id, func(c *Config) { c.Expect = expect }) }
			for range 40 {
				id := all[rng.IntN(len(all))]
				switch b := f.box(id); rng.IntN(5) {
				case 0, 1:
					if b.node == nil {
						start(id)
					}
				case 2:
					if b.node != nil && rng.IntN(3) == 0 {
						f.crash(id)
					}
				case 3: // a node sees part of the others
					if b.node != nil {
						ids := []cluster.NodeID{id}
						for _, o := range all {
							if o != id && rng.IntN(3) > 0 {
								ids = append(ids, o)
							}
						}
						b.node.SetView(f.view(id, ids...))
					}
				case 4:
					if rng.IntN(3) == 0 {
						f.net.Cut(string(id), string(all[rng.IntN(len(all))]))
					} else {
						f.net.HealAll()
					}
				}
				time.Sleep(time.Duration(rng.IntN(600)) * time.Millisecond)
				look()
			}
			f.net.HealAll()
			f.net.Latency(time.Millisecond, 0, 0)
			for _, id := range all {
				if f.box(id).node == nil {
					start(id)
				}
			}
			f.see(all...)
			for deadline := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
				look()
				ids := map[cluster.ID]bool{}
				for _, c := range belonged {
					ids[c] = true
				}
				if len(ids) > 1 {
					// Nodes that could not see each other may found two clusters, if
					// there are enough for two. Then they must stay two.
					if len(all) < 2*expect {
						t.Fatalf("seed %d: %d clusters of %d nodes that expect %d: %v", seed, len(ids), len(all), expect, belonged)
					}
					return
				}
				if len(belonged) == len(all) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("seed %d: after 3 minutes %d of %d nodes belong to a cluster: %v", seed, len(belonged), len(all), belonged)
				}
			}
			f.check()
			f.until(time.Minute, "all nodes as members", func() bool { return f.leader(10*time.Second).node.Stats().Members == len(all) })
		})
	}
}

// TestPledges proposes foundings wildly, without the care by which nodes avoid
// conflicts: any node, any set that has it, any cluster, answers that arrive
// late or never, restarts in between. Two foundings that completed never share
// a node, and every node is free again, or a member, once all answers arrive.
func TestPledges(t *testing.T) {
	completed, withdrawn := 0, 0
	for seed := range 3000 {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		const nodes, expect = 4, 3
		var all []founder
		var disks []*stores
		var fs []*founding
		boot := func(i int) {
			id, err := disks[i].identify(&Config{ID: all[i].Node, Exchange: noExchange})
			if err != nil {
				t.Fatal(err)
			}
			all[i].Log = id.log
			if fs[i], err = disks[i].openFounding(id, expect, cluster.ID{}); err != nil {
				t.Fatal(err)
			}
		}
		for i := range nodes {
			d := NewMemory().disk
			all = append(all, founder{Node: cluster.NodeID(fmt.Sprintf("n%d", i)), Address: "a"})
			disks = append(disks, &stores{log: &watchedLog{LogStore: d}, stable: d, snaps: d})
			fs = append(fs, nil)
			boot(i)
		}
		index := func(id cluster.NodeID) int { return int(id[1] - '0') }
		done := map[cluster.ID]*founders{}
		// What a node that drives a founding has heard, which may be old.
		type drive struct {
			p       *founders
			answers []seen
		}
		drives := map[int]*drive{}
		ask := func(d *drive, k int) {
			a, err := fs[index(d.p.Members[k].Node)].answer(question{from: "n0", pledge: d.p})
			if err != nil {
				t.Fatal(err)
			}
			d.answers[k] = seen{answer: a}
		}
		act := func(i int) {
			d := drives[i]
			if d == nil || fs[i].pledge == nil || !d.p.equal(fs[i].pledge) {
				return
			}
			switch got := d.p.count(d.answers); {
			case got.complete:
				if err := disks[i].belong(fs[i].id, d.p.Cluster, 0); err != nil {
					t.Fatal(err)
				}
				for c, o := range done {
					for _, m := range o.Members {
						if c != d.p.Cluster && slices.Contains(d.p.Members, m) {
							t.Fatalf("seed %d: %+v and %+v both completed", seed, o, d.p)
						}
					}
				}
				done[d.p.Cluster] = d.p
			case got.refused:
				if err := fs[i].withdraw(); err != nil {
					t.Fatal(err)
				}
				withdrawn++
			}
		}
		begin := func(i int) {
			p := fs[i].pledge
			if p == nil {
				set := rng.Perm(nodes)
				set = append([]int{i}, slices.DeleteFunc(set, func(k int) bool { return k == i })...)[:expect]
				slices.Sort(set)
				p = &founders{Cluster: cluster.NewID(), Round: uint32(1 + rng.IntN(8))}
				for _, k := range set {
					if rng.IntN(2) == 0 {
						p.Round = max(p.Round, fs[k].round+1)
					}
					p.Members = append(p.Members, all[k])
				}
				if a, err := fs[i].answer(question{from: all[i].Node, pledge: p}); err != nil || a.verdict != pledgeGiven {
					return
				}
			}
			d := &drive{p: p, answers: make([]seen, expect)}
			for k := range d.answers {
				d.answers[k].err = errors.New("no answer yet")
			}
			drives[i] = d
		}
		for range 300 {
			i := rng.IntN(nodes)
			if c, _ := fs[i].id.get(); !c.IsZero() {
				continue
			}
			switch d := drives[i]; rng.IntN(6) {
			case 0:
				if d == nil || fs[i].pledge == nil || !d.p.equal(fs[i].pledge) {
					begin(i)
				}
			case 1, 2, 3:
				if d != nil {
					ask(d, rng.IntN(expect))
				}
			case 4:
				act(i)
			case 5:
				if rng.IntN(20) == 0 {
					delete(drives, i)
					boot(i)
				}
			}
		}
		// Calm: everybody asks everybody, until nothing is pledged and open.
		for round := 0; ; round++ {
			open := 0
			for i := range nodes {
				if c, _ := fs[i].id.get(); !c.IsZero() || fs[i].pledge == nil {
					continue
				}
				open++
				begin(i)
				for k := range expect {
					ask(drives[i], k)
				}
				act(i)
			}
			if open == 0 {
				break
			}
			if round > 10 {
				t.Fatalf("seed %d: %d nodes stay pledged", seed, open)
			}
		}
		completed += len(done)
	}
	t.Logf("%d foundings completed, %d pledges were withdrawn", completed, withdrawn)
	if completed < 500 || withdrawn < 500 {
		t.Error("the test does not try what it should")
	}
}

func noExchange(context.Context, string, []byte) ([]byte, error) { return nil, errors.New("nobody") }

// TestNoSecondFounding: a node with state never founds again, whatever it is
// told to expect.
func TestNoSecondFounding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		id := f.form(3).node.ClusterID()
		if err := f.propose(f.follower(), "kept", time.Second); err != nil {
			t.Fatal(err)
		}
		for _, n := range names(3) {
			f.crash(n)
		}
		for _, n := range names(3) {
			f.start(n, func(c *Config) { c.Expect = 2 })
			f.see()
			time.Sleep(3 * time.Second)
		}
		f.check()
		for _, b := range f.up() {
			if b.node.ClusterID() != id {
				t.Errorf("%s is of cluster %v, was of %v", b.id, b.node.ClusterID(), id)
			}
		}
		f.crash("n1")
		_, err := Open(Config{ID: "n1", Memory: f.boxes["n1"].mem, StateMachine: &ledger{}, Cluster: cluster.NewID()})
		if !errors.Is(err, ErrOtherCluster) {
			t.Errorf("opened as of another cluster: %v", err)
		}
	})
}

// TestTwoClusters lets two clusters see each other: they stay two, also when
// their nodes have the same names and one cluster calls at the other's address.
func TestTwoClusters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		a := f.leader(time.Second).node.ClusterID()
		for _, id := range []cluster.NodeID{"m1", "m2", "m3"} {
			f.start(id, func(c *Config) { c.Expect = 3 })
		}
		for _, id := range []cluster.NodeID{"m1", "m2", "m3"} {
			f.boxes[id].node.SetView(f.view(id, "m1", "m2", "m3"))
		}
		f.until(10*time.Second, "the second cluster", func() bool {
			return !slices.ContainsFunc(f.up(), func(b *box) bool { return b.node.ClusterID().IsZero() })
		})
		b := f.boxes["m1"].node.ClusterID()
		if a == b {
			t.Fatal("one cluster")
		}
		f.see() // everybody sees everybody
		time.Sleep(time.Minute)
		// A node that sees both joins neither.
		late := f.start("n9")
		f.see()
		time.Sleep(time.Minute)
		if c := late.node.ClusterID(); !c.IsZero() {
			t.Errorf("a node that sees two clusters is of %v", c)
		}
		for _, m := range f.up() {
			want := a
			if strings.HasPrefix(string(m.id), "m") {
				want = b
			}
			if m.id == "n9" {
				continue
			}
			if m.node.ClusterID() != want || m.node.Stats().Members != 3 {
				t.Errorf("%s: cluster %v, members %+v", m.id, m.node.ClusterID(), m.node.Members())
			}
		}
		// Told which one is meant, it joins that.
		f.crash("n9")
		late = f.start("n9", func(c *Config) { c.Cluster = b })
		f.see()
		f.until(10*time.Second, "the right cluster", func() bool { return late.node.ClusterID() == b })
		f.until(10*time.Second, "the membership", func() bool { return late.node.Stats().Members == 4 })
		if err := f.boxes["n1"].node.AddNonvoter(t.Context(), "m1", "m1"); err == nil {
			t.Error("took a member of another cluster in")
		}
	})
}

// TestPrefaceRefuses: Raft's connections end unless both ends agree who they
// are.
func TestPrefaceRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, nil)
		defer f.stopAll()
		f.form(3)
		n := f.boxes["n1"].node
		c, g := n.id.get()
		for _, tc := range []struct {
			name string
			who  *identity
			to   cluster.NodeID
			log  LogID
			want verdict
		}{
			{"right", &identity{node: "x", cluster: c, generation: g}, "n1", n.id.log, welcome},
			{"any log", &identity{node: "x", cluster: c, generation: g}, "n1", LogID{}, welcome},
			{"other cluster", &identity{node: "x", cluster: cluster.NewID(), generation: g}, "n1", n.id.log, otherCluster},
			{"other node", &identity{node: "x", cluster: c, generation: g}, "n2", n.id.log, otherNode},
			{"other log", &identity{node: "x", cluster: c, generation: g}, "n1", newLogID(), otherLog},
		} {
			base := f.net.Host("x").Listen()
			s := &streams{Stream: newPort(base), self: tc.who, outcast: func(string) {}}
			s.open = map[net.Conn]struct{}{}
			conn, err := s.Dial(route(tc.to, place{"n1", tc.log}), time.Second)
			if err != nil {
				t.Fatal(tc.name, err)
			}
			// A heartbeat of term 0, as Raft's transport writes it, is answered.
			if _, err := conn.Write([]byte{0xff}); err != nil {
				t.Fatal(tc.name, err)
			}
			_, err = conn.Read(make([]byte, 1))
			var refused *refusedError
			if errors.As(err, &refused) != (tc.want != welcome) || refused != nil && refused.verdict != tc.want {
				t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
			}
			s.Close()
		}
		// Garbage in place of a preface ends the connection.
		p := newPort(f.net.Host("y").Listen())
		conn, err := p.Dial("n1", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write(bytes.Repeat([]byte("x"), 500))
		if b := make([]byte, 1); true {
			if _, err := conn.Read(b); err != nil || verdict(b[0]) != badPreface {
				t.Errorf("garbage: verdict %v, %v", verdict(b[0]), err)
			}
		}
		conn.Close()
		p.Close()
	})
}

// TestDecide goes through the ways the answers can be.
func TestDecide(t *testing.T) {
	at := func(id string, more func(*seen)) seen {
		s := seen{address: id + ":1", answer: identityAnswer{node: cluster.NodeID(id), log: LogID{id[0]}, expect: 3, sees: names(3)}}
		if more != nil {
			more(&s)
		}
		return s
	}
	c, d, fresh := cluster.ID{1}, cluster.ID{2}, cluster.ID{9}
	member := func(id cluster.ID) func(*seen) { return func(s *seen) { s.answer.cluster = id } }
	silent := func(s *seen) { s.err = errors.New("timeout") }
	for _, tc := range []struct {
		name    string
		self    cluster.NodeID
		want    cluster.ID
		answers []seen
		join    cluster.ID
		propose bool
		note    string
	}{
		{"all agree", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", nil), at("n3", nil)}, cluster.ID{}, true, ""},
		{"not the lowest", "n2", cluster.ID{}, []seen{at("n1", nil), at("n2", nil), at("n3", nil)}, cluster.ID{}, false, "waits for node n1"},
		{"too few", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", nil)}, cluster.ID{}, false, "sees 2"},
		{"more than expected", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", nil), at("n3", nil), at("n4", nil)}, cluster.ID{}, true, ""},
		{"one is silent", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", nil), at("n3", nil), at("n4", silent)}, cluster.ID{}, false, "n4 does not answer"},
		{"one sees others", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", func(s *seen) { s.answer.sees = names(2) }), at("n3", nil)}, cluster.ID{}, false, "sees other nodes"},
		{"one expects others", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", func(s *seen) { s.answer.expect = 5 }), at("n3", nil)}, cluster.ID{}, false, "sees 2"},
		{"one is pledged", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", func(s *seen) { s.answer.pledged = &founders{} }), at("n3", nil)}, cluster.ID{}, false, "pledged"},
		{"a member", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", member(c)), at("n3", silent)}, c, false, ""},
		{"two clusters", "n1", cluster.ID{}, []seen{at("n1", nil), at("n2", member(c)), at("n3", member(d))}, cluster.ID{}, false, "two clusters"},
		{"two clusters, one wanted", "n1", d, []seen{at("n1", nil), at("n2", member(c)), at("n3", member(d))}, d, false, ""},
		{"not the wanted one", "n1", d, []seen{at("n1", nil), at("n2", member(c)), at("n3", nil)}, cluster.ID{}, false, "sees 2"},
	} {
		s, _ := decide(tc.self, 3, tc.want, fresh, tc.answers)
		if s.join != tc.join || (s.propose != nil) != tc.propose || !strings.Contains(s.note, tc.note) {
			t.Errorf("%s: %+v", tc.name, s)
		}
		if s.propose != nil && (s.propose.Cluster != fresh || len(s.propose.Members) != 3 || s.propose.Round != 1) {
			t.Errorf("%s: %+v", tc.name, s.propose)
		}
	}
}

func TestMessages(t *testing.T) {
	f := &founders{Cluster: cluster.NewID(), Round: 7}
	for i := range MaxExpect {
		f.Members = append(f.Members, founder{
			Node: cluster.NodeID(fmt.Sprintf("%d%s", i, strings.Repeat("n", cluster.MaxNodeIDLen-1))), Log: newLogID(), Address: strings.Repeat("a", cluster.MaxAddressLen),
		})
	}
	for _, pledge := range []*founders{nil, f} {
		q := question{from: "n1", pledge: pledge}
		b := q.encode()
		got, err := decodeQuestion(b)
		if err != nil || got.from != "n1" || (pledge == nil) != (got.pledge == nil) || pledge != nil && !got.pledge.equal(pledge) {
			t.Errorf("question: %+v, %v", got, err)
		}
		a := identityAnswer{node: "n1", log: newLogID(), cluster: cluster.NewID(), generation: 3, expect: 3, round: 9, verdict: pledgeRefused, pledged: pledge}
		for _, m := range f.Members {
			a.sees = append(a.sees, m.Node)
		}
		b = a.encode()
		back, err := decodeAnswer(b)
		if err != nil || fmt.Sprintf("%+v", back) != strings.ReplaceAll(fmt.Sprintf("%+v", a), fmt.Sprintf("%p", a.pledged), fmt.Sprintf("%p", back.pledged)) {
			t.Errorf("answer: %+v, %v", back, err)
		}
		if len(b) > MaxMessage/2 {
			t.Errorf("the longest answer has %d bytes", len(b))
		}
		for i := range b {
			if _, err := decodeAnswer(b[:i]); err == nil {
				t.Errorf("an answer of %d bytes was read", i)
			}
			b[i] ^= 1
			if _, err := decodeAnswer(b); err == nil {
				t.Errorf("byte %d was changed and the answer read", i)
			}
			b[i] ^= 1
		}
	}
}

func FuzzMessages(f *testing.F) {
	q := question{from: "n1", pledge: &founders{Cluster: cluster.NewID(), Round: 1, Members: []founder{{"n1", newLogID(), "a:1"}, {"n2", newLogID(), "b:1"}}}}
	f.Add(q.encode())
	a := identityAnswer{node: "n1", log: newLogID(), expect: 3, sees: names(3), pledged: q.pledge}
	f.Add(a.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := decodeQuestion(b); err == nil && !bytes.Equal(q.encode(), b) {
			t.Errorf("question %x becomes %x", b, q.encode())
		}
		if a, err := decodeAnswer(b); err == nil && !bytes.Equal(a.encode(), b) {
			t.Errorf("answer %x becomes %x", b, a.encode())
		}
	})
}
