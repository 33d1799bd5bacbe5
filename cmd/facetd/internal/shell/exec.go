package shell

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// take runs a statement of a script: at once, or together with its neighbours when
// it gives no rows.
func (s *Shell) take(ctx context.Context, sql string, at place) error {
	if !quiet(sql) || s.timer {
		if err := s.flush(ctx); err != nil {
			return err
		}
		return s.statement(ctx, sql, at)
	}
	if len(s.bundle)+len(sql) > bundleLen {
		if err := s.flush(ctx); err != nil {
			return err
		}
	}
	if len(s.bundle) == 0 {
		s.bundleFrom = at
	}
	s.bundleFrom.last = at.line
	s.bundle = append(s.bundle, sql...)
	if !strings.HasSuffix(sql, ";") {
		s.bundle = append(s.bundle, "\n;"...)
	}
	s.bundle = append(s.bundle, '\n')
	return nil
}

// quiet reports whether a statement can only give counts.
func quiet(sql string) bool {
	switch word, _ := verb(sql); word {
	case "insert", "replace", "update", "delete":
		return !strings.Contains(strings.ToLower(sql), "returning")
	case "create", "drop", "alter":
		return true
	}
	return false
}

// flush sends the statements that wait.
func (s *Shell) flush(ctx context.Context) error {
	if len(s.bundle) == 0 {
		return nil
	}
	sql, at := string(s.bundle), s.bundleFrom
	s.bundle = s.bundle[:0]
	err := s.during(ctx, func(ctx context.Context) error {
		if s.tx != nil {
			return s.tx.Script(ctx, sql)
		}
		return s.cfg.Facet.Script(ctx, sql)
	})
	if err != nil {
		return s.fail(err, sql, at)
	}
	return nil
}

// statement runs one statement and prints what it gives.
func (s *Shell) statement(ctx context.Context, sql string, at place) error {
	err := s.timed(func() error {
		return s.during(ctx, func(ctx context.Context) error { return s.run(ctx, sql) })
	})
	if err != nil {
		return s.fail(err, sql, at)
	}
	return nil
}

func (s *Shell) run(ctx context.Context, sql string) error {
	word, rest := verb(sql)
	next, rest := verb(rest)
	if next == "transaction" {
		next, _ = verb(rest)
	}
	if word == "pragma" && next == "foreign_keys" && s.tx == nil {
		s.setForeignKeys(rest)
	}
	switch {
	case word == "begin":
		if s.tx != nil {
			return facet.Errorf(facet.CodeSQL, "a transaction is open already; COMMIT or ROLLBACK ends it")
		}
		tx, err := s.cfg.Facet.Begin(ctx)
		s.tx = tx
		if err == nil && s.deferKeys {
			_, err = tx.Exec(ctx, "PRAGMA defer_foreign_keys=ON")
		}
		return err
	case s.tx == nil && word == "savepoint":
		return facet.Errorf(facet.CodeSQL, "a savepoint needs a transaction here; run BEGIN first")
	case s.tx == nil:
		return s.query(ctx, sql, s.cfg.Facet.Query)
	case word == "commit" || word == "end":
		err := s.tx.Commit(ctx)
		if s.tx.Done() {
			s.tx = nil
		}
		return err
	case word == "rollback" && next != "to":
		err := s.tx.Rollback(ctx)
		s.tx = nil
		return err
	}
	err := s.query(ctx, sql, s.tx.Query)
	if s.tx.Done() || errors.Is(err, facet.ErrTxClosed) {
		s.tx = nil
	}
	return err
}

// setForeignKeys takes note of PRAGMA foreign_keys, given what follows the name.
func (s *Shell) setForeignKeys(rest string) {
	value := strings.ToLower(strings.Trim(rest, "=(); \t\r\n'\""))
	if value == "" {
		return // it was asked, not set
	}
	on, err := onOff(value)
	s.deferKeys = err == nil && !on
}

func (s *Shell) query(ctx context.Context, sql string, query func(context.Context, string, ...any) (*client.Rows, error)) error {
	rows, err := query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	cols := rows.Columns()
	f := s.format
	if s.cfg.Terminal && s.cfg.Width != nil {
		f.width = s.cfg.Width()
	}
	p := f.printer(s.out)
	if len(cols) > 0 {
		names := make([]string, len(cols))
		for i, c := range cols {
			names[i] = c.Name
		}
		if err := p.begin(names); err != nil {
			return err
		}
	}
	n := 0
	var vals []facet.Value
	for rows.Next() {
		if vals, err = rows.Decode(vals[:0]); err != nil {
			return err
		}
		if err := p.row(vals); err != nil {
			return err
		}
		n++
	}
	if len(cols) > 0 {
		if err := p.end(); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if s.interactive {
		s.count(sql, len(cols) > 0, n, rows.Result().RowsAffected)
	}
	return nil
}

// count tells a person how many rows there were.
func (s *Shell) count(sql string, hasRows bool, n int, changed int64) {
	switch word, _ := verb(sql); {
	case hasRows && s.format.mode == ModeTable:
		fmt.Fprintf(s.out, "(%s)\n", plural(int64(n), "row"))
	case word == "insert" || word == "replace" || word == "update" || word == "delete" || word == "with" && !hasRows:
		fmt.Fprintf(s.out, "%s changed\n", plural(changed, "row"))
	}
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
