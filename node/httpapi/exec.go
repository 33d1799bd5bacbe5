package httpapi

import (
	"encoding/base64"
	"encoding/hex"
	"math"
	"net/http"
	"strconv"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/token"
	"github.com/facetd/facetd/node/internal/httpjson"
	"github.com/facetd/facetd/node/service"
)

// A request of exec becomes one service.Request in one of three ways:
//
//   - atomic: the steps as they are, in a transaction of the service;
//   - independent ("atomic": false): the steps as they are, each on its own;
//   - chained, inside of an interactive transaction or where the SQL brings its
//     own BEGIN: each step runs only if the one before did, and what has to
//     follow (COMMIT, or ROLLBACK of what a failed step left) runs in the same
//     request, by a condition.
//
// So one request is always one trip through the facet.

// plan is the service's request for a body, and where the answers to the body's
// steps are in it.
type plan struct {
	req     facet.Request
	first   int // steps before the body's own
	chained bool
}

func planExec(name facet.Name, b *execBody, readOnly bool) plan {
	p := plan{req: facet.Request{
		Name: name, Tx: b.tx, ReadOnly: b.readOnly || readOnly, Timeout: b.timeout, Key: b.key, Steps: b.steps,
		Read: b.read, After: b.after, Bookmark: b.bookmark,
	}}
	inTx := b.begin || !b.tx.IsZero()
	if !inTx && !b.ownTx {
		p.req.Atomic = b.isAtomic()
		return p
	}
	p.req.KeepTx = inTx
	p.chained = true
	steps := make([]facet.Step, 0, len(b.steps)+2)
	if b.begin {
		p.first = 1
		steps = append(steps, facet.Step{SQL: []byte("BEGIN")})
	}
	for i, st := range b.steps {
		if len(steps) > 0 {
			st.Condition = &facet.Condition{Op: facet.CondOK, Step: p.first + i - 1}
		}
		steps = append(steps, st)
	}
	last := len(steps) - 1
	switch {
	case b.commit:
		end := facet.Step{SQL: []byte("COMMIT")}
		if last >= 0 {
			end.Condition = &facet.Condition{Op: facet.CondOK, Step: last}
		}
		steps = append(steps, end)
	case b.rollback:
		steps = append(steps, facet.Step{SQL: []byte("ROLLBACK")})
	case b.begin || b.tx.IsZero():
		// A transaction that could not do its first work is of no use to anybody,
		// and one that a SQL text left open has nobody to end it.
		if last >= 0 {
			steps = append(steps, facet.Step{SQL: []byte("ROLLBACK"), Condition: &facet.Condition{
				Op: facet.CondAnd, Conds: []facet.Condition{
					{Op: facet.CondNot, Conds: []facet.Condition{{Op: facet.CondOK, Step: last}}},
					{Op: facet.CondNot, Conds: []facet.Condition{{Op: facet.CondAutocommit}}},
				},
			}})
		}
	}
	p.req.Steps = steps
	return p
}

func (h *Handler) exec(w http.ResponseWriter, r *http.Request, name facet.Name) {
	access, err := h.onFacet(r, name, token.Read)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	body, err := httpjson.ReadBody(w, r, MaxBodyLen, h.budget, string(name.Tenant))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer body.Close()
	b, err := decodeExec(r, body.Bytes)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	p := planExec(name, b, access < token.Write)
	resp, err := service.Do(r.Context(), h.svc, p.req)
	if err == nil {
		err = p.failed(b, &resp)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	jsonHeader(w)
	jw := httpjson.NewWriter(w, http.StatusOK)
	if err := writeExec(jw, b, &p, &resp); err != nil {
		h.log.Error("encode a result", "facet", name.String(), "err", err)
		panic(http.ErrAbortHandler) // the answer is begun and cannot be made right
	}
	jw.Close() // a peer that is gone needs no answer
}

// failed finds the error that fails the request as a whole: of its only
// statement, or of any where the others depend on it.
func (p *plan) failed(b *execBody, resp *facet.Response) error {
	if b.several && !p.chained && !p.req.Atomic {
		return nil
	}
	step := -p.first
	for rest := resp.Result; len(rest) > 0; {
		var it facet.Item
		var err error
		if it, rest, err = rest.Next(); err != nil {
			return err
		}
		switch it.Kind {
		case facet.ItemDone, facet.ItemSkipped, facet.ItemDescribe:
			step++
		case facet.ItemError:
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				return err
			}
			f := &failure{wireError: e, step: -1, tx: resp.Tx}
			if step >= 0 && step < len(b.steps) {
				switch {
				case b.script > 0 && e.Offset > 0:
					e.Offset += b.offsets[step]
				case b.several:
					f.step = step
				}
			}
			return f
		}
	}
	return nil
}

