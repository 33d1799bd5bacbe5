package engine

import (
	"encoding/binary"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/internal/sqlite"
)

func appendUvarint[S ~[]byte](dst S, n uint64) S { return S(binary.AppendUvarint(dst, n)) }

// appendColumns appends the body of ItemColumns.
func appendColumns[S ~[]byte](dst S, s *sqlite.Stmt, n int) S {
	dst = appendUvarint(dst, uint64(n))
	for i := range n {
		dst = S(facet.AppendStr(dst, s.ColumnName(i)))
		dst = S(facet.AppendStr(dst, s.ColumnDeclType(i)))
	}
	return dst
}

// bind gives the step's arguments to the statement. Every parameter needs its
// value and every value its parameter.
func bind(p *stmt, st *facet.Step) *facet.Error {
	if st.Names != nil {
		return bindNamed(p, st)
	}
	if st.NArgs != p.params {
		return facet.Errorf(facet.CodeBadRequest, "the statement has %d parameters, %d arguments were given", p.params, st.NArgs)
	}
	args := st.Args
	for i := 1; i <= st.NArgs; i++ {
		v, rest, err := args.Next()
		if err != nil {
			return facet.Errorf(facet.CodeBadRequest, "argument %d: %v", i, err)
		}
		args = rest
		if err := bindValue(p.s, i, &v); err != nil {
			return err
		}
	}
	if len(args) > 0 {
		return facet.Errorf(facet.CodeBadRequest, "%d bytes follow the last argument", len(args))
	}
	return nil
}

// bindNamed binds by name; arguments with an empty name go by position, in order.
func bindNamed(p *stmt, st *facet.Step) *facet.Error {
	if len(st.Names) != st.NArgs {
		return facet.Errorf(facet.CodeBadRequest, "%d arguments with %d names", st.NArgs, len(st.Names))
	}
	p.readNames()
	bound := make([]bool, p.params+1)
	n, next := 0, 1
	args := st.Args
	for i, name := range st.Names {
		v, rest, err := args.Next()
		if err != nil {
			return facet.Errorf(facet.CodeBadRequest, "argument %q: %v", clip(name), err)
		}
		args = rest
		at := next
		if name == "" {
			next++
			if at > p.params {
				return facet.Errorf(facet.CodeBadRequest, "the statement has %d parameters, more arguments were given", p.params)
			}
		} else if at = p.index(name, i); at == 0 {
			return facet.Errorf(facet.CodeBadRequest, "the statement has no parameter %q", clip(name))
		}
		if bound[at] {
			return facet.Errorf(facet.CodeBadRequest, "parameter %d is given twice", at)
		}
		if err := bindValue(p.s, at, &v); err != nil {
			return err
		}
		bound[at] = true
		n++
	}
	if n < p.params {
		for i := 1; i <= p.params; i++ {
			if !bound[i] {
				return facet.Errorf(facet.CodeBadRequest, "parameter %d (%s) has no value", i, clip(p.names[i-1]))
			}
		}
	}
	if len(args) > 0 {
		return facet.Errorf(facet.CodeBadRequest, "%d bytes follow the last argument", len(args))
	}
	return nil
}

func (p *stmt) readNames() {
	if p.names != nil {
		return
	}
	p.names = make([]string, p.params)
	for i := range p.names {
		p.names[i] = p.s.ParamName(i + 1)
	}
	if p.params > 16 {
		p.byName = make(map[string]int, p.params)
		for i := p.params; i > 0; i-- {
			if n := p.names[i-1]; n != "" {
				p.byName[n], p.byName[n[1:]] = i, i
			}
		}
	}
}

// index finds the parameter called name, with or without its sigil. The i-th
// argument is most often for the i-th parameter.
func (p *stmt) index(name string, i int) int {
	if p.byName != nil {
		return p.byName[name]
	}
	matches := func(n string) bool { return n != "" && (n == name || n[1:] == name) }
	if i < p.params && matches(p.names[i]) {
		return i + 1
	}
	for j, n := range p.names {
		if matches(n) {
			return j + 1
		}
	}
	return 0
}

func bindValue(s *sqlite.Stmt, i int, v *facet.Value) *facet.Error {
	var err error
	switch v.Type {
	case facet.Integer:
		err = s.BindInt64(i, v.Int)
	case facet.Float:
		err = s.BindFloat(i, v.Float)
	case facet.Text:
		err = s.BindTextBytes(i, v.Bytes)
	case facet.Blob:
		err = s.BindBlob(i, v.Bytes)
	default:
		err = s.BindNull(i)
	}
	if err == nil {
		return nil
	}
	if sqlite.CodeOf(err).Primary() == sqlite.TOOBIG {
		return limitError(limitValueBytes, facet.MaxValueLen, "argument %d is too large", i)
	}
	return facet.Errorf(facet.CodeInternal, "bind argument %d: %v", i, err)
}
