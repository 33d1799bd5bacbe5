package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/facetd/facetd/cluster"
	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/replica"
	"github.com/facetd/facetd/node/service"
	"github.com/facetd/facetd/placement"
)

const (
	// servesWithin is how long after everything is mended each facet must answer at
	// each node, and agreesWithin how long its copies may take to be equal and as
	// many as they should: a node that was away is not waited for longer than
	// RepairAfter, and two nodes may have to be gone through.
	servesWithin = 40 * time.Second
	agreesWithin = 180 * time.Second
	// leavesWithin is how long a node may take to hand all it has to others, faults
	// and what they leave behind included.
	leavesWithin = 300 * time.Second
	// searchFor bounds the search for a linearization.
	searchFor = 20 * time.Second
)

// settle checks that the cluster serves again, once all is mended.
func (w *world) settle() {
	began := time.Now()
	for _, m := range w.all() {
		l := m.current()
		if !w.until(servesWithin, func() bool { l = m.current(); return l != nil && l.isReady() }) {
			w.problem("node %s does not come up within %v of the end of all faults", m.id, servesWithin)
		}
	}
	w.leave.Wait()
	w.undrain()
	s := w.session(1000)
	for _, spec := range w.names {
		for _, l := range w.running() {
			ctx, cancel := context.WithTimeout(context.Background(), servesWithin)
			s.owner[spec.name] = l.m.id
			_, ok := s.do(ctx, spec.name, input{kind: opAdd, id: w.number(), arg: 1}, !spec.deleted)
			cancel()
			if !ok {
				w.problem("%s does not serve, asked at %s, %v after the end of all faults", spec.name, l.name, time.Since(began))
			}
		}
	}
	w.tell("everything serves again after %v", time.Since(began))
}

// undrain lets every node own facets again that a drain kept from it.
func (w *world) undrain() {
	for _, m := range w.all() {
		var err error
		if !w.until(servesWithin, func() bool {
			l := w.leader()
			if l == nil {
				return false
			}
			if n, ok := l.node.Table().Node(m.id); ok && n.State == placement.NodeActive {
				return true
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, err = operator(l).Start(ctx, service.OperationRequest{Kind: service.OpUndrain, Node: m.id})
			return false
		}) {
			w.problem("node %s cannot be undrained: %v", m.id, err)
		}
	}
}

// verify judges the whole run. Nobody works any more.
func (w *world) verify() {
	s := w.session(1001)
	for _, spec := range w.names {
		ctx, cancel := context.WithTimeout(context.Background(), servesWithin)
		out, ok := s.do(ctx, spec.name, input{kind: opRead, id: -1, how: facet.ReadQuorum}, false)
		if ok {
			w.finals[spec.name] = out.log
		} else {
			w.problem("%s cannot be read in the end", spec.name)
		}
		cancel()
	}
	w.agree()
	w.spread()
	for _, spec := range w.names {
		ctx, cancel := context.WithTimeout(context.Background(), servesWithin)
		w.sound(ctx, s, spec.name)
		cancel()
	}
	if !w.plan.has("rot") {
		w.compared()
	}
}

// judgeAll judges what sessions were told. It takes real time, and is done when the
// cluster is gone: in a bubble no search for a linearization runs out of time.
func (w *world) judgeAll() {
	for _, spec := range w.names {
		if log, ok := w.finals[spec.name]; ok {
			w.judge(spec, log)
		}
	}
}

// compared checks that comparisons of copies found nothing: no disk here changes what it
// holds, and copies that end at one position are equal (I9).
func (w *world) compared() {
	for _, l := range w.running() {
		for _, name := range []string{"facetd_copies_outvoted_total", "facetd_facets_undecided_total"} {
			if n := w.metric(l, name); n > 0 {
				w.problem("%s: %s %v", l.name, name, n)
			}
		}
		if w.metric(l, "facetd_compared_nodes_total") > 0 {
			w.note("compared")
		}
	}
}

// metric is a figure a node shows, zero if it shows none of that name.
func (w *world) metric(l *life, name string) (v float64) {
	var b strings.Builder
	if err := l.node.Service().Metrics(&b); err != nil {
		w.problem("metrics of %s: %v", l.name, err)
	}
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Sscanf(line, name+" %g\n", &v); err == nil {
			return v
		}
	}
	return 0
}

