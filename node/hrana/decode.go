package hrana

import (
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// kind is the type of a stream request.
type kind uint8

const (
	kindNone kind = iota
	kindClose
	kindExecute
	kindBatch
	kindSequence
	kindDescribe
	kindStoreSQL
	kindCloseSQL
	kindGetAutocommit
)

var kinds = map[string]kind{
	"close": kindClose, "execute": kindExecute, "batch": kindBatch, "sequence": kindSequence,
	"describe": kindDescribe, "store_sql": kindStoreSQL, "close_sql": kindCloseSQL,
	"get_autocommit": kindGetAutocommit,
}

// text is a SQL text as requests name it: itself, or the id of a stored one.
type text struct {
	sql    []byte
	id     int32
	hasSQL bool
	hasID  bool
}

// streamRequest is one request of a pipeline. steps holds one step for execute,
// any number for batch; texts the SQL of each, still to be looked up.
type streamRequest struct {
	kind  kind
	text  text
	steps []facet.Step
	texts []text
}

// pipelineBody is the body of a pipeline or, with cursor, of a cursor request.
type pipelineBody struct {
	baton    []byte
	requests []streamRequest
}

// decoder reads one body. Everything it returns aliases the body.
type decoder struct {
	*httpjson.Reader
	steps      int
	conditions int
	args       facet.Values // of all steps so far
}

// malformed is an error that is about the body as a whole.
func malformed(format string, args ...any) error {
	return facet.Errorf(facet.CodeBadRequest, format, args...)
}

func tooMany(limit string, n int, what string) error {
	return &facet.Error{Code: facet.CodeLimit, Limit: limit, Message: fmt.Sprintf("more than %d %s", n, what)}
}

func decodePipeline(src []byte) (*pipelineBody, error) {
	return decodeBody(src, func(d *decoder, b *pipelineBody, key []byte) error {
		if string(key) != "requests" {
			return d.Skip()
		}
		return d.each(func() error {
			if len(b.requests) == MaxRequests {
				return tooMany("hrana_requests", MaxRequests, "requests in one pipeline")
			}
			var req streamRequest
			if err := d.request(&req); err != nil {
				return fmt.Errorf("request %d: %w", len(b.requests), err)
			}
			b.requests = append(b.requests, req)
			return nil
		})
	})
}

func decodeCursor(src []byte) (*pipelineBody, error) {
	b, err := decodeBody(src, func(d *decoder, b *pipelineBody, key []byte) error {
		if string(key) != "batch" {
			return d.Skip()
		}
		b.requests = append(b.requests[:0], streamRequest{kind: kindBatch})
		return d.batch(&b.requests[0])
	})
	if err == nil && len(b.requests) == 0 {
		return nil, malformed("the cursor request has no batch")
	}
	return b, err
}

func decodeBody(src []byte, field func(*decoder, *pipelineBody, []byte) error) (*pipelineBody, error) {
	r, err := httpjson.NewReader(src)
	if err != nil {
		return nil, err
	}
	d, b := &decoder{Reader: r}, &pipelineBody{}
	err = d.fields(func(key []byte) error {
		if string(key) == "baton" {
			return d.optional(func() (err error) {
				if b.baton, err = d.Str(); err == nil && len(b.baton) > maxBatonLen {
					err = malformed("the baton is not one of ours")
				}
				return err
			})
		}
		return field(d, b, key)
	})
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// fields calls f for every key of an object; f reads or skips the value.
func (d *decoder) fields(f func(key []byte) error) error {
	if err := d.Object(); err != nil {
		return err
	}
	var names httpjson.Names
	for {
		key, more, err := d.Key()
		if err != nil || !more {
			return err
		}
		if err := d.Once(&names, key); err != nil {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
	}
}

// each calls f at every element of an array.
func (d *decoder) each(f func() error) error {
	if err := d.Array(); err != nil {
		return err
	}
	for {
		more, err := d.Elem()
		if err != nil || !more {
			return err
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// optional calls f unless the value is null.
func (d *decoder) optional(f func() error) error {
	if d.Kind() == 'n' {
		return d.Null()
	}
	return f()
}

func (d *decoder) request(req *streamRequest) error {
	var name []byte
	err := d.fields(func(key []byte) (err error) {
		switch string(key) {
		case "type":
			name, err = d.Str()
		case "stmt":
			req.steps, req.texts = make([]facet.Step, 1), make([]text, 1)
			err = d.stmt(&req.steps[0], &req.texts[0])
		case "batch":
			err = d.batch(req)
		case "sql", "sql_id":
			err = d.text(&req.text, key)
		default:
			err = d.Skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	req.kind = kinds[string(name)]
	switch req.kind {
	case kindNone:
		return malformed("unknown type %s", quote(name))
	case kindExecute:
		if len(req.steps) != 1 {
			return malformed("execute without stmt")
		}
	case kindBatch:
		if req.steps == nil {
			return malformed("batch without batch")
		}
	case kindStoreSQL:
		if !req.text.hasID || !req.text.hasSQL {
			return malformed("store_sql wants sql and sql_id")
		}
	case kindCloseSQL:
		if !req.text.hasID {
			return malformed("close_sql wants sql_id")
		}
	}
	return nil
}

func (d *decoder) text(t *text, key []byte) error {
	return d.optional(func() error {
		if string(key) == "sql" {
			sql, err := d.Str()
			if err != nil {
				return err
			}
			if len(sql) > facet.MaxSQLLen {
				return &facet.Error{Code: facet.CodeLimit, Limit: "sql_bytes", Message: fmt.Sprintf("the SQL text has %d bytes, limit %d", len(sql), facet.MaxSQLLen)}
			}
			t.sql, t.hasSQL = sql, true
			return nil
		}
		n, err := d.Int()
		if err != nil {
			return err
		}
		if n != int64(int32(n)) {
			return malformed("sql_id %d does not fit 32 bits", n)
		}
		t.id, t.hasID = int32(n), true
		return nil
	})
}

func (d *decoder) batch(req *streamRequest) error {
	req.steps, req.texts = []facet.Step{}, nil
	return d.fields(func(key []byte) error {
		if string(key) != "steps" {
			return d.Skip()
		}
		return d.each(func() error {
			if len(req.steps) == facet.MaxSteps {
				return tooMany("steps", facet.MaxSteps, "steps in one batch")
			}
			var st facet.Step
			var t text
			if err := d.step(&st, &t, len(req.steps)); err != nil {
				return fmt.Errorf("step %d: %w", len(req.steps), err)
			}
			req.steps, req.texts = append(req.steps, st), append(req.texts, t)
			return nil
		})
	})
}

// step reads a batch step, which may depend on the n steps before it.
func (d *decoder) step(st *facet.Step, t *text, n int) error {
	there := false
	err := d.fields(func(key []byte) error {
		switch string(key) {
		case "stmt":
			there = true
			cond := st.Condition
			err := d.stmt(st, t)
			st.Condition = cond
			return err
		case "condition":
			return d.optional(func() error {
				st.Condition = new(facet.Condition)
				return d.condition(st.Condition, n, 1)
			})
		}
		return d.Skip()
	})
	if err == nil && !there {
		return malformed("no stmt")
	}
	return err
}

var condOps = map[string]facet.CondOp{
	"ok": facet.CondOK, "error": facet.CondError, "not": facet.CondNot, "and": facet.CondAnd,
	"or": facet.CondOr, "is_autocommit": facet.CondAutocommit,
}

func (d *decoder) condition(c *facet.Condition, steps, depth int) error {
	if depth > facet.MaxConditionDepth {
		return tooMany("condition_depth", facet.MaxConditionDepth, "levels of conditions")
	}
	if d.conditions++; d.conditions > MaxConditions {
		return tooMany("conditions", MaxConditions, "conditions in one request")
	}
	var name []byte
	var one, many []facet.Condition
	step := int64(-1)
	err := d.fields(func(key []byte) (err error) {
		switch string(key) {
		case "type":
			name, err = d.Str()
		case "step":
			step, err = d.Int()
		case "cond":
			one = make([]facet.Condition, 1)
			err = d.condition(&one[0], steps, depth+1)
		case "conds":
			many = nil
			err = d.each(func() error {
				many = append(many, facet.Condition{})
				return d.condition(&many[len(many)-1], steps, depth+1)
			})
		default:
			err = d.Skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	c.Op = condOps[string(name)]
	switch c.Op {
	case facet.CondOK, facet.CondError:
		if step < 0 || step >= int64(steps) {
			return malformed("condition on step %d, which is not an earlier one", step)
		}
		c.Step = int(step)
	case facet.CondNot:
		if c.Conds = one; one == nil {
			return malformed("condition not without cond")
		}
	case facet.CondAnd, facet.CondOr:
		c.Conds = many
	case facet.CondAutocommit:
	default:
		return malformed("unknown condition %s", quote(name))
	}
	return nil
}

func (d *decoder) stmt(st *facet.Step, t *text) error {
	if d.steps++; d.steps > MaxPipelineSteps {
		return tooMany("pipeline_steps", MaxPipelineSteps, "statements in one pipeline")
	}
	*st, *t = facet.Step{}, text{}
	return d.fields(func(key []byte) error {
		switch string(key) {
		case "sql", "sql_id":
			return d.text(t, key)
		case "want_rows":
			return d.optional(func() error {
				want, err := d.Bool()
				st.NoRows = !want
				return err
			})
		case "args":
			return d.optional(func() error { return d.arguments(st, false) })
		case "named_args":
			return d.optional(func() error { return d.arguments(st, true) })
		}
		return d.Skip()
	})
}

// arguments reads args or named_args; both may be there, but only one with
// anything in it.
func (d *decoder) arguments(st *facet.Step, names bool) error {
	// Everything goes to one growing buffer. A step keeps the part it got even
	// when the buffer moves on to a larger array.
	start, n := len(d.args), 0
	err := d.each(func() error {
		if n++; st.NArgs+n > facet.MaxArgs {
			return tooMany("args", facet.MaxArgs, "arguments in one statement")
		}
		if !names {
			return d.value()
		}
		var name []byte
		var there bool
		err := d.fields(func(key []byte) (err error) {
			switch string(key) {
			case "name":
				name, err = d.Str()
			case "value":
				if there {
					return malformed("argument with two values")
				}
				there, err = true, d.value()
			default:
				err = d.Skip()
			}
			return err
		})
		if err == nil && (!there || len(name) == 0) {
			err = malformed("a named argument wants name and value")
		}
		st.Names = append(st.Names, string(name))
		return err
	})
	if err != nil || n == 0 {
		return err
	}
	if st.NArgs > 0 {
		return &facet.Error{Code: facet.CodeBadRequest, Message: "a statement takes args or named_args, not both, and each once"}
	}
	st.NArgs, st.Args = n, d.args[start:len(d.args):len(d.args)]
	return nil
}

func quote(s []byte) string {
	if len(s) > maxShown {
		return fmt.Sprintf("%q…", s[:maxShown])
	}
	return fmt.Sprintf("%q", s)
}
