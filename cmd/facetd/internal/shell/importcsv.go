package shell

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// csvImport is one .import under way. Rows go in batches, each all or nothing; the
// error of a later one tells how many rows are in.
type csvImport struct {
	s      *Shell
	table  string
	insert string
	cols   int
	batch  []client.Stmt
	first  int // line of the first row of the batch
	bytes  int
	rows   int64
}

func (s *Shell) importCSV(ctx context.Context, args []string) error {
	skip := 0
	if len(args) == 3 {
		n, err := strconv.Atoi(args[2])
		if err != nil || n < 0 {
			return fmt.Errorf("SKIP is a number of lines, not %s", visible(shorten(args[2])))
		}
		skip = n
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	r.FieldsPerRecord = -1 // counted below, with a better error
	im := &csvImport{s: s, table: args[1]}
	for range skip {
		if _, err := r.Read(); err != nil {
			if err == io.EOF {
				return fmt.Errorf("%s has fewer than %d lines", args[0], skip)
			}
			return err
		}
	}
	if err := im.prepare(ctx, r); err != nil {
		return fmt.Errorf("import into %s: %w", visible(im.table), err)
	}
	err = im.load(ctx, r)
	if s.cfg.Progress {
		fmt.Fprint(s.cfg.Err, "\r\x1b[K")
	}
	if err != nil {
		return fmt.Errorf("%w (%s of %s imported)", err, plural(im.rows, "row"), args[0])
	}
	if s.interactive {
		fmt.Fprintf(s.out, "%s imported\n", plural(im.rows, "row"))
	}
	return nil
}

// prepare finds the table, or makes it from the first line.
func (im *csvImport) prepare(ctx context.Context, r *csv.Reader) error {
	s := im.s
	err := s.each(ctx, `PRAGMA table_xinfo(`+ident(im.table)+`)`, nil, func(v []facet.Value) error {
		if len(v) >= 7 && v[6].Int == 0 {
			im.cols++
		}
		return nil
	})
	if err != nil && !errors.Is(err, facet.ErrNotFound) {
		return err
	}
	if im.cols == 0 {
		head, err := r.Read()
		if err == io.EOF {
			return errors.New("the file is empty and the table does not exist")
		}
		if err != nil {
			return err
		}
		cols := make([]string, len(head))
		for i, h := range head {
			cols[i] = ident(strings.TrimPrefix(h, "\ufeff")) + " TEXT"
		}
		im.cols = len(cols)
		if err := im.exec(ctx, "CREATE TABLE "+ident(im.table)+"("+strings.Join(cols, ", ")+")"); err != nil {
			return err
		}
	}
	im.insert = "INSERT INTO " + ident(im.table) + " VALUES(?" + strings.Repeat(",?", im.cols-1) + ")"
	return nil
}

func (im *csvImport) exec(ctx context.Context, sql string) error {
	var err error
	if im.s.tx != nil {
		_, err = im.s.tx.Exec(ctx, sql)
	} else {
		_, err = im.s.cfg.Facet.Exec(ctx, sql)
	}
	return err
}

func (im *csvImport) load(ctx context.Context, r *csv.Reader) error {
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return im.send(ctx)
		}
		if err != nil {
			return err
		}
		line, _ := r.FieldPos(0)
		if len(rec) != im.cols {
			return fmt.Errorf("line %d has %s, table %s has %s", line, plural(int64(len(rec)), "field"), visible(im.table), plural(int64(im.cols), "column"))
		}
		if len(im.batch) == 0 {
			im.first = line
		}
		args := make([]any, len(rec))
		for i, f := range rec {
			args[i] = strings.Clone(f)
			im.bytes += len(f)
		}
		im.batch = append(im.batch, client.Stmt{SQL: im.insert, Args: args})
		if len(im.batch) >= importRows || im.bytes >= importBytes {
			if err := im.send(ctx); err != nil {
				return err
			}
		}
	}
}

// send writes the batch.
func (im *csvImport) send(ctx context.Context) error {
	if len(im.batch) == 0 {
		return nil
	}
	var err error
	if tx := im.s.tx; tx != nil {
		for i, st := range im.batch {
			if _, err = tx.Exec(ctx, st.SQL, st.Args...); err != nil {
				err = &client.StepError{Step: i, Err: err}
				break
			}
		}
	} else {
		_, err = im.s.cfg.Facet.Batch(ctx, im.batch...)
	}
	if err != nil {
		var step *client.StepError
		if errors.As(err, &step) {
			// Fields with line breaks make this a lower bound.
			return fmt.Errorf("line %d: %s", im.first+step.Step, Message(step.Err))
		}
		return err
	}
	im.rows += int64(len(im.batch))
	im.batch, im.bytes = im.batch[:0], 0
	if im.s.cfg.Progress {
		fmt.Fprintf(im.s.cfg.Err, "\r%s", plural(im.rows, "row"))
	}
	return nil
}
