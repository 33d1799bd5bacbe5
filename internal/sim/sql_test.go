package sim

import (
	"strings"

	"github.com/facetd/facetd/facet"
)

// The SQL of an operation.

func step(sql string, args ...int64) facet.Step {
	st := facet.Step{SQL: []byte(sql), NArgs: len(args)}
	for _, a := range args {
		st.Args = facet.AppendInt(st.Args, a)
	}
	return st
}

func schema() []facet.Step {
	return []facet.Step{
		step("CREATE TABLE IF NOT EXISTS log(at INTEGER PRIMARY KEY, id INTEGER NOT NULL)"),
		step("CREATE TABLE IF NOT EXISTS cell(k INTEGER PRIMARY KEY, v INTEGER NOT NULL)"),
		step("CREATE TABLE IF NOT EXISTS bank(k INTEGER PRIMARY KEY, v INTEGER NOT NULL)"),
	}
}

func insert(id int64) facet.Step { return step("INSERT INTO log(id) VALUES(?)", id) }

func reading() []facet.Step {
	return []facet.Step{
		step("SELECT 'log', id FROM log ORDER BY at"),
		step("SELECT 'cell', k, v FROM cell"),
		step("SELECT 'bank', k, v FROM bank"),
	}
}

const upsert = "INSERT INTO cell VALUES(?, ?) ON CONFLICT(k) DO UPDATE SET v = "

func request(name facet.Name, in input, key facet.Key) facet.Request {
	req := facet.Request{Name: name, Atomic: true, Key: key}
	if in.kind == opRead {
		req.ReadOnly, req.Read, req.Steps = true, in.how, reading()
		return req
	}
	req.Steps = append(schema(), insert(in.id))
	switch in.kind {
	case opAdd:
		req.Steps = append(req.Steps, step(upsert+"v + excluded.v", 1, in.arg), step("SELECT 'cell', k, v FROM cell WHERE k = 1"))
	case opSet:
		req.Steps = append(req.Steps, step(upsert+"excluded.v", 2, in.arg))
	case opCAS:
		// A register nobody has set is 0.
		req.Steps = append(req.Steps, step("INSERT OR IGNORE INTO cell VALUES(2, 0)"),
			step("UPDATE cell SET v = ? WHERE k = 2 AND v = ?", in.arg, in.old), step("SELECT 'did', changes()"))
	case opPay:
		from, to := in.accounts()
		for i := range int64(accounts) {
			req.Steps = append(req.Steps, step("INSERT OR IGNORE INTO bank VALUES(?, ?)", i, deposit))
		}
		req.Steps = append(req.Steps, step("UPDATE bank SET v = v - ? WHERE k = ? AND v >= ?", in.arg, int64(from), in.arg),
			step("UPDATE bank SET v = v + ? WHERE k = ? AND changes() = 1", in.arg, int64(to)), step("SELECT 'did', changes()"))
	}
	req.Steps = append(req.Steps, step("SELECT 'n', count(*) FROM log"))
	return req
}

// unwritten reports whether err is what reading a facet gives that nobody has
// written to.
func unwritten(err error) bool {
	return codeOf(err) == facet.CodeSQL && strings.Contains(err.Error(), "no such table")
}

// read takes the rows of a result apart.
func read(r facet.Result, in input) (out output, err error) {
	for len(r) > 0 {
		it, rest, err := r.Next()
		if err != nil {
			return out, err
		}
		r = rest
		switch it.Kind {
		case facet.ItemError:
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				return out, err
			}
			if in.kind == opRead && unwritten(e) {
				return output{}, nil
			}
			return out, e
		case facet.ItemRow:
			row, err := facet.Values(it.Body).Decode(nil)
			if err != nil {
				return out, err
			}
			switch what := string(row[0].Bytes); {
			case what == "log":
				out.state = out.state.with(row[1].Int)
				if in.kind == opRead && in.id < 0 {
					out.log = append(out.log, row[1].Int)
				}
			case what == "n":
				out.state.n = row[1].Int
			case what == "did":
				out.did = row[1].Int != 0
			case what == "bank" && row[1].Int >= 0 && row[1].Int < accounts:
				out.state.gain[row[1].Int] = row[2].Int - deposit
				out.rows++
			case what == "cell" && row[1].Int == 1:
				out.state.counter = row[2].Int
			case what == "cell":
				out.state.reg = row[2].Int
			}
		}
	}
	return out, nil
}
