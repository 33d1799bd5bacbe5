package client

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/facetd/facetd/facet"
)

// NamedArg is an argument for a named parameter.
type NamedArg struct {
	Name  string // with or without its : @ or $
	Value any
}

// Named makes a NamedArg. sql.Named works as well. A statement takes either
// named or positional arguments.
func Named(name string, value any) NamedArg { return NamedArg{name, value} }

// appendArgs encodes the arguments of one step. names is nil for positional ones.
func appendArgs(dst facet.Values, names []string, args []any) (facet.Values, []string, error) {
	if len(args) > facet.MaxArgs {
		return dst, names, facet.Errorf(facet.CodeLimit, "%d arguments, limit %d", len(args), facet.MaxArgs)
	}
	named := 0
	for i, a := range args {
		v := a
		switch n := a.(type) {
		case NamedArg:
			names, v, named = append(names, n.Name), n.Value, named+1
		case sql.NamedArg:
			names, v, named = append(names, n.Name), n.Value, named+1
		}
		if named != 0 && named != i+1 {
			return dst, names, facet.Errorf(facet.CodeBadRequest, "argument %d: named and positional arguments do not mix", i+1)
		}
		var err error
		if dst, err = appendArg(dst, v); err != nil {
			return dst, names, facet.Errorf(facet.CodeBadRequest, "argument %d: %v", i+1, err)
		}
	}
	return dst, names, nil
}

// appendArg encodes one Go value.
func appendArg(dst facet.Values, a any) (facet.Values, error) {
	switch v := a.(type) {
	case nil:
		return facet.AppendNull(dst), nil
	case int:
		return facet.AppendInt(dst, int64(v)), nil
	case int64:
		return facet.AppendInt(dst, v), nil
	case string:
		return appendText(dst, v)
	case []byte:
		if v == nil {
			return facet.AppendNull(dst), nil
		}
		if len(v) > facet.MaxValueLen {
			return dst, tooLong(len(v))
		}
		return facet.AppendBlob(dst, v), nil
	case float64:
		return facet.AppendFloat(dst, v), nil
	case bool:
		return appendBool(dst, v), nil
	case time.Time:
		return facet.AppendText(dst, v.Format(time.RFC3339Nano)), nil
	case facet.Value:
		if len(v.Bytes) > facet.MaxValueLen {
			return dst, tooLong(len(v.Bytes))
		}
		return facet.AppendValue(dst, v), nil
	case driver.Valuer:
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Pointer && rv.IsNil() {
			return facet.AppendNull(dst), nil
		}
		got, err := v.Value()
		if err != nil {
			return dst, err
		}
		if _, again := got.(driver.Valuer); again {
			return dst, fmt.Errorf("%T gives another driver.Valuer", a)
		}
		return appendArg(dst, got)
	}
	return appendReflect(dst, reflect.ValueOf(a))
}

func appendReflect(dst facet.Values, v reflect.Value) (facet.Values, error) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return facet.AppendNull(dst), nil
		}
		return appendArg(dst, v.Elem().Interface())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return facet.AppendInt(dst, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		if v.Uint() > math.MaxInt64 {
			return dst, fmt.Errorf("%d does not fit into SQLite's 64-bit signed integer", v.Uint())
		}
		return facet.AppendInt(dst, int64(v.Uint())), nil
	case reflect.Float32, reflect.Float64:
		return facet.AppendFloat(dst, v.Float()), nil
	case reflect.Bool:
		return appendBool(dst, v.Bool()), nil
	case reflect.String:
		return appendText(dst, v.String())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return appendArg(dst, v.Bytes())
		}
	}
	return dst, fmt.Errorf("a %v is no SQLite value", v.Type())
}

func appendBool(dst facet.Values, v bool) facet.Values {
	if v {
		return facet.AppendInt(dst, 1)
	}
	return facet.AppendInt(dst, 0)
}

func appendText(dst facet.Values, s string) (facet.Values, error) {
	if len(s) > facet.MaxValueLen {
		return dst, tooLong(len(s))
	}
	return facet.AppendText(dst, s), nil
}

func tooLong(n int) error {
	return fmt.Errorf("%d bytes, limit %d", n, facet.MaxValueLen)
}
