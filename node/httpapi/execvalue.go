package httpapi

import (
	"encoding/base64"
	"fmt"
	"math"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// arguments reads an array of values, or an object of them by parameter name.
func (d *execDecoder) arguments(st *facet.Step) error {
	start, n := len(d.args), 0
	st.Names, st.NArgs, st.Args = nil, 0, nil
	value := func() error {
		if n++; n > facet.MaxArgs {
			return limitError("args", "more than %d arguments in one statement", facet.MaxArgs)
		}
		if err := d.value(); err != nil {
			return fmt.Errorf("argument %d: %w", n, err)
		}
		return nil
	}
	var err error
	switch d.Kind() {
	case '{':
		err = d.members(func(name []byte) error {
			if len(name) == 0 {
				return badRequest("a parameter without a name")
			}
			st.Names = append(st.Names, string(name))
			return value()
		})
	case 'n':
		err = d.Null()
	default:
		if err = d.Array(); err != nil {
			return err
		}
		var more bool
		for more, err = d.Elem(); more && err == nil; more, err = d.Elem() {
			if err = value(); err != nil {
				break
			}
		}
	}
	// A step keeps its part of the buffer also when that moves on to a larger
	// array.
	st.NArgs, st.Args = n, d.args[start:len(d.args):len(d.args)]
	return err
}

// value reads one value and appends it to d.args.
func (d *execDecoder) value() error {
	switch k := d.Kind(); k {
	case 'n':
		d.args = facet.AppendNull(d.args)
		return d.Null()
	case 't', 'f':
		v, err := d.Bool()
		n := int64(0)
		if v {
			n = 1
		}
		d.args = facet.AppendInt(d.args, n)
		return err
	case '0':
		raw, err := d.Num()
		if err != nil {
			return err
		}
		if strings.ContainsAny(string(raw), ".eE") {
			f, ok := httpjson.ParseFloat(raw)
			if !ok {
				return badRequest("%s is not a number", shown(string(raw)))
			}
			d.args = facet.AppendFloat(d.args, f)
			return nil
		}
		return d.integer(raw)
	case '"':
		s, err := d.Str()
		if err == nil {
			err = checkValue(len(s))
		}
		d.args = facet.AppendText(d.args, s)
		return err
	case '{':
		return d.tagged()
	case '[':
		return hinted("give JSON as a string, and bytes as {\"blob\":\"base64\"}", "an array is no SQL value")
	}
	return d.Skip() // says what is wrong
}

func (d *execDecoder) integer(raw []byte) error {
	n, ok := httpjson.ParseInt(raw)
	if !ok {
		return hinted("write it with a decimal point to have a float, or in quotes to have text", "%s does not fit a 64-bit integer", shown(string(raw)))
	}
	d.args = facet.AppendInt(d.args, n)
	return nil
}

// tagged reads {"blob":…}, {"int":…} or {"float":…}.
func (d *execDecoder) tagged() error {
	n := 0
	err := d.fields(func(key []byte) error {
		if n++; n > 1 {
			return badRequest("a value has one tag")
		}
		switch string(key) {
		case "blob":
			s, err := d.Str()
			if err != nil {
				return err
			}
			for range 2 {
				if n := len(s); n > 0 && s[n-1] == '=' {
					s = s[:n-1]
				}
			}
			size, err := base64.RawStdEncoding.Decode(s, s)
			if err != nil {
				return badRequest("blob is not base64: %v", err)
			}
			d.args = facet.AppendBlob(d.args, s[:size])
			return checkValue(size)
		case "int":
			if d.Kind() == '0' {
				raw, err := d.Num()
				if err != nil {
					return err
				}
				return d.integer(raw)
			}
			s, err := d.Str()
			if err != nil {
				return err
			}
			return d.integer(s)
		case "float":
			if d.Kind() == '0' {
				raw, err := d.Num()
				if err != nil {
					return err
				}
				f, ok := httpjson.ParseFloat(raw)
				if !ok {
					return badRequest("%s is not a number", shown(string(raw)))
				}
				d.args = facet.AppendFloat(d.args, f)
				return nil
			}
			return d.word(func(v string) error {
				switch v {
				case "Infinity":
					d.args = facet.AppendFloat(d.args, math.Inf(1))
				case "-Infinity":
					d.args = facet.AppendFloat(d.args, math.Inf(-1))
				default:
					return badRequest(`float is a number, "Infinity" or "-Infinity"; SQLite has no NaN, give null`)
				}
				return nil
			})
		}
		return hinted(`give JSON as a string, and bytes as {"blob":"base64"}`, "an object with %s is no SQL value", shown(string(key)))
	})
	if err == nil && n == 0 {
		err = badRequest("an empty object is no SQL value")
	}
	return err
}

func checkValue(n int) error {
	if n > facet.MaxValueLen {
		return limitError("value_bytes", "a value has %d bytes, limit %d", n, facet.MaxValueLen)
	}
	return nil
}