// sound asks SQLite whether the database is whole: at its owner, and in the copy of each
// member.
func (w *world) sound(ctx context.Context, s *session, name facet.Name) {
	l := w.leader()
	if l == nil {
		w.problem("integrity of %s: nobody leads placement", name)
		return
	}
	row, ok := l.node.Table().Lookup(name)
	if !ok {
		return // deleted
	}
	for _, member := range row.Active.Members() {
		var err error
		why := ""
		if !w.until(servesWithin, func() bool {
			l := w.lifeOf(member.Node)
			if l == nil {
				err = errGone
				return false
			}
			var resp facet.Response
			resp, err = s.call(ctx, l, facet.Request{Name: name, ReadOnly: true, Read: facet.ReadFollower, Steps: []facet.Step{step("PRAGMA integrity_check")}})
			if err == nil {
				why, err = integrity(resp.Result)
			}
			return err == nil
		}) {
			w.problem("integrity of %s at %s: %v", name, member.Node, err)
		} else if why != "ok" {
			w.problem("integrity of %s at %s: %s", name, member.Node, why)
		} else {
			w.note("copy checked by SQLite")
		}
	}
}

// integrity is the first line of the answer to PRAGMA integrity_check.
func integrity(r facet.Result) (string, error) {
	for len(r) > 0 {
		it, rest, err := r.Next()
		if err != nil {
			return "", err
		}
		if r = rest; it.Kind == facet.ItemRow {
			row, err := facet.Values(it.Body).Decode(nil)
			if err != nil || len(row) != 1 {
				return "", fmt.Errorf("row %v: %w", row, err)
			}
			return string(row[0].Bytes), nil
		}
	}
	return "", errors.New("no row")
}

// judge compares what sessions were told of a facet with each other and with what is
// in it.
func (w *world) judge(spec facetSpec, log []int64) {
	l := w.ledger(spec.name)
	var final map[int64]int
	if !spec.deleted {
		final = map[int64]int{}
		for _, id := range log {
			final[id]++
		}
		w.acknowledged(l, maps.Clone(final))
		w.positions(l)
		w.peeks(l, log)
	}
	h := l.history(final)
	res, info := porcupine.CheckOperationsVerbose(model, h, searchFor)
	switch res {
	case porcupine.Illegal:
		w.problem("the history of %s is not linearizable (%d operations)%s", spec.name, len(h), w.draw(spec, info))
		w.tell("history of %s:", spec.name)
		for _, o := range l.ops {
			w.tell("  session %d, %.3f-%.3f [%d, %d]: %v → %+v", o.session, o.at.Seconds(), o.until.Seconds(), o.call, o.ret, o.in, o.out)
		}
	case porcupine.Unknown:
		w.note("history too hard to judge")
		w.tell("the history of %s was not judged within %v (%d operations)", spec.name, searchFor, len(h))
	}
}

// acknowledged: every write that was acknowledged is there, once.
func (w *world) acknowledged(l *ledger, final map[int64]int) {
	for _, o := range l.ops {
		if o.in.kind == opRead {
			continue
		}
		switch n := final[o.in.id]; {
		case n > 1:
			w.problem("%s: write %v of session %d took effect %d times", l.name, o.in, o.session, n)
		case n == 0 && !o.out.unknown:
			w.problem("%s: write %v of session %d was acknowledged at %.3f in %v by %s and is not there", l.name, o.in, o.session, o.until.Seconds(), o.out.pos, o.out.life)
		}
		delete(final, o.in.id)
	}
	for id, n := range final {
		if n > 0 {
			w.problem("%s: write #%d is there, and nobody was told that it may be", l.name, id)
		}
	}
}

