package shell

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/facetd/facetd/facet"
)

// dump prints the facet as SQL, at one moment: it reads in one transaction, the
// one that is open or one of its own.
func (s *Shell) dump(ctx context.Context, tables []string) error {
	if s.tx == nil {
		tx, err := s.cfg.Facet.ReadOnly().Begin(ctx)
		if err != nil {
			return err
		}
		s.tx = tx
		defer func() {
			tx.Rollback(ctx) // it only read
			s.tx = nil
		}()
	}
	objs, err := s.objects(ctx, "")
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !slices.ContainsFunc(objs, func(o schemaObject) bool { return o.name == t && o.kind == "table" }) {
			return fmt.Errorf("there is no table %s", visible(t))
		}
	}
	wanted := func(o schemaObject) bool { return len(tables) == 0 || slices.Contains(tables, o.table) }
	shadow, err := s.shadowTables(ctx)
	if err != nil {
		return err
	}
	io.WriteString(s.out, "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n")
	// All tables come before all rows: a row cannot be put in while the table its
	// foreign key names is missing, even where the check is deferred.
	sequence := false
	var filled []schemaObject
	for _, o := range objs {
		switch {
		case o.name == "sqlite_sequence":
			sequence = true
		case o.kind == "table" && wanted(o) && !shadow[o.name] && !internalName(o.name):
			s.statementText(o.sql)
			filled = append(filled, o)
		}
	}
	for _, o := range filled {
		if err := s.dumpTable(ctx, o); err != nil {
			return fmt.Errorf("dump table %s: %w", o.name, err)
		}
	}
	if sequence && len(tables) == 0 {
		io.WriteString(s.out, "DELETE FROM sqlite_sequence;\n")
		if err := s.dumpRows(ctx, "sqlite_sequence", `"name","seq"`, 2, `INSERT INTO sqlite_sequence VALUES(`); err != nil {
			return fmt.Errorf("dump sqlite_sequence: %w", err)
		}
	}
	// Views and triggers come last: they may name any table.
	for _, kind := range []string{"index", "view", "trigger"} {
		for _, o := range objs {
			if o.kind == kind && o.sql != "" && wanted(o) && !shadow[o.table] {
				s.statementText(o.sql)
			}
		}
	}
	_, err = io.WriteString(s.out, "COMMIT;\n")
	return err
}

// shadowTables are the tables behind virtual ones, which fill them themselves.
func (s *Shell) shadowTables(ctx context.Context) (map[string]bool, error) {
	shadow := make(map[string]bool)
	err := s.each(ctx, `PRAGMA table_list`, nil, func(v []facet.Value) error {
		if len(v) > 2 && string(v[2].Bytes) == "shadow" {
			shadow[string(v[1].Bytes)] = true
		}
		return nil
	})
	return shadow, err
}

func (s *Shell) dumpTable(ctx context.Context, o schemaObject) error {
	var cols []string
	generated := false
	err := s.each(ctx, `PRAGMA table_xinfo(`+ident(o.name)+`)`, nil, func(v []facet.Value) error {
		switch {
		case len(v) < 7:
			return fmt.Errorf("table_xinfo gives %d columns", len(v))
		case v[6].Int == 2 || v[6].Int == 3:
			generated = true
		case v[6].Int == 0:
			cols = append(cols, ident(string(v[1].Bytes)))
		}
		return nil
	})
	if err != nil || len(cols) == 0 {
		return err
	}
	into := "INSERT INTO " + ident(o.name)
	if word, rest := verb(o.sql); word == "create" {
		if word, _ = verb(rest); word == "virtual" {
			// The rowid is what a full-text index is found by.
			cols = append([]string{"rowid"}, cols...)
			generated = true
		}
	}
	if generated {
		into += "(" + strings.Join(cols, ",") + ")"
	}
	return s.dumpRows(ctx, ident(o.name), strings.Join(cols, ","), len(cols), into+" VALUES(")
}

func (s *Shell) dumpRows(ctx context.Context, table, cols string, n int, into string) error {
	return s.each(ctx, "SELECT "+cols+" FROM "+table, nil, func(vals []facet.Value) error {
		s.out.WriteString(into)
		for i, v := range vals[:min(n, len(vals))] {
			if i > 0 {
				s.out.WriteByte(',')
			}
			lit := literal(v)
			if s.cfg.Terminal {
				lit = visible(lit)
			}
			s.out.WriteString(lit)
		}
		_, err := s.out.WriteString(");\n")
		return err
	})
}
