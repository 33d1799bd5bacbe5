package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/facetd/facetd/client"
)

// Editor reads lines from a person. Prompt returns io.EOF at the end of input and
// ErrAborted when the line was given up with Ctrl-C.
type Editor interface {
	Prompt(prompt string) (string, error)
	Remember(statement string)
}

// ErrAborted is what Editor.Prompt returns for a line given up.
var ErrAborted = errors.New("line given up")

// Config of a Shell.
type Config struct {
	Facet *client.Facet
	Out   io.Writer
	Err   io.Writer

	Mode    Mode   // default ModeTabs
	Headers bool   // print the names of columns
	Null    string // what NULL looks like

	// Terminal says that Out is a terminal; Width then tells its width.
	Terminal bool
	Width    func() int

	// Interrupts ends the statement that runs. nil: nothing does.
	Interrupts <-chan os.Signal

	// Progress says that Err is a terminal, where progress of long work is shown.
	Progress bool
}

// Shell runs statements on one facet. Errors are written to Config.Err where they
// happen; what methods return only decides how the program ends.
type Shell struct {
	cfg    Config
	format format
	timer  bool
	out    *bufio.Writer
	tx     *client.Tx // open transaction, nil if none

	interactive bool
	depth       int // of .read

	// Statements without rows that wait to be sent together, when nobody waits for
	// each.
	bundle     []byte
	bundleFrom place

	// deferKeys is set by PRAGMA foreign_keys=OFF, which here ends with its request.
	// Dumps begin with it, because they fill tables in any order; transactions then
	// check foreign keys when they commit.
	deferKeys bool
}

// place is where a statement comes from, for errors.
type place struct {
	file string // empty for the terminal or an argument
	line int
	last int // of several statements, the line the last one begins on
}

func (p place) String() string {
	switch {
	case p.file == "":
		return ""
	case p.last > p.line:
		return fmt.Sprintf("%s:%d-%d: ", p.file, p.line, p.last)
	}
	return fmt.Sprintf("%s:%d: ", p.file, p.line)
}

// errQuit ends the shell without an error.
var errQuit = errors.New("quit")

// New makes a shell.
func New(cfg Config) *Shell {
	if cfg.Mode == "" {
		cfg.Mode = ModeTabs
	}
	return &Shell{cfg: cfg, out: bufio.NewWriterSize(cfg.Out, 64<<10),
		format: format{mode: cfg.Mode, headers: cfg.Headers, null: cfg.Null, table: "table", terminal: cfg.Terminal}}
}

// Interactive talks with a person until the end of input or .quit.
func (s *Shell) Interactive(ctx context.Context, ed Editor) error {
	s.interactive = true
	defer s.leave(ctx)
	in := newSplitter()
	for ctx.Err() == nil {
		line, err := ed.Prompt(s.prompt(in))
		switch {
		case errors.Is(err, ErrAborted):
			in = newSplitter()
			continue
		case err == io.EOF:
			if sql, _, ok := in.rest(); ok {
				fmt.Fprintf(s.cfg.Err, "not run, because it does not end with a semicolon: %s\n", visible(shorten(sql)))
			}
			return nil
		case err != nil:
			return fmt.Errorf("read from the terminal: %w", err)
		}
		if !in.pending() && strings.HasPrefix(strings.TrimSpace(line), ".") {
			ed.Remember(line)
			if err := s.dot(ctx, strings.TrimSpace(line), place{}); errors.Is(err, errQuit) {
				return nil
			}
			s.out.Flush()
			continue
		}
		if len(in.buf)+len(line) > maxStatement {
			in = newSplitter()
			fmt.Fprintf(s.cfg.Err, "error: a statement may have %d bytes at most; it was dropped\n", maxStatement)
			continue
		}
		in.add(line)
		for {
			sql, _, ok := in.next()
			if !ok {
				break
			}
			ed.Remember(strings.Join(strings.Fields(sql), " "))
			if err := s.statement(ctx, sql, place{}); err != nil {
				in = newSplitter() // what follows on the line was meant for success
			}
			s.out.Flush()
		}
	}
	return context.Cause(ctx)
}

