package hrana

import (
	"net/http"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// serveCursor runs a batch and sends its result as a line for every row.
func (h *Handler) serveCursor(w http.ResponseWriter, r *http.Request, name facet.Name) {
	h.serve(w, r, name, decodeCursor, func(w http.ResponseWriter, ss *session, req *pipelineBody) *facet.Error {
		return h.answerCursor(w, r, name, ss, req)
	})
}

func (h *Handler) answerCursor(w http.ResponseWriter, r *http.Request, name facet.Name, ss *session, req *pipelineBody) (moved *facet.Error) {
	ended := false
	defer func() {
		if !ended { // a panic on the way: nobody gets a baton
			h.end(ss, true)
		}
	}()

	res, err := ss.perform(&req.requests[0])
	steps := len(req.requests[0].steps)
	ended = true
	if ss.moved != nil {
		return ss.leave(w)
	}
	baton := h.end(ss, ss.ctx.Err() != nil)

	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	jw := httpjson.NewWriter(w, http.StatusOK)
	jw.Byte('{')
	h.writeBaton(jw, r, name, baton)
	jw.Raw("}\n")
	if err == nil {
		err = writeEntries(jw, res, steps)
	}
	if err != nil {
		jw.Raw(`{"type":"error","error":`)
		writeErrorObject(jw, err)
		jw.Raw("}\n")
	}
	jw.Close() // a peer that is gone needs no answer; its stream ends by the limits
	return nil
}

// writeEntries writes the entries of every step that was executed. Rows leave
// in chunks while later ones are still being encoded.
func writeEntries(w *httpjson.Writer, res facet.Result, steps int) error {
	for i := 0; i < steps && w.Err() == nil; i++ {
		st, rest, err := cut(res)
		if err != nil {
			return err
		}
		res = rest
		if st.end == facet.ItemSkipped {
			continue
		}
		began := false
		for items := st.items; len(items) > 0 && w.Err() == nil; {
			var it facet.Item
			if it, items, err = items.Next(); err != nil {
				return err
			}
			if it.Kind == facet.ItemColumns {
				cols, err := facet.DecodeColumns(it.Body)
				if err != nil {
					return err
				}
				writeStepBegin(w, i, cols)
				began = true
				continue
			}
			w.Raw(`{"type":"row","row":`)
			if err := writeRow(w, facet.Values(it.Body)); err != nil {
				return err
			}
			w.Raw("}\n")
		}
		if err := st.err(); err != nil {
			w.Raw(`{"type":"step_error","step":`)
			w.Int(int64(i))
			w.Raw(`,"error":`)
			writeErrorObject(w, err)
			w.Raw("}\n")
			continue
		}
		d, err := facet.DecodeDone(st.endBody)
		if err != nil {
			return err
		}
		if !began {
			writeStepBegin(w, i, nil)
		}
		w.Raw(`{"type":"step_end",`)
		writeCounts(w, d)
		w.Raw("}\n")
	}
	return nil
}

func writeStepBegin(w *httpjson.Writer, step int, cols []facet.Column) {
	w.Raw(`{"type":"step_begin","step":`)
	w.Int(int64(step))
	w.Raw(`,"cols":`)
	writeColumns(w, cols)
	w.Raw("}\n")
}
