package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/facetd/facetd/facet"
)

// object is a JSON object whose members have one name each, told apart by case.
// encoding/json alone takes the last of two members of one name and does not mind
// the case, so that two readers may see two different tokens.
type object map[string]json.RawMessage

func parseObject(src []byte) (object, error) {
	if !utf8.Valid(src) {
		return nil, errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(src))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	o := make(object)
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, errors.New("it is not valid JSON")
		}
		name, _ := t.(string) // a member's name is one, or Token fails
		if _, twice := o[name]; twice {
			return nil, fmt.Errorf("%.40q is there twice", name)
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, errors.New("it is not valid JSON")
		}
		o[name] = v
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("it is not valid JSON")
	}
	if dec.More() || len(bytes.TrimSpace(src[dec.InputOffset():])) > 0 {
		return nil, errors.New("something follows the JSON object")
	}
	return o, nil
}

func (o object) has(names ...string) bool {
	for _, n := range names {
		if _, ok := o[n]; ok {
			return true
		}
	}
	return false
}

// only refuses members that are not among known.
func (o object) only(known ...string) error {
names:
	for name := range o {
		for _, k := range known {
			if name == k {
				continue names
			}
		}
		return fmt.Errorf("%.40q is not known here", name)
	}
	return nil
}

// text reads a string of at most limit bytes; it is empty where there is none.
func (o object) text(name string, limit int) (s string, err error) {
	raw, ok := o[name]
	if !ok {
		return "", nil
	}
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", fmt.Errorf("%q is not a string", name)
	}
	if len(s) > limit {
		return "", fmt.Errorf("%q has %d bytes, limit %d", name, len(s), limit)
	}
	return s, nil
}

// label reads a name that may go into a log line.
func (o object) label(name string) (string, error) {
	s, err := o.text(name, MaxLabel)
	if err == nil {
		err = checkLabel(name, s)
	}
	return s, err
}

func checkLabel(name, s string) error {
	if len(s) > MaxLabel {
		return fmt.Errorf("%q has %d bytes, limit %d", name, len(s), MaxLabel)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return fmt.Errorf("%q holds something else than printable ASCII", name)
		}
	}
	return nil
}

// list reads an array of strings.
func (o object) list(name string, limit int) ([]string, error) {
	raw, ok := o[name]
	if !ok {
		return nil, nil
	}
	var values []any
	if raw[0] != '[' || json.Unmarshal(raw, &values) != nil {
		return nil, fmt.Errorf("%q is not an array of strings", name)
	}
	if len(values) > limit {
		return nil, fmt.Errorf("%q has %d entries, limit %d", name, len(values), limit)
	}
	out := make([]string, len(values))
	for i, v := range values {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("%q is not an array of strings", name)
		}
	}
	return out, nil
}

// seconds reads a time of JWT: seconds since 1970, perhaps with a fraction. It is
// zero where there is none.
func (o object) seconds(name string) (time.Time, error) {
	raw, ok := o[name]
	if !ok {
		return time.Time{}, nil
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil || string(raw) == "null" || v < 0 || v > maxSeconds {
		return time.Time{}, fmt.Errorf("%q is not a number of seconds since 1970", name)
	}
	whole, part := math.Modf(v)
	return time.Unix(int64(whole), int64(part*1e9)), nil
}

// maxSeconds is the end of the year 9999: beyond it a time cannot be shown.
const maxSeconds = 253402300799

// refuse makes the error of a token that lets nobody in.
func refuse(format string, args ...any) *facet.Error {
	return facet.Errorf(facet.CodeUnauthorized, format, args...)
}
