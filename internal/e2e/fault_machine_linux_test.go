package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Faults of machines: their disks, clocks, cables and processors.
func init() {
	faults = append(faults, diskFaults...)
	faults = append(faults, clockFaults...)
	faults = append(faults, networkFaults...)
	faults = append(faults, fault{name: "an owner gets a twentieth of a processor", needs: cgroups, lasts: true, do: func(s *site) { s.starve(s.facetOwner()) }})
}

// canStarve says why no processor time can be taken away here, nil when it can.
func canStarve() error {
	// This process would be slowed down for a moment; so much is no limit.
	fed, err := starve(os.Getpid(), time.Second)
	if err != nil {
		return err
	}
	return fed()
}

func (s *site) starve(m *member) {
	s.t.Helper()
	fed, err := starve(m.proc.cmd.Process.Pid, 5*time.Millisecond)
	if err != nil {
		s.t.Fatal(err)
	}
	m.feed = fed
}

var diskFaults = []fault{
	{name: "an owner's disk is full", needs: ownDisks, alone: true, do: func(s *site) { s.fill(s.facetOwner()) }},
	{name: "two disks are full", needs: ownDisks, alone: true, do: func(s *site) {
		a, b := s.two()
		s.fill(a, b)
	}},
	{name: "kill a node with a full disk", needs: ownDisks, alone: true, do: func(s *site) {
		m := s.facetOwner()
		s.load.full.Store(true)
		m.disk.fill()
		s.hold(s.span(100*time.Millisecond, 2*time.Second))
		m.kill()
		m.launch() // it says that it is not ready as long as it takes no writes
		s.hold(s.span(100*time.Millisecond, 4*time.Second))
		s.roomAgain(m)
	}},
	{name: "an owner's disk fails", needs: ownDisks, alone: true, do: func(s *site) {
		m := s.facetOwner()
		m.disk.fail()
		s.givesUp(m)
		s.load.progress() // without it
	}},
	{name: "an owner's disk fails for a moment", needs: ownDisks, alone: true, do: func(s *site) {
		// Later calls of fsync would say that all is well.
		m := s.facetOwner()
		m.disk.fail()
		s.hold(s.span(50*time.Millisecond, 500*time.Millisecond))
		m.disk.work()
		s.load.progress()
	}},
	{name: "two disks fail", needs: ownDisks, alone: true, do: func(s *site) {
		a, b := s.two()
		a.disk.fail()
		b.disk.fail()
		s.givesUp(a)
		s.givesUp(b)
	}},
	{name: "an owner's disk stands still", needs: ownDisks, do: func(s *site) {
		m := s.facetOwner()
		m.disk.freeze()
		s.hold(s.span(500*time.Millisecond, 8*time.Second))
		s.load.progress() // its facets are served elsewhere (R32)
		m.disk.thaw()
	}},
	{name: "the placement leader's disk stands still", needs: ownDisks, do: func(s *site) {
		m := s.leader(s.load.probe)
		m.disk.freeze()
		s.hold(s.span(500*time.Millisecond, 8*time.Second))
		s.load.progress()
		m.disk.thaw()
	}},
	{name: "an owner's disk is slow", needs: ownDisks, do: func(s *site) {
		m := s.facetOwner()
		for end := time.Now().Add(s.span(2*time.Second, 6*time.Second)); time.Now().Before(end); {
			m.disk.freeze()
			s.hold(s.span(10*time.Millisecond, 500*time.Millisecond))
			m.disk.thaw()
			s.hold(s.span(5*time.Millisecond, 50*time.Millisecond))
		}
	}},
	{name: "damage a log between kill and start", needs: 0, alone: true, do: func(s *site) { s.damage("data/log/*.seg") }},
	{name: "damage database files between kill and start", needs: 0, alone: true, do: func(s *site) { s.damage("data/facets/*/*.db") }},
}

// givesUp waits until the node has ended by itself (R13).
func (s *site) givesUp(m *member) {
	s.t.Helper()
	s.until(m.name+", whose disk fails, gives up", func() error {
		if m.ended() == nil {
			return errors.New("it runs")
		}
		return nil
	})
	m.kill()
}

// fill fills disks to the last byte for a while: what their nodes own may refuse
// writes.
func (s *site) fill(list ...*member) {
	s.load.full.Store(true)
	for _, m := range list {
		m.disk.fill()
	}
	s.hold(s.span(500*time.Millisecond, 6*time.Second))
	s.roomAgain(list...)
}

// roomAgain makes room, and waits until every facet takes writes by itself.
func (s *site) roomAgain(list ...*member) {
	s.t.Helper()
	for _, m := range list {
		m.disk.empty()
	}
	for _, f := range s.load.facets {
		s.until(f.name+" takes a write again", func() error {
			ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
			defer cancel()
			_, err := s.load.facet(s.load.probe, f).Exec(ctx, "UPDATE account SET balance = balance WHERE id = 0")
			return err
		})
	}
	s.load.full.Store(false)
}

// damage changes some bytes of files of a node that was killed, and waits until the
// node has what the others have (R14, R19, R51).
func (s *site) damage(pattern string) {
	s.t.Helper()
	m := s.someMember()
	var list []string
	s.until("there are files "+pattern+" of "+m.name, func() (err error) {
		list, err = filepath.Glob(filepath.Join(m.dir, filepath.FromSlash(pattern)))
		if err == nil && len(list) == 0 {
			err = os.ErrNotExist
		}
		return err
	})
	m.kill()
	for range 1 + s.rng.IntN(3) {
		s.rot(list[s.rng.IntN(len(list))])
	}
	s.hold(s.span(100*time.Millisecond, 2*time.Second))
	begun := time.Now()
	m.launch()
	m.ready()
	s.until(m.name+" has read everything again", func() error {
		if d := time.Duration(m.metric("facetd_scrub_oldest_seconds")) * time.Second; d >= time.Since(begun) {
			return fmt.Errorf("not since %v", d)
		}
		return nil
	})
	s.sound()
}