// peeks: what a member answered from its copy is what the facet was at some time, and
// was committed: nothing in it was taken back.
func (w *world) peeks(l *ledger, log []int64) {
	was := []state{{}}
	for _, id := range log {
		was = append(was, was[len(was)-1].with(id))
	}
	for _, g := range l.glances {
		if n := g.state.n; n >= int64(len(was)) || was[n].hash != g.state.hash {
			w.problem("%s: %s answered session %d from %v with %d writes that are not the first ones of the log, which has %d",
				l.name, g.life, g.session, g.pos, n, len(log))
		}
	}
	w.note("peeks judged")
}

// positions: a position has one checksum, an epoch one owner, and nobody who asks
// later is answered from before.
func (w *world) positions(l *ledger) {
	type at struct {
		epoch facet.Epoch
		seq   facet.Seq
	}
	sums := map[at]op{}
	owners := map[facet.Epoch]op{}
	ops := slices.Clone(l.ops)
	ops = slices.DeleteFunc(ops, func(o op) bool { return o.out.unknown || o.out.pos.IsZero() })
	for _, o := range ops {
		k := at{o.out.pos.Epoch, o.out.pos.Seq}
		if was, ok := sums[k]; ok && was.out.pos.Sum != o.out.pos.Sum {
			w.problem("%s: position %v has two checksums: %s says %v, %s says %v", l.name, o.out.pos, was.out.life, was.out.pos.Sum, o.out.life, o.out.pos.Sum)
		}
		sums[k] = o
		if o.in.kind == opRead {
			continue
		}
		if was, ok := owners[k.epoch]; ok && was.out.life != o.out.life {
			w.problem("%s: epoch %v has two owners: %s and %s both acknowledged writes in it", l.name, k.epoch, was.out.life, o.out.life)
		}
		owners[k.epoch] = o
	}
	// By the moment of the answer; what was asked later must reflect as much.
	slices.SortFunc(ops, func(a, b op) int { return int(a.ret - b.ret) })
	byCall := slices.Clone(ops)
	slices.SortFunc(byCall, func(a, b op) int { return int(a.call - b.call) })
	var high op
	i := 0
	for _, o := range byCall {
		for ; i < len(ops) && ops[i].ret < o.call; i++ {
			if ops[i].out.pos.Compare(high.out.pos) > 0 {
				high = ops[i]
			}
		}
		if o.out.pos.Compare(high.out.pos) < 0 {
			w.problem("%s: %v of session %d was answered from %v by %s, after %v was answered from %v by %s",
				l.name, o.in, o.session, o.out.pos, o.out.life, high.in, high.out.pos, high.out.life)
			return
		}
	}
}

// agree checks that all copies become equal, and as many as they should be.
func (w *world) agree() {
	began := time.Now()
	why := ""
	s := w.session(1002)
	if !w.until(agreesWithin, func() bool {
		// A facet that was given to another owner is recovered when somebody asks.
		for _, spec := range w.names {
			if l := w.leader(); l != nil {
				if row, ok := l.node.Table().Lookup(spec.name); ok && row.State == placement.Recovering {
					ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
					s.do(ctx, spec.name, input{kind: opRead, id: -1}, false)
					cancel()
				}
			}
		}
		why = w.disagreement()
		return why == ""
	}) {
		w.problem("copies do not agree %v after the end of the work: %s", time.Since(began), why)
		w.show()
		return
	}
	for _, l := range w.running() {
		l.node.Copies(func(c replica.Meta) bool {
			if c.Health == replica.Uncertain { // until the next epoch; it counts, and is not recovered from alone
				w.note("copy uncertain in the end")
			}
			return true
		})
	}
	w.tell("all copies agree after %v", time.Since(began))
}

