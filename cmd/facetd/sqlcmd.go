package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/cmd/facetd/internal/shell"
	"github.com/facetd/facetd/facet"
)

// checkName checks the name of a facet on the command line.
func checkName(name string) error {
	_, err := facet.ParseName(name)
	var fe *facet.Error
	if errors.As(err, &fe) {
		return usagef("%s", fe.Message)
	}
	return err
}

func sqlCommand() *command {
	return &command{
		name: "sql", args: `TENANT/FACET ["SQL"]`, short: "run SQL on a facet, or open a shell",
		long: `Without SQL it opens a shell on a terminal and reads statements from a pipe
otherwise. The first error ends a pipe or an SQL argument with exit code 1.

On a terminal rows are printed as a table, else as values with tabs between;
--mode chooses. Blobs are X'…'. In the shell .help lists its own commands.

BEGIN opens a transaction that lasts until COMMIT or ROLLBACK, across prompts. It
holds the facet, so the node rolls it back after 5 s without a statement or 30 s in
all (flags --tx-idle and --tx-total of the node).`,
		examples: []string{
			"facetd sql acme/notes",
			`facetd sql acme/notes "SELECT count(*) FROM note"`,
			`facetd sql --mode json acme/notes "SELECT * FROM note" | jq .`,
			"facetd sql acme/notes < schema.sql",
			"sqlite3 old.db .dump | facetd sql acme/notes",
		},
		minArgs: 1, maxArgs: 2,
		setup: func(fs *flag.FlagSet) action {
			srv := serverFlags(fs)
			mode := fs.String("mode", "", "print rows in this `MODE`: table, csv, json, line, tabs, markdown or insert")
			headers := fs.String("headers", "", "print the names of columns: `on|off` (default: in modes table and csv)")
			null := fs.String("nullvalue", "", "print NULL as this `TEXT` (default NULL in tables, else nothing)")
			return func(ctx context.Context, p *program, args []string) error {
				cfg := shell.Config{Out: p.stdout, Err: p.stderr, Terminal: isTerminal(p.stdout), Progress: isTerminal(p.stderr)}
				if err := shellFormat(&cfg, *mode, *headers, *null); err != nil {
					return err
				}
				if len(args) == 2 && strings.TrimSpace(args[1]) == "" {
					return usagef("the SQL is empty; leave it out to open a shell")
				}
				c, f, err := srv.facet(ctx, args[0])
				if err != nil {
					return err
				}
				defer c.Close()
				cfg.Facet = f
				if cfg.Terminal {
					cfg.Width = func() int { return terminalWidth(p.stdout) }
				}
				return runShell(ctx, p, cfg, args[1:])
			}
		},
	}
}

func shellFormat(cfg *shell.Config, mode, headers, null string) error {
	cfg.Mode = shell.ModeTabs
	if cfg.Terminal {
		cfg.Mode = shell.ModeTable
	}
	if mode != "" {
		m, err := shell.ParseMode(mode)
		if err != nil {
			return usagef("--mode: %v", err)
		}
		cfg.Mode = m
	}
	switch strings.ToLower(headers) {
	case "":
		cfg.Headers = cfg.Mode == shell.ModeTable || cfg.Mode == shell.ModeCSV
	case "on", "true", "yes":
		cfg.Headers = true
	case "off", "false", "no":
	default:
		return usagef("--headers is on or off, not %q", headers)
	}
	if cfg.Null = null; null == "" && (cfg.Mode == shell.ModeTable || cfg.Mode == shell.ModeLine || cfg.Mode == shell.ModeMarkdown) {
		cfg.Null = "NULL"
	}
	return nil
}

func runShell(ctx context.Context, p *program, cfg shell.Config, sql []string) error {
	if len(sql) == 1 || !isTerminal(p.stdin) {
		ctx, stop := p.untilSignal(ctx)
		defer stop()
		sh := shell.New(cfg)
		var err error
		if len(sql) == 1 {
			err = sh.Text(ctx, sql[0])
		} else {
			err = sh.Read(ctx, p.stdin, "stdin")
		}
		return shown(err)
	}
	cfg.Interrupts = p.signals
	greet(ctx, p, cfg.Facet)
	ed := newLineEditor(p.env)
	err := shell.New(cfg).Interactive(ctx, ed)
	if cerr := ed.close(); cerr != nil {
		fmt.Fprintf(p.stderr, "facetd: %v\n", cerr)
	}
	return err
}

// shown marks an error the shell has told.
func shown(err error) error {
	if err == nil {
		return nil
	}
	return &toldError{err}
}

// greet tells where the shell is.
func greet(ctx context.Context, p *program, f *client.Facet) {
	info, err := f.Stat(ctx)
	switch {
	case errors.Is(err, facet.ErrNotFound):
		fmt.Fprintf(p.stdout, "%s does not exist yet; the first write makes it. ", f.Name())
	case err != nil:
		fmt.Fprintf(p.stdout, "%s: %s. ", f.Name(), shell.Message(err))
	case info.SizeBytes >= 0:
		fmt.Fprintf(p.stdout, "%s, %s. ", f.Name(), bytesText(info.SizeBytes))
	default:
		fmt.Fprintf(p.stdout, "%s. ", f.Name())
	}
	fmt.Fprintln(p.stdout, ".help for help, .quit or Ctrl-D to leave.")
}

// openInput opens a file to read, or standard input for "-".
func openInput(p *program, name string) (io.Reader, int64, func() error, error) {
	if name == "-" {
		return p.stdin, 0, func() error { return nil }, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() && info.IsDir() {
		err = fmt.Errorf("%s is a directory", name)
	}
	if err != nil {
		f.Close()
		return nil, 0, nil, err
	}
	return f, info.Size(), f.Close, nil
}
