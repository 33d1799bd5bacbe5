package hrana

import (
	"fmt"
	"net/http"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// servePipeline runs the requests of a pipeline in order. Each result is sent
// as it comes, so that only one is in memory; the baton follows at the end.
func (h *Handler) servePipeline(w http.ResponseWriter, r *http.Request, name facet.Name) {
	h.serve(w, r, name, decodePipeline, func(w http.ResponseWriter, ss *session, req *pipelineBody) *facet.Error {
		return h.answerPipeline(w, r, name, ss, req)
	})
}

func (h *Handler) answerPipeline(w http.ResponseWriter, r *http.Request, name facet.Name, ss *session, req *pipelineBody) (moved *facet.Error) {
	ended := false
	defer func() {
		if !ended { // a panic on the way: nobody gets a baton
			h.end(ss, true)
		}
	}()

	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Raw(`{"results":[`)
	for i := range req.requests {
		if i > 0 {
			jw.Byte(',')
		}
		if err := ss.answer(jw, &req.requests[i]); err != nil {
			// The answer is begun and cannot be made right any more.
			h.log.Error("encode a result", "facet", name.String(), "err", err)
			panic(http.ErrAbortHandler)
		}
		if ss.moved != nil && jw.Drop() {
			ended = true
			return ss.leave(w)
		}
		if jw.Err() != nil || ss.ctx.Err() != nil {
			break
		}
	}
	ended = true
	baton := h.end(ss, jw.Err() != nil || ss.ctx.Err() != nil)
	jw.Raw("],")
	h.writeBaton(jw, r, name, baton)
	jw.Raw("}\n")
	jw.Close() // a peer that is gone needs no answer; its stream ends by the limits
	return nil
}

// answer executes one request and writes its StreamResult. The error it returns
// is about the service's result, not about the request.
func (ss *session) answer(w *httpjson.Writer, req *streamRequest) error {
	res, err := ss.perform(req)
	if err == nil && (req.kind == kindExecute || req.kind == kindSequence || req.kind == kindDescribe) {
		// A single step that failed is an error of the request.
		var st stepResult
		if st, _, err = cut(res); err != nil {
			return err
		}
		if err = st.err(); err == nil {
			return writeSingle(w, req.kind, &st)
		}
	}
	if err != nil {
		w.Raw(`{"type":"error","error":`)
		writeErrorObject(w, err)
		w.Byte('}')
		return nil
	}
	switch req.kind {
	case kindBatch:
		w.Raw(`{"type":"ok","response":{"type":"batch","result":`)
		if err := writeBatch(w, res, len(req.steps)); err != nil {
			return err
		}
		w.Raw("}}")
	case kindClose:
		w.Raw(`{"type":"ok","response":{"type":"close"}}`)
	case kindStoreSQL:
		w.Raw(`{"type":"ok","response":{"type":"store_sql"}}`)
	case kindCloseSQL:
		w.Raw(`{"type":"ok","response":{"type":"close_sql"}}`)
	case kindGetAutocommit:
		w.Raw(`{"type":"ok","response":{"type":"get_autocommit","is_autocommit":`)
		w.Bool(ss.s.tx.IsZero())
		w.Raw("}}")
	}
	return nil
}

// perform executes one request and returns the result of its statements.
func (ss *session) perform(req *streamRequest) (facet.Result, error) {
	if ss.s.closed {
		return nil, errClosed
	}
	switch req.kind {
	case kindClose:
		ss.rollBack()
		ss.s.closed = true
	case kindStoreSQL:
		return nil, ss.store(req.text)
	case kindCloseSQL:
		ss.forget(req.text.id)
	case kindExecute, kindBatch:
		for i := range req.steps {
			sql, err := ss.lookUp(req.texts[i])
			if err != nil {
				return nil, err
			}
			req.steps[i].SQL = sql
		}
		if len(req.steps) == 0 {
			return nil, nil
		}
		return ss.run(req.steps)
	case kindSequence, kindDescribe:
		sql, err := ss.lookUp(req.text)
		if err != nil {
			return nil, err
		}
		kind := facet.StepScript
		if req.kind == kindDescribe {
			kind = facet.StepDescribe
		}
		return ss.run([]facet.Step{{SQL: sql, Kind: kind}})
	}
	return nil, nil
}

func writeSingle(w *httpjson.Writer, k kind, st *stepResult) error {
	switch k {
	case kindSequence:
		w.Raw(`{"type":"ok","response":{"type":"sequence"}}`)
		return nil
	case kindDescribe:
		d, err := facet.DecodeDescription(st.endBody)
		if err != nil || st.end != facet.ItemDescribe {
			return fmt.Errorf("decode result: item %d for a description: %w", st.end, err)
		}
		w.Raw(`{"type":"ok","response":{"type":"describe","result":`)
		writeDescription(w, d)
	default:
		w.Raw(`{"type":"ok","response":{"type":"execute","result":`)
		if err := writeStatement(w, st); err != nil {
			return err
		}
	}
	w.Raw("}}")
	return nil
}

// writeBatch writes a BatchResult: the result goes over twice, once for each of
// its two arrays.
func writeBatch(w *httpjson.Writer, res facet.Result, steps int) error {
	rest := res
	w.Raw(`{"step_results":[`)
	for i := range steps {
		var st stepResult
		var err error
		if st, rest, err = cut(rest); err != nil {
			return err
		}
		if i > 0 {
			w.Byte(',')
		}
		if st.end != facet.ItemDone {
			w.Raw("null")
			continue
		}
		if err := writeStatement(w, &st); err != nil {
			return err
		}
	}
	rest = res
	w.Raw(`],"step_errors":[`)
	for i := range steps {
		var st stepResult
		var err error
		if st, rest, err = cut(rest); err != nil {
			return err
		}
		if i > 0 {
			w.Byte(',')
		}
		if err := st.err(); err != nil {
			writeErrorObject(w, err)
			continue
		}
		w.Raw("null")
	}
	w.Raw("]}")
	return nil
}