// disagreement is the first reason why copies do not agree, empty when they do.
func (w *world) disagreement() string {
	leader := w.leader()
	if leader == nil {
		return "nobody leads placement"
	}
	table := leader.node.Table()
	type key struct {
		store cluster.StoreID
		facet facet.Incarnation
	}
	copies := map[key]replica.Meta{}
	for _, m := range w.all() {
		l := m.current()
		if l == nil || !l.isReady() {
			return fmt.Sprintf("%s does not run", m.id)
		}
		n, ok := table.Node(m.id)
		if !ok {
			return fmt.Sprintf("%s is not in the table", m.id)
		}
		l.node.Copies(func(c replica.Meta) bool {
			copies[key{n.Store, c.ID}] = c
			return true
		})
	}
	want := min(w.plan.replicas, len(w.all()))
	want -= 1 - want%2 // the largest odd number there is
	for _, spec := range w.names {
		row, ok := table.Lookup(spec.name)
		if !ok {
			if spec.deleted {
				continue
			}
			return fmt.Sprintf("%s is not in the table", spec.name)
		}
		if row.State != placement.Active || !row.Next.Equal(row.Active) {
			return fmt.Sprintf("%s is %v in epoch %v, its set is %v and shall be %v", spec.name, row.State, row.Epoch, row.Active, row.Next)
		}
		if row.Active.Len() != want {
			return fmt.Sprintf("%s is kept by %v: want %d copies", spec.name, row.Active, want)
		}
		var first replica.Meta
		for i, member := range row.Active.Members() {
			c, ok := copies[key{member.Store, row.Incarnation}]
			if !ok {
				return fmt.Sprintf("%s has no copy at %s", spec.name, member.Node)
			}
			if i == 0 {
				first = c
			}
			if c.Last != first.Last || c.Durable != c.Last.Seq || c.Health > replica.Uncertain {
				return fmt.Sprintf("%s at %s: %v sum %v (durable %v, health %v); at %s: %v sum %v", spec.name, member.Node,
					c.Last, c.Last.Sum, c.Durable, c.Health, row.Active.Members()[0].Node, first.Last, first.Last.Sum)
			}
		}
	}
	return ""
}

// spread has the copies spread anew: those of each facet lie in as many zones as there
// are then.
func (w *world) spread() {
	if w.plan.zones == 0 {
		return
	}
	zones := map[cluster.NodeID]string{}
	distinct := map[string]bool{}
	for _, m := range w.all() {
		zones[m.id], distinct[m.zone] = m.zone, true
	}
	var asked time.Time
	why := "nobody leads placement"
	if !w.until(agreesWithin, func() bool {
		l := w.leader()
		if l == nil {
			return false
		}
		why = ""
		for row := range l.node.Table().Facets() {
			in := map[string]bool{}
			for _, m := range row.Active.Members() {
				in[zones[m.Node]] = true
			}
			if want := min(row.Active.Len(), len(distinct)); len(in) != want {
				why = fmt.Sprintf("%v is kept by %v, in %d zones of %d", row.Name, row.Active, len(in), want)
			}
		}
		if why != "" && time.Since(asked) > 20*time.Second {
			asked = time.Now()
			ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
			_, err := operator(l).Start(ctx, service.OperationRequest{Kind: service.OpRebalance})
			cancel()
			w.tell("%s: rebalance: %v", why, err)
			w.note("spread anew")
		}
		return why == ""
	}) {
		w.problem("copies are not spread over the zones %v after they were told to: %s", agreesWithin, why)
	}
}

// show writes down what the table and the nodes say of every facet.
func (w *world) show() {
	leader := w.leader()
	if leader == nil {
		return
	}
	for row := range leader.node.Table().Facets() {
		w.tell("%s %v: %v, epoch %v, owner %v, active %v in epoch %v, next %v", row.Name, row.Incarnation, row.State, row.Epoch, row.Owner.Node, row.Active, row.ActiveEpoch, row.Next)
		for _, l := range w.running() {
			l.node.Copies(func(c replica.Meta) bool {
				if c.ID == row.Incarnation {
					w.tell("  at %s: %v sum %v, durable %v, committed %v, base %v, promised %v, health %v, open %v", l.name, c.Last, c.Last.Sum, c.Durable, c.CommitKnown, c.Base, c.Promised, c.Health, c.Open)
				}
				return true
			})
		}
	}
}

// draw writes porcupine's picture of a history that cannot be, if wanted.
func (w *world) draw(spec facetSpec, info porcupine.LinearizationInfo) string {
	if *pictures == "" {
		return ""
	}
	file := fmt.Sprintf("%s/seed-%d-%s.html", *pictures, w.plan.seed, spec.name.Facet)
	if err := porcupine.VisualizePath(model, info, file); err != nil {
		return " (" + err.Error() + ")"
	}
	return ", see " + file
}
