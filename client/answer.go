package client

import (
	"fmt"

	"github.com/facetd/facetd/facet"
)

// items walks the whole answer of a finished call.
type items struct {
	rest facet.Result
	more [][]byte
}

func (k *call) items() items { return items{rest: k.first, more: k.more} }

func (s *items) next() (it facet.Item, ok bool, err error) {
	for len(s.rest) == 0 {
		if len(s.more) == 0 {
			return it, false, nil
		}
		s.rest, s.more = s.more[0], s.more[1:]
	}
	it, s.rest, err = s.rest.Next()
	return it, err == nil, err
}

// result reads the outcome of a call of one step.
func (k *call) result() (res Result, err error) {
	s := k.items()
	got := false
	for {
		it, ok, err := s.next()
		if err != nil {
			return res, badAnswer(err)
		}
		if !ok {
			if !got {
				return res, badAnswer(fmt.Errorf("it holds no outcome"))
			}
			return res, nil
		}
		switch it.Kind {
		case facet.ItemDone:
			d, err := facet.DecodeDone(it.Body)
			if err != nil {
				return res, badAnswer(err)
			}
			res, got = Result{RowsAffected: d.Changes, LastInsertID: d.LastRowID}, true
		case facet.ItemError:
			return res, k.itemError(it.Body)
		}
	}
}

func (k *call) itemError(body []byte) error {
	e, err := facet.DecodeError(body)
	if err != nil {
		return badAnswer(err)
	}
	e.Request = k.req.Trace.String()
	return e
}

func badAnswer(err error) error {
	return facet.Errorf(facet.CodeInternal, "read answer: %v", err)
}

// stepResults reads the outcome of every step.
func (k *call) stepResults(want int) ([]StepResult, error) {
	res := make([]StepResult, 0, want)
	s := k.items()
	var cur StepResult
	for {
		it, ok, err := s.next()
		if err != nil {
			return res, badAnswer(err)
		}
		if !ok {
			if len(res) != want {
				return res, badAnswer(fmt.Errorf("outcomes of %d statements for %d", len(res), want))
			}
			return res, nil
		}
		ended := false
		switch it.Kind {
		case facet.ItemColumns:
			cur.Columns, err = facet.DecodeColumns(it.Body)
		case facet.ItemRow:
			var row []facet.Value
			// The row outlives the pooled call.
			row, err = facet.Values(append([]byte(nil), it.Body...)).Decode(make([]facet.Value, 0, len(cur.Columns)))
			cur.Rows = append(cur.Rows, row)
		case facet.ItemDone:
			var d facet.Done
			d, err = facet.DecodeDone(it.Body)
			cur.Result = Result{RowsAffected: d.Changes, LastInsertID: d.LastRowID}
			ended = true
		case facet.ItemError:
			cur.Err = k.itemError(it.Body)
			ended = true
		case facet.ItemSkipped:
			cur.Skipped, ended = true, true
		}
		if err != nil {
			return res, badAnswer(err)
		}
		if ended {
			if len(res) == want {
				return res, badAnswer(fmt.Errorf("more outcomes than statements"))
			}
			res = append(res, cur)
			cur = StepResult{}
		}
	}
}