func writeTx(w *httpjson.Writer, tx facet.TxID) {
	w.Raw(`,"tx":"`)
	w.Raw(hex.EncodeToString(tx[:]))
	w.Byte('"')
}

// writeExec writes the answer, rows straight from the result.
func writeExec(w *httpjson.Writer, b *execBody, p *plan, resp *facet.Response) error {
	rest, err := skipSteps(resp.Result, p.first)
	if err != nil {
		return err
	}
	w.Byte('{')
	switch {
	case b.script > 0:
		if err := writeScript(w, b, rest); err != nil {
			return err
		}
	case len(b.steps) == 1 && !b.several:
		if _, err := writeStatement(w, b, rest); err != nil {
			return err
		}
	default:
		w.Raw(`"results":[`)
		for i := 0; i < len(b.steps) && w.Err() == nil; i++ {
			if i > 0 {
				w.Byte(',')
			}
			w.Raw("\n{")
			if rest, err = writeStatement(w, b, rest); err != nil {
				return err
			}
			w.Byte('}')
		}
		w.Byte(']')
	}
	if !resp.Tx.IsZero() {
		writeTx(w, resp.Tx)
	}
	if !resp.Position.IsZero() {
		w.Raw(`,"position":"`)
		w.Raw(resp.Position.String())
		w.Byte('"')
	}
	if !resp.Bookmark.IsZero() {
		w.Raw(`,"bookmark":"`)
		w.Raw(resp.Bookmark.String())
		w.Byte('"')
	}
	w.Raw("}\n")
	return nil
}

// skipSteps passes the results of the first n steps.
func skipSteps(res facet.Result, n int) (facet.Result, error) {
	for n > 0 {
		it, rest, err := res.Next()
		if err != nil {
			return nil, err
		}
		if res = rest; it.Kind != facet.ItemColumns && it.Kind != facet.ItemRow {
			n--
		}
	}
	return res, nil
}

// writeScript adds up what scripts did.
func writeScript(w *httpjson.Writer, b *execBody, res facet.Result) error {
	var sum facet.Done
	for range b.steps {
		it, rest, err := res.Next()
		if err != nil {
			return err
		}
		res = rest
		if it.Kind != facet.ItemDone {
			continue
		}
		d, err := facet.DecodeDone(it.Body)
		if err != nil {
			return err
		}
		sum.Changes += d.Changes
		sum.Duration += d.Duration
		sum.LastRowID = d.LastRowID
	}
	w.Raw(`"statements":`)
	w.Int(int64(b.script))
	w.Byte(',')
	writeCounts(w, b, sum)
	return nil
}

// writeStatement writes the fields of one statement's result and returns what
// follows it.
func writeStatement(w *httpjson.Writer, b *execBody, res facet.Result) (facet.Result, error) {
	var keys [][]byte // of a row as an object, with colon; nil for arrays
	rows, columns := 0, 0
	seen := false
	for w.Err() == nil {
		it, rest, err := res.Next()
		if err != nil {
			return nil, err
		}
		res = rest
		switch it.Kind {
		case facet.ItemColumns:
			cols, err := facet.DecodeColumns(it.Body)
			if err != nil {
				return nil, err
			}
			seen, columns = true, len(cols)
			keys = writeColumns(w, b, cols)
			w.Raw(`,"rows":[`)
		case facet.ItemRow:
			if rows++; rows > 1 {
				w.Byte(',')
			}
			w.Byte('\n')
			if err := writeRow(w, b, keys, columns, facet.Values(it.Body)); err != nil {
				return nil, err
			}
		case facet.ItemDone:
			d, err := facet.DecodeDone(it.Body)
			if err != nil {
				return nil, err
			}
			endRows(w, seen, rows)
			w.Byte(',')
			writeCounts(w, b, d)
			return res, nil
		case facet.ItemError:
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				return nil, err
			}
			if seen {
				endRows(w, seen, rows)
				w.Byte(',')
			}
			writeErrorField(w, &failure{wireError: e, step: -1})
			return res, nil
		case facet.ItemSkipped:
			w.Raw(`"skipped":true`)
			return res, nil
		default:
			return nil, badRequest("decode result: item %d", it.Kind)
		}
	}
	return res, nil // the peer is gone
}

