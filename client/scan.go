package client

import (
	"database/sql"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/facetd/facetd/facet"
)

// ScanValue copies v into the variable dest points to:
//
//	*any           nil, int64, float64, string or []byte, by storage class
//	*string        text; numbers in decimal; a blob's bytes
//	*[]byte        text and blobs, copied; nil for NULL
//	integers       integers and floats without fraction, in range; text that is one
//	floats         numbers; text that is one
//	*bool          integers (0 is false); text that strconv.ParseBool reads
//	*time.Time     text in RFC 3339 or SQLite's own forms; integers as Unix seconds
//	*facet.Value   everything, copied
//	sql.Scanner    what *any would get
//
// A pointer to a pointer is set to nil for NULL. NULL into anything else but
// *any, *[]byte, *facet.Value and a Scanner is an error.
func ScanValue(dest any, v facet.Value) error {
	switch d := dest.(type) {
	case *int64:
		n, err := toInt(v)
		*d = n
		return err
	case *string:
		s, err := toString(v)
		*d = s
		return err
	case *[]byte:
		return scanBytes(d, v)
	case *int:
		n, err := toInt(v)
		*d = int(n)
		return err
	case *float64:
		x, err := toFloat(v)
		*d = x
		return err
	case *bool:
		b, err := toBool(v)
		*d = b
		return err
	case *time.Time:
		t, err := toTime(v)
		*d = t
		return err
	case *any:
		*d = GoValue(v)
		return nil
	case *facet.Value:
		*d = v
		d.Bytes = append([]byte(nil), v.Bytes...)
		return nil
	case sql.Scanner:
		return d.Scan(GoValue(v))
	case nil:
		return fmt.Errorf("the destination is nil")
	}
	return scanReflect(reflect.ValueOf(dest), v)
}

// GoValue is v as nil, int64, float64, string or a copied []byte.
func GoValue(v facet.Value) any {
	switch v.Type {
	case facet.Integer:
		return v.Int
	case facet.Float:
		return v.Float
	case facet.Text:
		return string(v.Bytes)
	case facet.Blob:
		return append([]byte{}, v.Bytes...)
	}
	return nil
}

func scanBytes(d *[]byte, v facet.Value) error {
	switch v.Type {
	case facet.Null:
		*d = nil
	case facet.Text, facet.Blob:
		*d = append([]byte{}, v.Bytes...)
	default:
		s, err := toString(v)
		*d = []byte(s)
		return err
	}
	return nil
}

func scanReflect(p reflect.Value, v facet.Value) error {
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("the destination is a %v, not a pointer to a variable", p.Type())
	}
	d := p.Elem()
	switch d.Kind() {
	case reflect.Pointer:
		if v.Type == facet.Null {
			d.SetZero()
			return nil
		}
		fresh := reflect.New(d.Type().Elem())
		if err := ScanValue(fresh.Interface(), v); err != nil {
			return err
		}
		d.Set(fresh)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := toInt(v)
		if err == nil && d.OverflowInt(n) {
			err = fmt.Errorf("%d does not fit into %v", n, d.Type())
		}
		if err == nil {
			d.SetInt(n)
		}
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		n, err := toInt(v)
		if err == nil && (n < 0 || d.OverflowUint(uint64(n))) {
			err = fmt.Errorf("%d does not fit into %v", n, d.Type())
		}
		if err == nil {
			d.SetUint(uint64(n))
		}
		return err
	case reflect.Float32, reflect.Float64:
		x, err := toFloat(v)
		if err == nil {
			d.SetFloat(x)
		}
		return err
	case reflect.Bool:
		b, err := toBool(v)
		if err == nil {
			d.SetBool(b)
		}
		return err
	case reflect.String:
		s, err := toString(v)
		if err == nil {
			d.SetString(s)
		}
		return err
	case reflect.Slice:
		if d.Type().Elem().Kind() == reflect.Uint8 {
			var b []byte
			err := scanBytes(&b, v)
			if err == nil {
				d.SetBytes(b)
			}
			return err
		}
	}
	return fmt.Errorf("a %v cannot hold a SQLite value", d.Type())
}

func toInt(v facet.Value) (int64, error) {
	switch v.Type {
	case facet.Integer:
		return v.Int, nil
	case facet.Float:
		if v.Float == math.Trunc(v.Float) && v.Float >= -1<<63 && v.Float < 1<<63 {
			return int64(v.Float), nil
		}
		return 0, fmt.Errorf("%v is no integer", v.Float)
	case facet.Text:
		return strconv.ParseInt(string(v.Bytes), 10, 64)
	}
	return 0, no(v, "an integer")
}

func toFloat(v facet.Value) (float64, error) {
	switch v.Type {
	case facet.Integer:
		return float64(v.Int), nil
	case facet.Float:
		return v.Float, nil
	case facet.Text:
		return strconv.ParseFloat(string(v.Bytes), 64)
	}
	return 0, no(v, "a number")
}

func toBool(v facet.Value) (bool, error) {
	switch v.Type {
	case facet.Integer:
		return v.Int != 0, nil
	case facet.Text:
		return strconv.ParseBool(string(v.Bytes))
	}
	return false, no(v, "a boolean")
}

func toString(v facet.Value) (string, error) {
	switch v.Type {
	case facet.Text, facet.Blob:
		return string(v.Bytes), nil
	case facet.Integer:
		return strconv.FormatInt(v.Int, 10), nil
	case facet.Float:
		return strconv.FormatFloat(v.Float, 'g', -1, 64), nil
	}
	return "", no(v, "a string")
}

// timeForms are the forms of time text read, most frequent first.
var timeForms = []string{
	time.RFC3339Nano,
	"2006-01-02 15:04:05.999999999-07:00",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04:05.999999999Z07:00",
	"2006-01-02 15:04",
	"2006-01-02T15:04",
	"2006-01-02",
}

// ParseTime reads time text as SQLite's date functions and this SDK write it;
// without a zone it is UTC.
func ParseTime(s string) (time.Time, bool) {
	if len(s) < len("2006-01-02") || len(s) > 64 || s[4] != '-' {
		return time.Time{}, false
	}
	for _, form := range timeForms {
		if t, err := time.Parse(form, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func toTime(v facet.Value) (time.Time, error) {
	switch v.Type {
	case facet.Integer:
		return time.Unix(v.Int, 0).UTC(), nil
	case facet.Text:
		if t, ok := ParseTime(string(v.Bytes)); ok {
			return t, nil
		}
		return time.Time{}, fmt.Errorf("%.40q is no time", v.Bytes)
	}
	return time.Time{}, no(v, "a time")
}

func no(v facet.Value, what string) error {
	return fmt.Errorf("%s is not %s", [...]string{"NULL", "an integer", "a float", "text", "a blob"}[v.Type], what)
}
