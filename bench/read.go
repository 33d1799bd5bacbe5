package bench

import (
	"encoding/json"
	"fmt"
	"io"
)

// ReadJSON reads a report that WriteJSON wrote. Fields it does not know are passed
// over: they are of a newer version.
func ReadJSON(r io.Reader) (*Report, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxReport+1))
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if len(raw) > MaxReport {
		return nil, fmt.Errorf("read report: it has more than %d bytes", MaxReport)
	}
	out := new(Report)
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("read report: not what bench --json writes: %w", err)
	}
	if len(out.Results) == 0 && out.Idle == nil && out.Active == nil {
		return nil, fmt.Errorf("read report: there are no results in it")
	}
	if len(out.Results) > maxResults {
		return nil, fmt.Errorf("read report: %d results, limit %d", len(out.Results), maxResults)
	}
	for _, x := range out.Results {
		if len(x.Series) > seriesPoints || len(x.Percentiles) > seriesPoints {
			return nil, fmt.Errorf("read report: workload %.40q has more than %d points", x.Workload, seriesPoints)
		}
	}
	return out, nil
}