func endRows(w *httpjson.Writer, seen bool, rows int) {
	switch {
	case !seen:
		w.Raw(`"columns":[],"types":[],"rows":[]`)
	case rows > 0:
		w.Raw("\n]")
	default:
		w.Byte(']')
	}
}

func writeCounts(w *httpjson.Writer, b *execBody, d facet.Done) {
	w.Raw(`"rows_affected":`)
	w.Int(d.Changes)
	w.Raw(`,"last_insert_rowid":`)
	writeInt(w, b, d.LastRowID)
	w.Raw(`,"duration_ms":`)
	w.Millis(d.Duration)
}

// writeColumns writes names and types and returns the keys of row objects. A
// name that comes again gets a number, so that no value is lost.
func writeColumns(w *httpjson.Writer, b *execBody, cols []facet.Column) [][]byte {
	names := make([]string, len(cols))
	for i, c := range cols {
		names[i] = c.Name
	}
	var keys [][]byte
	if !b.arrays {
		keys = make([][]byte, len(cols))
		taken := make(map[string]bool, len(cols))
		for i, c := range cols {
			for n := 2; taken[names[i]]; n++ {
				names[i] = c.Name + ":" + strconv.Itoa(n)
			}
			taken[names[i]] = true
			keys[i] = append(httpjson.AppendString(nil, names[i]), ':')
		}
	}
	w.Raw(`"columns":[`)
	for i := range names {
		if i > 0 {
			w.Byte(',')
		}
		httpjson.Str(w, names[i])
	}
	w.Raw(`],"types":[`)
	for i, c := range cols {
		if i > 0 {
			w.Byte(',')
		}
		if c.DeclType == "" {
			w.Raw("null")
			continue
		}
		httpjson.Str(w, c.DeclType)
	}
	w.Byte(']')
	return keys
}

func writeRow(w *httpjson.Writer, b *execBody, keys [][]byte, columns int, row facet.Values) error {
	open, shut := byte('['), byte(']')
	if keys != nil {
		open, shut = '{', '}'
	}
	w.Byte(open)
	i := 0
	for ; len(row) > 0; i++ {
		v, rest, err := row.Next()
		if err != nil {
			return err
		}
		row = rest
		if i > 0 {
			w.Byte(',')
		}
		if keys != nil && i < columns {
			w.Bytes(keys[i])
		}
		writeValue(w, b, v)
	}
	if i != columns {
		return badRequest("decode result: a row of %d values for %d columns", i, columns)
	}
	w.Byte(shut)
	return nil
}

func writeValue(w *httpjson.Writer, b *execBody, v facet.Value) {
	switch v.Type {
	case facet.Integer:
		writeInt(w, b, v.Int)
	case facet.Float:
		switch {
		case math.IsInf(v.Float, 1):
			w.Raw(`{"float":"Infinity"}`)
		case math.IsInf(v.Float, -1):
			w.Raw(`{"float":"-Infinity"}`)
		default:
			w.Float(v.Float)
		}
	case facet.Text:
		httpjson.Str(w, v.Bytes)
	case facet.Blob:
		w.Raw(`{"blob":`)
		w.Base64(v.Bytes, base64.StdEncoding)
		w.Byte('}')
	default:
		w.Raw("null")
	}
}

func writeInt(w *httpjson.Writer, b *execBody, n int64) {
	if b.intsText {
		w.Byte('"')
		w.Int(n)
		w.Byte('"')
		return
	}
	w.Int(n)
}
