package doctor

import (
	"fmt"
	"slices"
)

// Level says how bad a finding is.
type Level string

const (
	OK   Level = "ok"
	Warn Level = "warn" // it goes on, and should be looked at
	Fail Level = "fail" // something does not work, or data is in danger
)

// Finding is the outcome of one check.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"` // a node's id or address, "cluster" or "machine"
	Check string `json:"check"` // a word or two
	Text  string `json:"text"`  // what was found
	Do    string `json:"do,omitempty"`
}

// report collects findings.
type report struct{ findings []Finding }

func (r *report) ok(about, check, format string, args ...any) {
	r.findings = append(r.findings, Finding{Level: OK, About: about, Check: check, Text: fmt.Sprintf(format, args...)})
}

func (r *report) warn(about, check, do, format string, args ...any) {
	r.findings = append(r.findings, Finding{Level: Warn, About: about, Check: check, Text: fmt.Sprintf(format, args...), Do: do})
}

func (r *report) fail(about, check, do, format string, args ...any) {
	r.findings = append(r.findings, Finding{Level: Fail, About: about, Check: check, Text: fmt.Sprintf(format, args...), Do: do})
}

// Worst is the worst level among findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if slices.Index([]Level{OK, Warn, Fail}, f.Level) > slices.Index([]Level{OK, Warn, Fail}, worst) {
			worst = f.Level
		}
	}
	return worst
}