// rot changes a few bytes somewhere in a file, or a sector of it, or its end.
func (s *site) rot(file string) {
	s.t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return
	}
	// Often near the beginning: that is what is used of a log.
	at := s.rng.Int64N(min(info.Size(), 1<<(12+s.rng.IntN(15))))
	b := make([]byte, []int{1, 512, 4096}[s.rng.IntN(3)])
	n, _ := f.ReadAt(b, at)
	kind := "bits flipped"
	switch b = b[:n]; s.rng.IntN(3) {
	case 0:
		for i := range b {
			b[i] ^= byte(1 << s.rng.IntN(8))
		}
	case 1:
		kind = "zeros"
		clear(b)
	default:
		kind = "garbage"
		for i := range b {
			b[i] = byte(s.rng.Uint32())
		}
	}
	if _, err := f.WriteAt(b, at); err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s: %d bytes at %d of %d are %s", file, len(b), at, info.Size(), kind)
}

var clockFaults = []fault{
	{name: "the boot clock of an owner jumps", needs: ownClocks, lasts: true, do: func(s *site) { s.jump(s.facetOwner(), bootClock) }},
	{name: "all clocks of an owner jump", needs: ownClocks, lasts: true, do: func(s *site) { s.jump(s.facetOwner(), allClocks) }},
	{name: "all clocks of the placement leader jump", needs: ownClocks, lasts: true, do: func(s *site) { s.jump(s.leader(s.load.probe), allClocks) }},
	{name: "the clocks of an owner are a tenth slow", needs: ownClocks, lasts: true, do: func(s *site) { s.drift(s.facetOwner(), -1e8) }},
	{name: "the clocks of an owner are a tenth fast", needs: ownClocks, lasts: true, do: func(s *site) { s.drift(s.facetOwner(), 1e8) }},
	{name: "the clocks of the placement leader are a tenth fast", needs: ownClocks, lasts: true, do: func(s *site) { s.drift(s.leader(s.load.probe), 1e8) }},
	{name: "the clocks of the placement leader are a tenth slow", needs: ownClocks, lasts: true, do: func(s *site) { s.drift(s.leader(s.load.probe), -1e8) }},
}

// clockNoticed is more than what it takes to notice a clock that jumped, or is a tenth
// wrong: that one is off by the margin of a lease after one second, and then an exchange
// shows it. A node that is cut off before that hears of nothing, which is outside of R41.
const clockNoticed = 4 * time.Second

// drift has the clocks of a machine win so many nanoseconds a second, and waits until
// that is noticed.
func (s *site) drift(m *member, rate int64) {
	m.clock.set(allClocks, 0, rate)
	s.hold(clockNoticed)
}

// jump has clocks of a machine jump, forwards or backwards.
func (s *site) jump(m *member, clocks int64) {
	by := s.span(50*time.Millisecond, 8*time.Second)
	if s.rng.IntN(2) == 0 {
		by = -by
	}
	s.t.Logf("%s, by %v", m.name, by)
	m.clock.set(clocks, int64(by), 0)
	s.hold(clockNoticed)
}

var networkFaults = []fault{
	{name: "an owner loses 1 % of its packets", needs: wiring, lasts: true, do: storm(weather{loss: 0.01})},
	{name: "an owner loses 10 % of its packets", needs: wiring, lasts: true, do: storm(weather{loss: 0.1})},
	{name: "an owner loses 30 % of its packets", needs: wiring, lasts: true, do: storm(weather{loss: 0.3})},
	{name: "an owner is 50 ms away", needs: wiring, lasts: true, do: storm(weather{delay: 40 * time.Millisecond, jitter: 20 * time.Millisecond})},
	{name: "an owner is 500 ms away", needs: wiring, lasts: true, do: storm(weather{delay: 400 * time.Millisecond, jitter: 200 * time.Millisecond})},
	{name: "packets of an owner overtake one another", needs: wiring, lasts: true, do: storm(weather{delay: 20 * time.Millisecond, jitter: 10 * time.Millisecond, early: 0.25})},
	{name: "packets of an owner arrive twice", needs: wiring, lasts: true, do: storm(weather{twice: 0.2})},
	{name: "packets of an owner are damaged", needs: wiring, lasts: true, do: storm(weather{flipped: 0.05})},
	{name: "an owner has a line of 1 Mbit/s", needs: wiring, lasts: true, do: storm(weather{rate: 125_000})},
	{name: "all lines are bad", needs: wiring, lasts: true, do: func(s *site) {
		for _, m := range s.alive() {
			s.wires.shape(m.host, weather{loss: 0.03, delay: 10 * time.Millisecond, jitter: 20 * time.Millisecond, early: 0.05, twice: 0.01, flipped: 0.01})
		}
	}},
	{name: "cut off three owners in a row", needs: wiring, do: func(s *site) {
		// Each keeps what it has shipped to nobody; three quorums that differ.
		f := s.someFacet()
		for range 3 {
			m := s.owner(s.load.probe, f.name)
			for _, o := range s.alive() {
				if o != m {
					s.wires.cut(m.host, o.host)
					s.wires.cut(o.host, m.host)
				}
			}
			s.taken(f, m)
			s.wires.heal()
		}
	}},
}

// storm has a weather at the owner of some facet; half of the time clients see nothing
// of it.
func storm(c weather) func(*site) {
	return func(s *site) {
		c := c
		c.peers = s.rng.IntN(2) == 0
		m := s.facetOwner()
		s.t.Logf("%s, %+v", m.name, c)
		s.wires.shape(m.host, c)
	}
}
