package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/facetd/facetd/facet"
)

// dotCommand is one of the shell's own commands.
type dotCommand struct {
	name, args, help string
	min, max         int // arguments
	run              func(s *Shell, ctx context.Context, args []string) error
}

var dotCommands []dotCommand

// The table is filled here because .help reads it.
func init() {
	dotCommands = []dotCommand{
		{".dump", "[TABLE…]", "print the facet, or some tables, as SQL", 0, 1 << 10, (*Shell).dump},
		{".headers", "on|off", "print the names of columns", 1, 1, (*Shell).setHeaders},
		{".help", "", "print this", 0, 1, (*Shell).help},
		{".import", "FILE TABLE [SKIP]", "read a CSV file into a table, leaving out SKIP lines; a missing table is made from the first line", 2, 3, (*Shell).importCSV},
		{".mode", "MODE [TABLE]", "how rows are printed: table, csv, json, line, tabs, markdown, insert", 0, 2, (*Shell).setMode},
		{".nullvalue", "TEXT", "what NULL looks like", 1, 1, (*Shell).setNull},
		{".quit", "", "leave; so does Ctrl-D", 0, 0, func(*Shell, context.Context, []string) error { return errQuit }},
		{".read", "FILE", "run the statements of a file", 1, 1, (*Shell).read},
		{".schema", "[PATTERN]", "print the SQL that made tables, indexes, views and triggers", 0, 1, (*Shell).schema},
		{".tables", "[PATTERN]", "list tables and views", 0, 1, (*Shell).tables},
		{".timer", "on|off", "tell how long each statement took", 1, 1, (*Shell).setTimer},
	}
}

// dot runs one dot command.
func (s *Shell) dot(ctx context.Context, line string, at place) error {
	words, err := splitArgs(line)
	if err != nil {
		return s.fail(err, "", at)
	}
	name := words[0]
	if name == ".exit" {
		name = ".quit"
	}
	for _, c := range dotCommands {
		if c.name != name {
			continue
		}
		if n := len(words) - 1; n < c.min || n > c.max {
			return s.fail(fmt.Errorf("write %s", strings.TrimSpace(c.name+" "+c.args)), "", at)
		}
		err := s.during(ctx, func(ctx context.Context) error { return c.run(s, ctx, words[1:]) })
		var told toldError
		if err == nil || errors.Is(err, errQuit) || errors.As(err, &told) {
			return err
		}
		return s.fail(err, "", at)
	}
	return s.fail(fmt.Errorf("unknown command %s; .help lists them", visible(shorten(words[0]))), "", at)
}

// toldError is an error the user has seen.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }

