//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/facetd/facetd/client"
)

// Every facet of a workload holds one list, and all that is done to it appends to
// the list or reads its end: entry n has an id nobody else writes. Beside it a
// trigger counts the entries, and accounts hold an amount of money that never
// changes in sum. So one look at the end of a facet tells of every write whether it
// is there, how often and in which order, also of those whose callers were never
// answered; what porcupine has to find out is whether real time agrees.
const schema = `CREATE TABLE entry (n INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE counter (n INTEGER NOT NULL);
INSERT INTO counter VALUES (0);
CREATE TRIGGER count_entry AFTER INSERT ON entry BEGIN UPDATE counter SET n = n + 1; END;
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0));
INSERT INTO account VALUES (0, 100), (1, 100), (2, 100), (3, 100), (4, 100), (5, 100), (6, 100), (7, 100);`

const accounts, money = 8, 800

// look reads the end of the list and what must agree with it, in one statement.
const look = `SELECT coalesce(max(n), 0), coalesce((SELECT id FROM entry ORDER BY n DESC LIMIT 1), ''),
	(SELECT n FROM counter), (SELECT sum(balance) FROM account) FROM entry`

// view is the end of a list as a reader saw it.
type view struct {
	n, counted, sum int64
	id              string
}

func (v *view) fields() []any { return []any{&v.n, &v.id, &v.counted, &v.sum} }

// wrong tells what does not agree within one look.
func (v view) wrong() string {
	switch {
	case v.n != v.counted:
		return fmt.Sprintf("the last entry is %d, the trigger counted %d", v.n, v.counted)
	case v.sum != money:
		return fmt.Sprintf("there is %d money instead of %d", v.sum, money)
	}
	return ""
}

type opKind uint8

const (
	opAppend opKind = iota // append in any case
	opSwap                 // append if the list has a certain length
	opRead
	opPeek // read what a copy has, which may be behind
)

// opInput is what was asked.
type opInput struct {
	kind opKind
	id   string // of the entry to append
	want int64  // opSwap: the length
}

// opOutput is what was answered.
type opOutput struct {
	n       int64 // length of the list afterwards
	id      string
	applied bool
}

// outcome says what the caller of an operation knows.
type outcome uint8

const (
	done    outcome = iota // answered
	notDone                // told that it did not happen
	unknown                // it may have happened
)

// event is one operation of a history.
type event struct {
	client    int
	in        opInput
	out       opOutput
	outcome   outcome
	call, ret time.Duration // since the load began
	err       error
}

// listModel is a list of which the length and the last entry are looked at.
var listModel = porcupine.Model{
	Init: func() any { return opOutput{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(opOutput), input.(opInput), output.(opOutput)
		switch {
		case in.kind == opRead:
			return out.n == s.n && out.id == s.id, s
		case in.kind == opSwap && !out.applied:
			return s.n != in.want, s
		case in.kind == opSwap && s.n != in.want:
			return false, s
		}
		return out.n == s.n+1, opOutput{n: s.n + 1, id: in.id}
	},
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v: %+v", input, output)
	},
}

