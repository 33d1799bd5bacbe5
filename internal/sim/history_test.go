package sim

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/facetd/facetd/facet"
)

// kind is what an operation does. Every write also appends its number to the
// facet's log, in the same transaction: the log read at the end tells what became of
// every write and in which order, and a number that is there twice was done twice.
type kind uint8

const (
	opRead   kind = iota // log, counter and register, in one transaction
	opAppend             // nothing but the number
	opAdd                // counter += arg
	opSet                // register = arg
	opCAS                // register = arg if it is old
	opTx                 // read, then append, in an interactive transaction
	opPay                // arg from one account to another, if it has as much
	opPayTx              // the same in an interactive transaction, which reads before
	opDelete             // the facet
)

func (k kind) String() string {
	return [...]string{"read", "append", "add", "set", "cas", "tx", "pay", "pay tx", "delete"}[k]
}

// input is an operation as a session means it.
type input struct {
	kind kind
	id   int64 // number of the write, unique in the run
	arg  int64
	old  int64          // cas: what the register must be; pay: from and to, see accounts
	how  facet.ReadMode // of a read
}

const (
	accounts = 4
	// deposit is what each account begins with: the sum of all never changes.
	deposit = 100
)

// accounts gives who pays whom.
func (in input) accounts() (from, to int) {
	return int(in.old) / accounts % accounts, int(in.old) % accounts
}

// state is a facet's content, as a model sees it.
type state struct {
	n       int64  // numbers in the log
	hash    uint64 // of them, in order
	counter int64
	reg     int64
	gain    [accounts]int64 // of each account, since it was opened
}

func (s state) with(id int64) state {
	s.n++
	s.hash = (s.hash ^ uint64(id)) * 0x9e3779b97f4a7c15
	s.hash ^= s.hash >> 29
	return s
}

// output is what a session was answered.
type output struct {
	unknown bool
	state   state   // read; of a write, what n and counter it returned
	did     bool    // cas, pay: it changed something; delete: there was a facet
	log     []int64 // of a read that wants it
	rows    int     // accounts a read found
	// Of answers that name one.
	pos  facet.Position
	life string
}

func (in input) String() string {
	return fmt.Sprintf("%v #%d arg %d old %d", in.kind, in.id, in.arg, in.old)
}

// model is what a facet is for its users, in thirty lines: one state, and operations
// that happen one after the other.
var model = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		st, i, o := s.(state), in.(input), out.(output)
		if i.kind == opRead {
			return o.unknown || o.state == st, st
		}
		next, did := apply(st, i)
		if o.unknown {
			return true, next
		}
		switch i.kind {
		case opDelete:
			if !o.did { // there was nothing to delete
				return st == state{}, st
			}
			return true, next
		case opTx:
			return o.state == st, next
		case opPayTx:
			return o.state == st && o.did == did, next
		case opPay:
			return o.state.n == next.n && o.did == did, next
		case opAdd:
			return o.state.n == next.n && o.state.counter == next.counter, next
		case opCAS:
			return o.state.n == next.n && o.did == did, next
		}
		return o.state.n == next.n, next
	},
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%v → %+v", in, out)
	},
	DescribeState: func(s any) string { return fmt.Sprintf("%+v", s) },
}

func apply(st state, i input) (next state, did bool) {
	if i.kind == opDelete {
		return state{}, true
	}
	next = st.with(i.id)
	switch i.kind {
	case opAdd:
		next.counter += i.arg
	case opSet:
		next.reg = i.arg
	case opCAS:
		if did = st.reg == i.old; did {
			next.reg = i.arg
		}
	case opPay, opPayTx:
		from, to := i.accounts()
		if did = st.gain[from]+deposit >= i.arg; did {
			next.gain[from] -= i.arg
			next.gain[to] += i.arg
		}
	}
	return next, did
}

// stamps orders what sessions see. Virtual time stands still while they work, so it
// cannot.
var stamps atomic.Int64

// op is one operation of a history.
type op struct {
	session int
	in      input
	out     output
	call    int64
	ret     int64 // math.MaxInt64 while its outcome is unknown
	at      time.Duration
	until   time.Duration
}

// ledger is everything sessions know of one facet.
type ledger struct {
	name    facet.Name
	mu      sync.Mutex
	ops     []op
	glances []glance
}

// glance is what some member answered from its copy, which may be old.
type glance struct {
	session int
	life    string
	pos     facet.Position
	state   state
}

func (l *ledger) peeked(g glance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.glances = append(l.glances, g)
}

func (w *world) ledger(name facet.Name) *ledger {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.facets[name.String()]
	if l == nil {
		l = &ledger{name: name}
		w.facets[name.String()] = l
	}
	return l
}

func (l *ledger) add(o op) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, o)
}

// history is the ledger for porcupine. Writes of unknown outcome whose number is
// not in the final log never happened; the others may have at any time. A facet that
// was deleted meanwhile has no such log: final is nil then.
func (l *ledger) history(final map[int64]int) []porcupine.Operation {
	var out []porcupine.Operation
	for _, o := range l.ops {
		if o.out.unknown && (o.in.kind == opRead || final != nil && final[o.in.id] == 0) {
			continue
		}
		ret := o.ret
		if o.out.unknown {
			ret = math.MaxInt64
		}
		out = append(out, porcupine.Operation{ClientId: o.session, Input: o.in, Output: o.out, Call: o.call, Return: ret})
	}
	return out
}
