//go:build unix

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// Faults that are none: what operators and programs do to a cluster, while nodes die.
func init() {
	faults = append(faults, []fault{
		{name: "restart one after the other", do: (*site).rollingRestart},
		{name: "stop the placement leader gracefully", do: func(s *site) {
			m := s.leader(s.load.probe)
			m.term()
			s.load.progress()
		}},
		{name: "upgrade one after the other, or back", needs: twoBuilds, do: func(s *site) {
			to := s.next
			if s.alive()[0].binary == to {
				to = s.binary
			}
			for _, m := range s.alive() {
				m.term()
				m.binary = to
				m.launch()
				m.ready()
				s.load.progress()
			}
		}},
		{name: "upgrade by kill -9", needs: twoBuilds, do: func(s *site) {
			m := s.facetOwner()
			m.kill()
			if m.binary = s.next; s.rng.IntN(2) == 0 {
				m.binary = s.binary
			}
			m.launch()
		}},
		{name: "replace a node by a new one", alone: true, shrinks: true, do: (*site).replaceFirst},
		{name: "grow, kill the new node, go back", alone: true, shrinks: true, do: func(s *site) {
			m := s.join()
			if _, err := s.load.probe.StartOperation(s.t.Context(), client.OperationRequest{Kind: "rebalance"}); err != nil {
				s.t.Log("rebalance:", err)
			}
			s.hold(s.span(10*time.Millisecond, time.Second))
			m.kill()
			s.load.progress()
			m.launch()
			m.ready()
			s.operation(s.load.probe, client.OperationRequest{Kind: "decommission", Node: m.name})
			m.term()
			m.removed = true
			s.operation(s.load.probe, client.OperationRequest{Kind: "remove", Node: m.name})
			s.voting(s.load.probe, 3)
		}},
		{name: "move facets, kill one of their owners", do: func(s *site) {
			var wg sync.WaitGroup
			for range 8 {
				f, m := s.load.facet(s.load.probe, s.someFacet()), s.someMember()
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), 5*time.Second)
					defer cancel()
					_, _ = f.Move(ctx, m.name) // it may be dead
				})
			}
			s.hold(s.span(time.Millisecond, 100*time.Millisecond))
			s.someMember().kill()
			wg.Wait()
		}},
		{name: "kill the owners of a facet, three in a row", do: func(s *site) {
			// Each dies as soon as it serves, with what it has shipped to nobody yet.
			f := s.someFacet()
			for range 3 {
				m := s.owner(s.load.probe, f.name)
				m.pause() // what is on its way to it stays
				s.taken(f, m)
				m.kill()
				m.launch()
				m.ready()
			}
		}},
		{name: "delete and make again, kill meanwhile", do: func(s *site) { s.meanwhile(s.again) }},
		{name: "clone, export, import, kill meanwhile", do: func(s *site) { s.meanwhile(s.copies) }},
		{name: "all come anew when an owner dies", do: func(s *site) {
			m := s.facetOwner()
			m.kill()
			s.herd(100)
		}},
	}...)
}

// taken waits until another node than m owns the facet and took a write.
func (s *site) taken(f *loadFacet, m *member) {
	s.t.Helper()
	s.until("another node than "+m.name+" owns "+f.name, func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), patience)
		defer cancel()
		s.times++
		s.load.append(ctx, s.load.probe, f, probeID, fmt.Sprintf("taken-%d", s.times))
		if s.owner(s.load.probe, f.name) == m {
			return errors.New("it does")
		}
		return nil
	})
}

// meanwhile kills some node while do is at work, and again, and waits for it.
func (s *site) meanwhile(do func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(ctx)
	}()
	for range 2 {
		s.hold(s.span(20*time.Millisecond, time.Second))
		m := s.someMember()
		m.kill()
		s.hold(s.span(20*time.Millisecond, time.Second))
		m.launch()
	}
	<-done
}

// persist repeats what may be refused while nodes die, and says when it is not done in
// the end.
func (s *site) persist(ctx context.Context, what string, do func() error) bool {
	for {
		err := do()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			s.t.Errorf("%s: %v", what, err)
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(pollEvery):
		}
	}
}

