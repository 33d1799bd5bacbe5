package telemetry

import (
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/facetd/facetd/node/service"
)

const (
	// maxSlowLines bounds the lines a second: a node on which everything is slow must
	// not be made slower by telling.
	maxSlowLines = 10

	// maxSlowSQL bounds the SQL of a line.
	maxSlowSQL = 512
)

// pace lets so many through a second.
type pace struct {
	mu      sync.Mutex
	second  time.Duration // began at this
	passed  int
	omitted int64 // since the last that passed
}

// admit says whether one of most may pass now, and how many did not before it.
func (s *pace) admit(now time.Duration, most int) (omitted int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now-s.second >= time.Second || now < s.second {
		s.second, s.passed = now, 0
	}
	if s.passed >= most {
		s.omitted++
		return 0, false
	}
	s.passed++
	omitted, s.omitted = s.omitted, 0
	return omitted, true
}

// logSlow writes a line about a request. Its arguments are not in it: they are the
// tenant's data.
func (r *Recorder) logSlow(call *service.Call, kind int, total time.Duration) {
	p := &call.Phases
	omitted, ok := r.slow.admit(p.Ended, maxSlowLines)
	if !ok {
		return
	}
	req := &call.Request
	attrs := []any{
		slog.String("facet", req.Name.String()), slog.String("kind", kindNames[kind]), slog.Duration("took", total),
	}
	if p.Executed != 0 {
		attrs = append(attrs, slog.Duration("waited", p.Started-p.Submitted), slog.Duration("executed", p.Executed-p.Started), slog.Duration("confirmed", p.Ended-p.Executed))
	}
	if !req.Trace.IsZero() {
		attrs = append(attrs, slog.String("request_id", req.Trace.String()))
	}
	attrs = append(attrs, slog.Int("statements", len(req.Steps)))
	if len(req.Steps) > 0 {
		attrs = append(attrs, slog.String("sql", beginning(req.Steps[0].SQL)))
	}
	if call.Err != nil {
		attrs = append(attrs, slog.String("error", call.Err.Error()))
	}
	if omitted > 0 {
		attrs = append(attrs, slog.Int64("omitted_before", omitted))
	}
	r.opt.Log.Warn("slow request", attrs...)
}

// beginning is the first part of an SQL text.
func beginning(sql []byte) string {
	if len(sql) <= maxSlowSQL {
		return string(sql)
	}
	n := maxSlowSQL
	for n > maxSlowSQL-utf8.UTFMax && !utf8.RuneStart(sql[n]) {
		n--
	}
	return string(sql[:n]) + "…"
}
