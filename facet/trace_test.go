package facet

import (
	"strings"
	"testing"
)

func TestTraceparent(t *testing.T) {
	const text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	tr, ok := ParseTraceparent(text)
	if !ok || tr.String() != "0af7651916cd43dd8448eb211c80319c" || !tr.Sampled || tr.Traceparent() != text {
		t.Fatalf("%v %+v %s", ok, tr, tr.Traceparent())
	}
	if got, ok := DecodeTrace(AppendTrace(nil, tr)); !ok || got != tr {
		t.Errorf("coded and decoded: %v %+v", ok, got)
	}
	if tr, ok := ParseTraceparent("cc" + text[2:53] + "00-what-comes-later"); !ok || tr.Sampled {
		t.Errorf("a later version: %v %+v", ok, tr)
	}
	for _, bad := range []string{
		"", "00", text[:54], text + "0", text + "-more", "ff" + text[2:], strings.ToUpper(text), strings.Replace(text, "-", "_", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01", "00-0af7651916cd43dd84-8eb211c80319c-b7ad6b7169203331-01",
	} {
		if tr, ok := ParseTraceparent(bad); ok || !tr.IsZero() {
			t.Errorf("%q is taken as %+v", bad, tr)
		}
	}
	if _, ok := DecodeTrace(make([]byte, TraceLen)); ok {
		t.Error("a trace without an id is taken")
	}
	if (Trace{}).String() != "" {
		t.Error("no trace has a name")
	}
}
