package httpjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// rebuild reads one value with a Reader and writes it back as compact JSON.
func rebuild(r *Reader, out []byte) ([]byte, error) {
	switch r.Kind() {
	case '{':
		if err := r.Object(); err != nil {
			return nil, err
		}
		out = append(out, '{')
		for i := 0; ; i++ {
			key, more, err := r.Key()
			if err != nil {
				return nil, err
			}
			if !more {
				return append(out, '}'), nil
			}
			if i > 0 {
				out = append(out, ',')
			}
			out = append(AppendString(out, key), ':')
			if out, err = rebuild(r, out); err != nil {
				return nil, err
			}
		}
	case '[':
		if err := r.Array(); err != nil {
			return nil, err
		}
		out = append(out, '[')
		for i := 0; ; i++ {
			more, err := r.Elem()
			if err != nil {
				return nil, err
			}
			if !more {
				return append(out, ']'), nil
			}
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = rebuild(r, out); err != nil {
				return nil, err
			}
		}
	case '"':
		s, err := r.Str()
		return AppendString(out, s), err
	case '0':
		n, err := r.Num()
		return append(out, n...), err
	case 't', 'f':
		b, err := r.Bool()
		if b {
			return append(out, "true"...), err
		}
		return append(out, "false"...), err
	case 'n':
		return append(out, "null"...), r.Null()
	}
	return nil, r.Skip()
}

// compact is what encoding/json makes of the same document, numbers as written.
func compact(src []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return out.String(), err
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e+3,true,false,null,"x\n\u00e9\ud83d\udc0e\ud800"],"b":{}}`, ` [ ] `, `""`, `0`, `-0`, `01`, `1.`, `[1,]`,
		`{"a":1,}`, `{"a" 1}`, "\"\x01\"", `"\q"`, `"\u12"`, `"abc`, `{"a":{"a":[[[[]]]]}} x`, `nul`, strings.Repeat("[", 70),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		valid := json.Valid(src)
		r, err := NewReader(bytes.Clone(src))
		var out []byte
		if err == nil {
			out, err = rebuild(r, nil)
		}
		if err == nil {
			err = r.End()
		}
		skip, serr := NewReader(bytes.Clone(src))
		if serr == nil {
			serr = errors.Join(skip.Skip())
			if serr == nil {
				serr = skip.End()
			}
		}
		if (err == nil) != (serr == nil) {
			t.Fatalf("reading %q says %v, skipping %v", src, err, serr)
		}
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(src) {
				t.Fatalf("error %v about %q", err, src)
			}
			if valid && !strings.Contains(err.Error(), "deeper") && !strings.Contains(err.Error(), "UTF-8") {
				t.Fatalf("refused %q, which is valid: %v", src, err)
			}
			return
		}
		if !valid {
			t.Fatalf("accepted %q, which is not valid", src)
		}
		// Compare as encoding/json reads both, for it sorts and merges keys.
		want, err := compact(src)
		if err != nil {
			t.Skip(err)
		}
		if got, err := compact(out); err != nil || got != want {
			t.Fatalf("%q became %q, want %q (%v)", src, got, want, err)
		}
	})
}

func TestReaderStopsAtDepth(t *testing.T) {
	for _, depth := range []int{MaxDepth, MaxDepth + 1, 1 << 20} {
		r, err := NewReader([]byte(strings.Repeat("[", depth) + strings.Repeat("]", depth)))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Skip(); (err == nil) != (depth <= MaxDepth) {
			t.Errorf("depth %d: %v", depth, err)
		}
	}
}

func TestParseInt(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "-0": 0, "7": 7, "-7": -7, "9223372036854775807": 1<<63 - 1, "-9223372036854775808": -1 << 63,
	} {
		if got, ok := ParseInt([]byte(s)); !ok || got != want {
			t.Errorf("%q: %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "-", "+1", "1.0", "9223372036854775808", "-9223372036854775809", "99999999999999999999", "1e3", " 1"} {
		if got, ok := ParseInt([]byte(s)); ok {
			t.Errorf("%q was taken for %d", s, got)
		}
	}
}
