package hrana

import (
	"encoding/base64"
	"fmt"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/node/internal/httpjson"
)

// value reads one value and appends it to d.args.
func (d *decoder) value() error {
	var name, val, b64 []byte
	var kind byte
	err := d.fields(func(key []byte) (err error) {
		switch string(key) {
		case "type":
			name, err = d.Str()
		case "value":
			switch kind = d.Kind(); kind {
			case '"':
				val, err = d.Str()
			case '0':
				val, err = d.Num()
			default:
				err = d.Skip()
			}
		case "base64":
			b64, err = d.Str()
			if b64 == nil {
				b64 = []byte{}
			}
		default:
			err = d.Skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	switch string(name) {
	case "null":
		d.args = facet.AppendNull(d.args)
	case "integer":
		n, ok := httpjson.ParseInt(val)
		if !ok {
			return malformed("integer value %s is not a 64-bit integer in a string", quote(val))
		}
		d.args = facet.AppendInt(d.args, n)
	case "float":
		f, ok := httpjson.ParseFloat(val)
		if kind != '0' || !ok {
			return malformed("float value is not a number")
		}
		d.args = facet.AppendFloat(d.args, f)
	case "text":
		if kind != '"' {
			return malformed("text value is not a string")
		}
		if err := checkLen(len(val)); err != nil {
			return err
		}
		d.args = facet.AppendText(d.args, val)
	case "blob":
		if b64 == nil {
			return malformed("blob without base64")
		}
		blob, err := unbase64(b64)
		if err != nil {
			return malformed("blob is not base64: %v", err)
		}
		if err := checkLen(len(blob)); err != nil {
			return err
		}
		d.args = facet.AppendBlob(d.args, blob)
	default:
		return malformed("unknown type of value %s", quote(name))
	}
	return nil
}

func checkLen(n int) error {
	if n > facet.MaxValueLen {
		return &facet.Error{Code: facet.CodeLimit, Limit: "value_bytes", Message: fmt.Sprintf("a value has %d bytes, limit %d", n, facet.MaxValueLen)}
	}
	return nil
}

// unbase64 decodes in place, padded or not: clients do either.
func unbase64(s []byte) ([]byte, error) {
	for range 2 {
		if n := len(s); n > 0 && s[n-1] == '=' {
			s = s[:n-1]
		}
	}
	n, err := base64.RawStdEncoding.Decode(s, s)
	return s[:n], err
}
