package facet

import "encoding/hex"

// Trace names a request over all nodes and logs it passes, as the traceparent of W3C
// Trace Context does: https://www.w3.org/TR/trace-context/.
type Trace struct {
	ID      [16]byte // of the request, through redirects and retries
	Span    [8]byte  // of what asks
	Sampled bool     // what it does is recorded
}

// TraceLen is the length of an encoded Trace.
const TraceLen = 16 + 8 + 1

// IsZero reports whether there is no trace.
func (t Trace) IsZero() bool { return t.ID == [16]byte{} }

// String is the id: what logs call it by. Of a zero Trace it is empty.
func (t Trace) String() string {
	if t.IsZero() {
		return ""
	}
	return hex.EncodeToString(t.ID[:])
}

// AppendTrace appends the encoded form: id, span, and 1 where it is sampled, else 0.
func AppendTrace(dst []byte, t Trace) []byte {
	dst = append(append(dst, t.ID[:]...), t.Span[:]...)
	if t.Sampled {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// DecodeTrace reads the encoded form, TraceLen bytes. Bits beside the known one are
// ignored: W3C may give them a meaning.
func DecodeTrace(src []byte) (t Trace, ok bool) {
	if len(src) != TraceLen {
		return t, false
	}
	copy(t.ID[:], src)
	copy(t.Span[:], src[16:])
	t.Sampled = src[24]&1 != 0
	return t, !t.IsZero()
}

// ParseTraceparent reads the header of that name. Of versions to come it takes what
// version 0 says.
func ParseTraceparent(s string) (t Trace, ok bool) {
	// version-id-span-flags: 2, 32, 16 and 2 digits
	const whole = 2 + 1 + 32 + 1 + 16 + 1 + 2
	if len(s) < whole || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" || len(s) > whole && (s[:2] == "00" || s[whole] != '-') {
		return t, false
	}
	for i := range whole {
		if c := s[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return t, false
		}
	}
	var version, flags [1]byte
	for _, part := range []struct {
		dst  []byte
		text string
	}{{version[:], s[:2]}, {t.ID[:], s[3:35]}, {t.Span[:], s[36:52]}, {flags[:], s[53:55]}} {
		if _, err := hex.Decode(part.dst, []byte(part.text)); err != nil {
			return Trace{}, false
		}
	}
	t.Sampled = flags[0]&1 != 0
	if t.IsZero() || t.Span == [8]byte{} {
		return Trace{}, false
	}
	return t, true
}

// Traceparent is the header for what goes on with the request.
func (t Trace) Traceparent() string {
	flags := "-00"
	if t.Sampled {
		flags = "-01"
	}
	return "00-" + hex.EncodeToString(t.ID[:]) + "-" + hex.EncodeToString(t.Span[:]) + flags
}
