package hrana

import (
	"encoding/base64"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// unpadded is how blobs go out: the Go and Rust clients refuse padding, the
// others take both.
var unpadded = base64.RawStdEncoding

func writeErrorObject(w *httpjson.Writer, err error) {
	code, message := describe(err)
	w.Raw(`{"message":`)
	httpjson.Str(w, message)
	w.Raw(`,"code":`)
	httpjson.Str(w, code)
	w.Byte('}')
}

func writeValue(w *httpjson.Writer, v facet.Value) {
	switch v.Type {
	case facet.Integer:
		w.Raw(`{"type":"integer","value":"`)
		w.Int(v.Int)
		w.Raw(`"}`)
	case facet.Float:
		w.Raw(`{"type":"float","value":`)
		w.Float(v.Float)
		w.Byte('}')
	case facet.Text:
		w.Raw(`{"type":"text","value":`)
		httpjson.Str(w, v.Bytes)
		w.Byte('}')
	case facet.Blob:
		w.Raw(`{"type":"blob","base64":`)
		w.Base64(v.Bytes, unpadded)
		w.Byte('}')
	default:
		w.Raw(`{"type":"null"}`)
	}
}

func writeRow(w *httpjson.Writer, row facet.Values) error {
	w.Byte('[')
	for first := true; len(row) > 0; first = false {
		v, rest, err := row.Next()
		if err != nil {
			return err
		}
		if !first {
			w.Byte(',')
		}
		writeValue(w, v)
		row = rest
	}
	w.Byte(']')
	return nil
}

func writeColumns(w *httpjson.Writer, cols []facet.Column) {
	w.Byte('[')
	for i, c := range cols {
		if i > 0 {
			w.Byte(',')
		}
		w.Raw(`{"name":`)
		httpjson.Str(w, c.Name)
		w.Raw(`,"decltype":`)
		if c.DeclType == "" {
			w.Raw("null}")
			continue
		}
		httpjson.Str(w, c.DeclType)
		w.Byte('}')
	}
	w.Byte(']')
}

// stepResult is the part of a result that belongs to one step.
type stepResult struct {
	items   facet.Result // columns and rows, at most
	end     facet.ItemKind
	endBody []byte
}

// err is the error the step ended with, nil if none.
func (s *stepResult) err() error {
	if s.end != facet.ItemError {
		return nil
	}
	e, err := facet.DecodeError(s.endBody)
	if err != nil {
		return err
	}
	return e
}

// cut takes the items of one step off the result.
func cut(res facet.Result) (s stepResult, rest facet.Result, err error) {
	rest = res
	for {
		before := len(res) - len(rest)
		var it facet.Item
		if it, rest, err = rest.Next(); err != nil {
			return s, nil, err
		}
		if it.Kind != facet.ItemColumns && it.Kind != facet.ItemRow {
			return stepResult{items: res[:before], end: it.Kind, endBody: it.Body}, rest, nil
		}
	}
}

// writeStatement writes the StmtResult of a step that ended well. Rows go
// straight from the result to the socket.
func writeStatement(w *httpjson.Writer, s *stepResult) error {
	w.Raw(`{"cols":`)
	items, wroteCols, rows := s.items, false, 0
	for len(items) > 0 && w.Err() == nil {
		it, rest, err := items.Next()
		if err != nil {
			return err
		}
		items = rest
		if it.Kind == facet.ItemColumns {
			cols, err := facet.DecodeColumns(it.Body)
			if err != nil {
				return err
			}
			writeColumns(w, cols)
			w.Raw(`,"rows":[`)
			wroteCols = true
			continue
		}
		if !wroteCols {
			return fmt.Errorf("decode result: a row before its columns")
		}
		if rows++; rows > 1 {
			w.Byte(',')
		}
		if err := writeRow(w, facet.Values(it.Body)); err != nil {
			return err
		}
	}
	if !wroteCols {
		w.Raw(`[],"rows":[`)
	}
	w.Raw(`],`)
	d, err := facet.DecodeDone(s.endBody)
	if err != nil {
		return err
	}
	writeCounts(w, d)
	w.Raw(`,"rows_written":`)
	w.Int(max(d.Changes, 0))
	w.Raw(`,"query_duration_ms":`)
	w.Millis(d.Duration)
	w.Byte('}')
	return nil
}

func writeCounts(w *httpjson.Writer, d facet.Done) {
	w.Raw(`"affected_row_count":`)
	w.Int(max(d.Changes, 0))
	w.Raw(`,"last_insert_rowid":"`)
	w.Int(d.LastRowID)
	w.Byte('"')
}

func writeDescription(w *httpjson.Writer, d facet.Description) {
	w.Raw(`{"params":[`)
	for i, p := range d.Params {
		if i > 0 {
			w.Byte(',')
		}
		w.Raw(`{"name":`)
		if p == "" {
			w.Raw("null}")
			continue
		}
		httpjson.Str(w, p)
		w.Byte('}')
	}
	w.Raw(`],"cols":`)
	writeColumns(w, d.Columns)
	w.Raw(`,"is_explain":`)
	w.Bool(d.Explain)
	w.Raw(`,"is_readonly":`)
	w.Bool(d.ReadOnly)
	w.Byte('}')
}
