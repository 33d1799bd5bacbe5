package shell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/facetd/facetd/facet"
)

// fail tells about an error and returns it. sql is the text that was sent, if any.
func (s *Shell) fail(err error, sql string, at place) error {
	s.out.Flush()
	var b strings.Builder
	var fe *facet.Error
	if errors.As(err, &fe) && fe.Offset > 0 && fe.Offset <= len(sql) {
		at.line, at.last = at.line+strings.Count(sql[:fe.Offset], "\n"), 0
	}
	fmt.Fprintf(&b, "%serror: %s\n", at, visible(Message(err)))
	if fe != nil && fe.Offset > 0 && fe.Offset <= len(sql) {
		b.WriteString(pointAt(sql, fe.Offset))
	}
	if h := Hint(err); h != "" {
		fmt.Fprintf(&b, "hint: %s\n", h)
	}
	fmt.Fprint(s.cfg.Err, b.String())
	return err
}

// Message is an error as a person should read it.
func Message(err error) string {
	var fe *facet.Error
	switch {
	case errors.Is(err, errInterrupted), errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.As(err, &fe) && fe.Message != "" && fe.Code != facet.CodeUnavailable && fe.Code != facet.CodeUnknownOutcome:
		return fe.Message
	}
	return err.Error()
}

// Hint is what to do about an error, empty where the message says it.
func Hint(err error) string {
	var fe *facet.Error
	if !errors.As(err, &fe) {
		return ""
	}
	switch fe.Code {
	case facet.CodeBusy:
		return "somebody's transaction holds the facet; try again when it ended"
	case facet.CodeTxClosed:
		return "the transaction was rolled back: it was idle or open for too long, or its connection was lost; BEGIN again"
	case facet.CodeUnknownOutcome:
		return "it may have taken effect; look before you repeat it"
	case facet.CodeUnavailable:
		return "nothing was done; is the node running? see its log, or start one with: facetd dev"
	case facet.CodeOverloaded:
		return "nothing was done; try again in a moment"
	case facet.CodeDiskFull:
		return "reads still work; writes do again when the node has free disk space"
	case facet.CodeUnauthorized:
		return "give a token with --token, --token-file or FACETD_TOKEN; \"facetd token create\" makes one"
	}
	return ""
}

// pointAt shows the line of sql that holds offset, with a mark under it.
func pointAt(sql string, offset int) string {
	from := strings.LastIndexByte(sql[:offset], '\n') + 1
	line := sql[from:]
	if i := strings.IndexByte(line, '\n'); i >= 0 {
		line = line[:i]
	}
	at := offset - from
	// A long line is cut around the place.
	const before, after = 50, 25
	if at > before {
		cut := at - before
		for cut > 0 && cut < at && line[cut]&0xc0 == 0x80 {
			cut++
		}
		line, at = "…"+line[cut:], at-cut+len("…")
	}
	if len(line) > at+after {
		line = strings.ToValidUTF8(line[:at+after], "") + "…"
	}
	head := visible(line[:min(at, len(line))])
	return fmt.Sprintf("  %s\n  %s^\n", visible(line), strings.Repeat(" ", runewidth.StringWidth(head)))
}