// splitArgs cuts a line into words; quotes keep spaces in a word.
func splitArgs(line string) (words []string, err error) {
	var word strings.Builder
	inWord := false
	var quote rune
	for _, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == ' ' || r == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("a %c is not closed", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

func (s *Shell) help(_ context.Context, _ []string) error {
	for _, c := range dotCommands {
		fmt.Fprintf(s.out, "%-26s %s\n", c.name+" "+c.args, c.help)
	}
	_, err := fmt.Fprint(s.out, "\nStatements end with a semicolon and may take several lines. BEGIN opens a transaction\n"+
		"that lasts until COMMIT or ROLLBACK; while it is open nobody else reaches the facet.\n")
	return err
}

func onOff(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "on", "yes", "1", "true":
		return true, nil
	case "off", "no", "0", "false":
		return false, nil
	}
	return false, fmt.Errorf("write on or off, not %s", visible(shorten(v)))
}

func (s *Shell) setHeaders(_ context.Context, args []string) (err error) {
	s.format.headers, err = onOff(args[0])
	return err
}

func (s *Shell) setTimer(_ context.Context, args []string) (err error) {
	s.timer, err = onOff(args[0])
	return err
}

func (s *Shell) setNull(_ context.Context, args []string) error {
	s.format.null = args[0]
	return nil
}

func (s *Shell) setMode(_ context.Context, args []string) error {
	if len(args) == 0 {
		_, err := fmt.Fprintln(s.out, s.format.mode)
		return err
	}
	m, err := ParseMode(args[0])
	if err != nil {
		return err
	}
	if len(args) == 2 {
		if m != ModeInsert {
			return fmt.Errorf("only mode insert takes the name of a table")
		}
		s.format.table = args[1]
	}
	s.format.mode = m
	return nil
}

func (s *Shell) read(ctx context.Context, args []string) error {
	if s.depth >= maxReadDepth {
		return fmt.Errorf(".read goes %d files deep at most", maxReadDepth)
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	// Interrupts are heard here already; what runs inside need not listen too.
	interrupts := s.cfg.Interrupts
	s.cfg.Interrupts = nil
	s.depth++
	defer func() { s.cfg.Interrupts, s.depth = interrupts, s.depth-1 }()
	if err = s.lines(ctx, f, filepath.Base(args[0])); err == nil {
		err = s.flush(ctx)
	}
	s.bundle = s.bundle[:0]
	if err != nil && !errors.Is(err, errQuit) {
		err = toldError{err}
	}
	return err
}

// schemaObject is a row of sqlite_schema.
type schemaObject struct{ kind, name, table, sql string }

// objects reads the schema, without what belongs to SQLite and facetd.
func (s *Shell) objects(ctx context.Context, pattern string) (objs []schemaObject, err error) {
	const q = `SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema
WHERE (?1 = '' OR name LIKE ?1 OR tbl_name LIKE ?1) ORDER BY tbl_name, type <> 'table', type <> 'view', name`
	err = s.each(ctx, q, []any{pattern}, func(v []facet.Value) error {
		o := schemaObject{string(v[0].Bytes), string(v[1].Bytes), string(v[2].Bytes), string(v[3].Bytes)}
		if !internalName(o.name) && !internalName(o.table) || o.name == "sqlite_sequence" {
			objs = append(objs, o)
		}
		return nil
	})
	return objs, err
}

// internalName reports whether a name belongs to SQLite or facetd.
func internalName(name string) bool {
	name = strings.ToLower(name)
	return strings.HasPrefix(name, "sqlite_") || strings.HasPrefix(name, "_facetd")
}

// each runs a query that only reads, inside the open transaction if there is one,
// and calls f for every row.
func (s *Shell) each(ctx context.Context, sql string, args []any, f func([]facet.Value) error) error {
	query := s.cfg.Facet.ReadOnly().Query
	if s.tx != nil {
		query = s.tx.Query
	}
	rows, err := query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var vals []facet.Value
	for rows.Next() {
		if vals, err = rows.Decode(vals[:0]); err != nil {
			return err
		}
		if err := f(vals); err != nil {
			return err
		}
	}
	return rows.Err()
}

func pattern(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return ""
}

func (s *Shell) tables(ctx context.Context, args []string) error {
	objs, err := s.objects(ctx, pattern(args))
	for _, o := range objs {
		if (o.kind == "table" || o.kind == "view") && !internalName(o.name) {
			fmt.Fprintln(s.out, visible(o.name))
		}
	}
	return err
}

func (s *Shell) schema(ctx context.Context, args []string) error {
	objs, err := s.objects(ctx, pattern(args))
	for _, o := range objs {
		if o.sql != "" && !internalName(o.name) {
			s.statementText(o.sql)
		}
	}
	return err
}

// statementText prints SQL, which goes to a terminal only without its control
// characters.
func (s *Shell) statementText(sql string) {
	if s.cfg.Terminal {
		lines := strings.Split(sql, "\n")
		for i := range lines {
			lines[i] = strings.ReplaceAll(visible(lines[i]), `\t`, "    ")
		}
		sql = strings.Join(lines, "\n")
	}
	io.WriteString(s.out, sql)
	io.WriteString(s.out, ";\n")
}