func (s *Shell) prompt(in *splitter) string {
	name := s.cfg.Facet.Name().String()
	if in.pending() {
		return strings.Repeat(" ", max(0, len(name)-3-len(in.open()))) + in.open() + "...> "
	}
	if s.tx != nil {
		return name + "*> "
	}
	return name + "> "
}

// Text runs statements given as one text. It stops at the first that fails.
func (s *Shell) Text(ctx context.Context, sql string) error {
	return s.script(ctx, strings.NewReader(sql), "")
}

// Read runs everything r holds, statements and dot commands. It stops at the first
// that fails. name is for errors.
func (s *Shell) Read(ctx context.Context, r io.Reader, name string) error {
	return s.script(ctx, r, name)
}

func (s *Shell) script(ctx context.Context, r io.Reader, name string) error {
	err := s.lines(ctx, r, name)
	if err == nil {
		err = s.flush(ctx)
	}
	s.bundle = nil
	if s.leave(ctx) && err == nil {
		err = errors.New("the input ended inside a transaction")
	}
	if ferr := s.out.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("write results: %w", ferr)
	}
	if errors.Is(err, errQuit) {
		return nil
	}
	return err
}

// lines runs the lines of one file.
func (s *Shell) lines(ctx context.Context, r io.Reader, name string) error {
	in := newSplitter()
	scan := bufio.NewScanner(r)
	scan.Buffer(make([]byte, 64<<10), maxLine)
	for scan.Scan() {
		if ctx.Err() != nil {
			return s.fail(context.Cause(ctx), "", place{})
		}
		line := scan.Text()
		if in.line == 0 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !in.pending() && strings.HasPrefix(line, ".") {
			in.line++
			if err := s.flush(ctx); err != nil {
				return err
			}
			if err := s.dot(ctx, strings.TrimSpace(line), place{file: name, line: in.line}); err != nil {
				return err
			}
			continue
		}
		if len(in.buf)+len(line) > maxStatement {
			return s.fail(fmt.Errorf("a statement may have %d bytes at most", maxStatement), "", place{file: name, line: in.begin})
		}
		in.add(line)
		for {
			sql, n, ok := in.next()
			if !ok {
				break
			}
			if err := s.take(ctx, sql, place{file: name, line: n}); err != nil {
				return err
			}
		}
	}
	if err := scan.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("a line may have %d bytes at most", maxLine)
		}
		return s.fail(err, "", place{file: name, line: in.line + 1})
	}
	if sql, n, ok := in.rest(); ok {
		return s.take(ctx, sql, place{file: name, line: n})
	}
	return nil
}

// leave rolls back a transaction that is still open, and tells.
func (s *Shell) leave(ctx context.Context) bool {
	if s.tx == nil {
		return false
	}
	err := s.tx.Rollback(context.WithoutCancel(ctx))
	s.tx = nil
	if err != nil {
		fmt.Fprintf(s.cfg.Err, "roll back the open transaction: %v\n", err)
	} else {
		fmt.Fprintln(s.cfg.Err, "the open transaction was rolled back; COMMIT keeps its changes")
	}
	return true
}

// during runs f with a context that an interrupt ends.
func (s *Shell) during(ctx context.Context, f func(context.Context) error) error {
	if s.cfg.Interrupts == nil {
		return f(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-s.cfg.Interrupts:
			cancel(errInterrupted)
		case <-done:
		}
	}()
	defer func() {
		close(done)
		<-gone
		cancel(nil)
	}()
	return f(ctx)
}

var errInterrupted = errors.New("interrupted")

// timed runs f and tells how long it took if the timer is on.
func (s *Shell) timed(f func() error) error {
	begin := time.Now()
	err := f()
	if s.timer {
		s.out.Flush()
		fmt.Fprintf(s.cfg.Err, "time: %.3f ms\n", float64(time.Since(begin).Microseconds())/1000)
	}
	return err
}

func shorten(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
