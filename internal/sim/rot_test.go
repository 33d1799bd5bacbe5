package sim

import (
	"path"
	"slices"
	"strings"

	"github.com/facetd/facetd/facet/replica"
)

// rot flips a bit in the commit log of one machine, which is the same for the whole run:
// of a majority of the copies that rots nobody can go on.
func (n *nemesis) rot() {
	if n.rotten == nil {
		l := n.victim()
		if l == nil || n.wiped || n.parted || !n.w.spare() {
			return
		}
		n.rotten = l.m
	}
	m := n.rotten
	if m.damaged() || !n.w.spare() {
		return // one after the other
	}
	segment, at, bit := n.rng.Float64(), n.rng.Float64(), byte(1)<<n.rng.IntN(8)
	m.mu.Lock()
	d, l := m.disk, m.life
	m.mu.Unlock()
	if l == nil {
		return
	}
	// Half of the time it is off meanwhile, and finds out at its start (R14); else the
	// scrub does, or who needs an entry (R52).
	off := n.rng.IntN(2) == 0
	// Files only then: what is read from one that rots in use is for the scrub to find,
	// and SQLite may have read it until then. TestRottenFile has those nobody has open.
	var names []string
	if n.rng.IntN(2) == 0 && off {
		names = l.files()
	}
	files := len(names) > 0
	if off {
		l.kill("to rot", n.loss())
		m.mu.Lock()
		d = m.disk
		m.mu.Unlock()
	}
	if !files {
		list, _ := d.ReadDir(logDir) // a disk that fails has none
		for _, e := range list {
			if strings.HasSuffix(e.Name, ".seg") {
				names = append(names, path.Join(logDir, e.Name))
			}
		}
	}
	if len(names) > 0 {
		name := names[int(segment*float64(len(names)))]
		err := d.Corrupt(name, func(data []byte) {
			// Of what was written: zeros are nothing yet.
			end := len(data)
			for end > 0 && data[end-1] == 0 {
				end--
			}
			if end > 0 {
				i := int(at * float64(end))
				data[i] ^= bit
				n.w.tell("%s of %s rots at %d of %d", name, m.id, i, end)
				n.w.note("rotten " + map[bool]string{true: "file", false: "log"}[files])
			}
		})
		if err != nil {
			n.w.tell("%s does not rot: %v", name, err)
		}
	}
	if off {
		n.later(n.downtime(), func() { m.start() })
	}
}

// files gives the database files of a node.
func (l *life) files() (names []string) {
	l.node.Copies(func(c replica.Meta) bool {
		if c.BasePages > 0 {
			names = append(names, fileOf(c.ID))
		}
		return true
	})
	slices.Sort(names)
	return names
}

// logDir is where a node keeps the segments of its commit log.
const logDir = "data/log"

// damaged reports whether a copy on the machine is known to be damaged, or cannot be
// asked.
func (m *machine) damaged() (yes bool) {
	l := m.current()
	if l == nil || !l.isReady() {
		return true
	}
	l.node.Copies(func(c replica.Meta) bool {
		yes = c.Health != replica.Healthy
		return !yes
	})
	return yes
}
