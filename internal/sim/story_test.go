package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path"
	"testing"
	"time"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/placement"
)

// quiet is a cluster of three for stories: nothing happens in it by itself.
func quiet(idle time.Duration) plan {
	return plan{seed: 1, nodes: 3, replicas: 3, facets: 1, idleAfter: idle, repairAfter: time.Hour, segment: 256 << 10, logBudget: 1 << 20}
}

// TestClocksAreNoticed: a node whose clock of leases runs or jumps away from the others'
// does not read by its lease for long, and reads on (R41); so do all whose leases are
// granted by such a clock. When the clocks agree again leases are believed again.
func TestClocksAreNoticed(t *testing.T) {
	second := time.Second
	for _, c := range []struct {
		name            string
		boot, mono, raw float64
		jump            [3]time.Duration
		leader          bool
	}{
		{name: "slow", boot: 0.95, mono: 0.95, raw: 0.95},
		{name: "disciplined wrongly", boot: 0.97, mono: 0.97, raw: 1},
		{name: "jumped", boot: 1, mono: 1, raw: 1, jump: [3]time.Duration{second, second, second}},
		{name: "stepped back", boot: 1, mono: 1, raw: 1, jump: [3]time.Duration{-second, 0, 0}},
		{name: "jumped at the leader", boot: 1, mono: 1, raw: 1, jump: [3]time.Duration{second, second, second}, leader: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, quiet(time.Minute), func(w *world) {
				w.form()
				if !w.until(time.Minute, func() bool { return w.leader() != nil && len(w.running()) == 3 }) {
					w.problem("nobody leads")
					return
				}
				lead := w.leader()
				time.Sleep(12 * time.Second) // they know each other's clocks
				bad := lead
				for _, l := range w.running() {
					if !c.leader && l != lead {
						bad = l
					}
				}
				s := w.session(0)
				name := w.names[0].name
				s.owner[name] = bad.m.id // which makes it, and owns it
				s.do(context.Background(), name, input{kind: opAdd, id: w.number(), arg: 1}, true)
				trusted := func(l *life) bool { return w.metric(l, "facetd_clocks_trusted") == 1 }
				all := func(want bool) bool {
					for _, l := range w.running() {
						if (!c.leader && l == bad || c.leader && l != bad) && trusted(l) != want {
							return false
						}
					}
					return true
				}
				if !all(true) {
					w.problem("clocks that agree are not trusted")
				}
				bad.m.clocks.turn(c.boot, c.mono, c.raw, c.jump)
				if !w.until(15*time.Second, func() bool { return all(false) }) {
					w.problem("clocks that do not agree are trusted still")
				}
				if _, ok := s.do(context.Background(), name, input{kind: opRead}, false); !ok {
					w.problem("%s cannot be read where clocks are not trusted", name)
				}
				bad.m.clocks.sound()
				if !w.until(time.Minute, func() bool { return all(true) }) {
					w.problem("clocks that agree again are not trusted")
				}
			})
		})
	}
}

// TestRottenFile: a file that rots is found by the scrub, or by who opens it before,
// whoever has the copy, and the copy is replaced by what the others have (R51, R52). An
// owner that went on from it made commits that fit no copy of the others: all three were
// out of service then, for good.
func TestRottenFile(t *testing.T) {
	for _, c := range []struct{ owner, used bool }{{}, {owner: true}, {owner: true, used: true}} {
		t.Run(fmt.Sprintf("owner %t, used %t", c.owner, c.used), func(t *testing.T) {
			bubble(t, quiet(2*time.Second), func(w *world) {
				w.form()
				s := w.session(0)
				name := w.names[0].name
				for range 50 {
					s.do(context.Background(), name, input{kind: opAdd, id: w.number(), arg: 1}, true)
				}
				row, ok := w.atRest(name)
				if !ok {
					w.problem("%s does not come to rest", name)
					return
				}
				var m *machine
				for _, x := range w.all() {
					if (x.id == row.Owner.Node) == c.owner {
						m = x
					}
				}
				l := m.current()
				before := w.metric(l, "facetd_scrub_damaged_total")
				if err := m.disk.Corrupt(fileOf(row.Incarnation), func(data []byte) {
					for i := 2*pages.Size - 1; i < len(data); i += pages.Size {
						data[i] ^= 1 // the end of what is in each page
					}
				}); err != nil {
					w.problem("rot: %v", err)
				}
				if c.used {
					// Before any scrub: nothing may be read from such a file, and nothing
					// written on top of it.
					in := input{kind: opAdd, id: w.number(), arg: 1}
					if out, _ := s.do(context.Background(), name, in, true); out.state.counter != 51 {
						w.problem("the counter was 50, is %d", out.state.counter)
					}
				} else if !w.until(time.Minute, func() bool { return w.metric(l, "facetd_scrub_damaged_total") > before }) {
					w.problem("a flipped bit in a database file is not found")
				}
				w.settle()
				w.agree()
				if _, ok := w.atRest(name); !ok {
					w.problem("%s does not come to rest", name)
				}
				if why := w.filesDiffer(name); why != "" {
					w.problem("%s", why)
				}
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				w.sound(ctx, s, name)
			})
		})
	}
}

// atRest waits until all of a facet is in its files, and nobody has it open.
func (w *world) atRest(name facet.Name) (row placement.Facet, ok bool) {
	ok = w.until(agreesWithin, func() bool {
		lead := w.leader()
		if lead == nil {
			return false
		}
		var there bool
		if row, there = lead.node.Table().Lookup(name); !there || row.State != placement.Active {
			return false
		}
		n := 0
		for _, l := range w.running() {
			l.node.Copies(func(c replica.Meta) bool {
				if c.ID == row.Incarnation && c.Base == c.Last && !c.Open && c.Health <= replica.Uncertain {
					n++
				}
				return true
			})
		}
		return n == row.Active.Len()
	})
	return row, ok
}

// fileOf is where a node keeps the database of a facet.
func fileOf(id facet.Incarnation) string {
	return path.Join("data/facets", id.String()[:2], id.String()+".db")
}

// filesDiffer compares the files of all copies of a facet that is at rest, byte by byte.
func (w *world) filesDiffer(name facet.Name) string {
	lead := w.leader()
	if lead == nil {
		return "nobody leads placement"
	}
	row, ok := lead.node.Table().Lookup(name)
	if !ok {
		return fmt.Sprintf("%s is not in the table", name)
	}
	var first []byte
	for i, member := range row.Active.Members() {
		data, err := w.machine(member.Node).content(fileOf(row.Incarnation))
		switch {
		case err != nil:
			return fmt.Sprintf("%s at %s: %v", name, member.Node, err)
		case i == 0:
			first = data
		case !bytes.Equal(first, data):
			return fmt.Sprintf("the file of %s at %s differs from that at %s", name, member.Node, row.Active.Members()[0].Node)
		}
	}
	return ""
}

// content is what a file on the machine's disk holds.
func (m *machine) content(name string) ([]byte, error) {
	m.mu.Lock()
	d := m.disk
	m.mu.Unlock()
	size, err := d.Stat(name)
	if err != nil {
		return nil, err
	}
	f, err := d.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, size)
	_, err = f.ReadAt(data, 0)
	return data, err
}