// audit reads everything there is on the facet in the end, and compares it with
// what its callers were told. It returns how many entries there are.
func audit(t testing.TB, cl *client.Client, f *loadFacet) int {
	t.Helper()
	fac, err := cl.Facet(f.name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var ok string
	if err := fac.QueryRow(ctx, "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		t.Errorf("%s: integrity: %s %v", f.name, ok, err)
	}
	var v view
	if err := fac.QueryRow(ctx, look).Scan(v.fields()...); err != nil {
		t.Errorf("%s: the last look: %v", f.name, err)
		return 0
	}
	if w := v.wrong(); w != "" {
		t.Errorf("%s in the end: %s", f.name, w)
	}
	rows, err := fac.Query(ctx, "SELECT n, id FROM entry ORDER BY n")
	if err != nil {
		t.Errorf("%s: read the list: %v", f.name, err)
		return 0
	}
	at := make(map[string]int64)
	var n int64
	for rows.Next() {
		var id string
		last := n
		if err := rows.Scan(&n, &id); err != nil {
			t.Fatal(err)
		}
		if n != last+1 {
			t.Errorf("%s: entry %d follows entry %d", f.name, n, last)
		}
		if at[id] != 0 {
			t.Errorf("%s: entry %s is there twice, as %d and %d", f.name, id, at[id], n)
		}
		at[id] = n
	}
	if err := rows.Close(); err != nil {
		t.Errorf("%s: read the list: %v", f.name, err)
		return 0
	}
	f.check(t, at)
	return len(at)
}

// check compares the history of the facet with where its entries are.
func (f *loadFacet) check(t testing.TB, at map[string]int64) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := make([]porcupine.Operation, 0, len(f.events))
	asked := make(map[string]bool, len(at))
	for _, e := range f.events {
		n, there := at[e.in.id]
		if e.in.kind != opRead {
			asked[e.in.id] = true
		}
		switch {
		case e.in.kind == opRead && e.outcome != done:
			continue
		case e.in.kind == opRead:
		case e.outcome == done && e.out.applied && !there:
			t.Errorf("%s: %s was acknowledged as %d at %v and is gone (asked at %v)", f.name, e.in.id, e.out.n, e.ret, e.call)
		case e.outcome == done && e.out.applied && n != e.out.n:
			t.Errorf("%s: %s was acknowledged as %d at %v and is %d", f.name, e.in.id, e.out.n, e.ret, n)
		case e.outcome == done && !e.out.applied && there:
			t.Errorf("%s: %s was refused at %v because the list had another length, and is there as %d", f.name, e.in.id, e.ret, n)
		case e.outcome == notDone && there:
			t.Errorf("%s: %s was not done, its caller was told at %v (%v), but is there as %d", f.name, e.in.id, e.ret, e.err, n)
		case e.outcome != done && !there:
			continue
		case e.outcome == unknown:
			// It happened at some time after it was asked, nobody knows when.
			e.out, e.ret = opOutput{n: n, applied: true}, math.MaxInt64
		}
		ops = append(ops, porcupine.Operation{ClientId: e.client, Input: e.in, Output: e.out, Call: int64(e.call), Return: int64(e.ret)})
	}
	for id, n := range at {
		if !asked[id] {
			t.Errorf("%s: nobody wrote entry %d, %s", f.name, n, id)
		}
	}
	for _, p := range f.peeks {
		if p.n != at[p.id] {
			t.Errorf("%s: a copy showed %d, %q to a read asked at %v, which is not in the list", f.name, p.n, p.id, p.at)
		}
	}
	switch porcupine.CheckOperationsTimeout(listModel, ops, time.Minute) {
	case porcupine.Illegal:
		t.Errorf("%s: no order of its %d operations agrees with real time", f.name, len(ops))
	case porcupine.Unknown:
		t.Logf("%s: whether its %d operations agree with real time was not found out within a minute", f.name, len(ops))
	}
}

// TestHistoryChecks shows that the checks of this file find what they are for.
func TestHistoryChecks(t *testing.T) {
	add := func(id string, n int64, o outcome, call, ret time.Duration) event {
		return event{in: opInput{kind: opAppend, id: id}, out: opOutput{n: n, applied: true}, outcome: o, call: call, ret: ret}
	}
	read := func(n int64, id string, call, ret time.Duration) event {
		return event{in: opInput{kind: opRead}, out: opOutput{n: n, id: id}, call: call, ret: ret}
	}
	for _, c := range []struct {
		name   string
		events []event
		at     map[string]int64
		bad    bool
	}{
		{"all well", []event{add("a", 1, done, 0, 5), add("b", 0, unknown, 1, 2), read(2, "b", 7, 8)}, map[string]int64{"a": 1, "b": 2}, false},
		{"unknown and never done", []event{add("a", 1, done, 0, 5), add("b", 0, unknown, 1, 2)}, map[string]int64{"a": 1}, false},
		{"lost", []event{add("a", 1, done, 0, 5)}, nil, true},
		{"moved", []event{add("a", 1, done, 0, 5), add("b", 1, done, 6, 7)}, map[string]int64{"a": 1, "b": 2}, true},
		{"done after all", []event{add("a", 1, notDone, 0, 5)}, map[string]int64{"a": 1}, true},
		{"stale read", []event{add("a", 1, done, 0, 5), read(0, "", 6, 7)}, map[string]int64{"a": 1}, true},
		{"read from the future", []event{read(1, "a", 0, 1), add("a", 0, unknown, 2, 5)}, map[string]int64{"a": 1}, true},
		{"out of nothing", nil, map[string]int64{"a": 1}, true},
	} {
		r := &recorder{TB: t}
		(&loadFacet{name: "acme/paper", events: c.events}).check(r, c.at)
		if (r.errors > 0) != c.bad {
			t.Errorf("%s: %d complaints", c.name, r.errors)
		}
	}
	for _, c := range []struct {
		peek peek
		bad  bool
	}{{peek{n: 1, id: "a"}, false}, {peek{}, false}, {peek{n: 2, id: "a"}, true}, {peek{n: 1, id: "b"}, true}} {
		r := &recorder{TB: t}
		f := &loadFacet{name: "acme/paper", events: []event{add("a", 1, done, 0, 5)}, peeks: []peek{c.peek}}
		if f.check(r, map[string]int64{"a": 1}); (r.errors > 0) != c.bad {
			t.Errorf("%+v: %d complaints", c.peek, r.errors)
		}
	}
}

// recorder counts complaints instead of failing.
type recorder struct {
	testing.TB
	errors int
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.errors++ }