// scratch is a facet of a name that nobody else uses.
func (s *site) scratch(what string) *client.Facet {
	s.times++
	f, err := s.load.probe.Facet(fmt.Sprintf("scratch/%s-%d", what, s.times))
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// remove deletes a facet, however often it takes.
func (s *site) remove(ctx context.Context, f *client.Facet) bool {
	return s.persist(ctx, "delete "+f.Name().String(), func() error {
		err := f.Delete(ctx)
		if errors.Is(err, facet.ErrNotFound) {
			return nil // a try before this one did it
		}
		return err
	})
}

// again deletes a facet and makes it again, under one name: nothing of the old one is
// ever seen in the new one (R1, R47).
func (s *site) again(ctx context.Context) {
	f := s.scratch("again")
	for life := range 5 {
		err := f.Script(ctx, fmt.Sprintf("CREATE TABLE life (n INTEGER NOT NULL); INSERT INTO life VALUES (%d)", life))
		if err != nil {
			s.t.Errorf("%s, life %d: %v", f.Name(), life, err)
			return
		}
		var n, rows int
		if err := f.QueryRow(ctx, "SELECT max(n), count(*) FROM life").Scan(&n, &rows); err != nil || n != life || rows != 1 {
			s.t.Errorf("%s, life %d, shows life %d in %d rows: %v", f.Name(), life, n, rows, err)
		}
		if !s.remove(ctx, f) {
			return
		}
	}
}

// copies makes a clone of a facet, and exports and imports it: both are what the facet
// was at one moment, after all that was acknowledged before (R48, R49).
func (s *site) copies(ctx context.Context) {
	s.remains = true
	src := s.load.facets[len(s.load.facets)/2]
	from, least := s.load.facet(s.load.probe, src), src.top.Load()
	clone, imported := s.scratch("clone"), s.scratch("import")
	exists := func(err error) error {
		if errors.Is(err, facet.ErrExists) {
			return nil // a try before this one did it
		}
		return err
	}
	var file bytes.Buffer
	if !s.persist(ctx, "clone "+src.name, func() error {
		_, err := from.Clone(ctx, clone.Name().String())
		return exists(err)
	}) || !s.persist(ctx, "export "+src.name, func() error {
		file.Reset()
		_, err := from.Export(ctx, &file)
		return err
	}) || !s.persist(ctx, "import "+imported.Name().String(), func() error {
		_, err := imported.Import(ctx, bytes.NewReader(file.Bytes()), false)
		return exists(err)
	}) {
		return
	}
	for _, f := range []*client.Facet{clone, imported} {
		var v view
		var ok string
		err := f.QueryRow(ctx, look).Scan(v.fields()...)
		if err == nil {
			err = f.QueryRow(ctx, "PRAGMA integrity_check").Scan(&ok)
		}
		if err != nil || v.wrong() != "" || v.n < least || ok != "ok" {
			s.t.Errorf("%s, a copy of %s, which had %d entries: %+v %s %s %v", f.Name(), src.name, least, v, v.wrong(), ok, err)
		}
		s.remove(ctx, f)
	}
}

// herd has so many clients connect at once, each of which reads once.
func (s *site) herd(size int) {
	var wg sync.WaitGroup
	urls := s.endpoints()
	for i := range size {
		f := s.load.facets[i%len(s.load.facets)]
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(s.t.Context()), patience)
			defer cancel()
			s.persist(ctx, "come anew", func() error {
				cl, err := client.Open(ctx, urls, client.Options{ConnsPerNode: 1, RetryFor: patience})
				if err != nil {
					return err
				}
				defer cl.Close()
				var v view
				least := f.top.Load()
				if err := s.load.facet(cl, f).QueryRow(ctx, look).Scan(v.fields()...); err != nil {
					return err
				}
				if v.n < least || v.wrong() != "" {
					s.t.Errorf("%s: a client that came anew reads %+v %s, %d had been told before", f.name, v, v.wrong(), least)
				}
				return nil
			})
		})
	}
	wg.Wait()
}
