package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/facetd/facetd/bench"
)

// benchOutput is where a report goes, and how.
type benchOutput struct {
	json bool
	html string // file; empty for none
}

func (o *benchOutput) write(p *program, r bench.Report) error {
	return o.print(p, r.WriteText, r.WriteJSON, func(w io.Writer) error {
		return bench.WriteHTML(w, []bench.Named{{Name: "this run", Report: &r}})
	})
}

func (o *benchOutput) writeSweep(p *program, s *bench.Sweep) error {
	return o.print(p, s.WriteText, s.WriteJSON, s.WriteHTML)
}

func (o *benchOutput) print(p *program, text, json, html func(io.Writer) error) error {
	if o.json {
		text = json
	}
	if err := text(p.stdout); err != nil {
		return err
	}
	if o.html == "" {
		return nil
	}
	return writePage(o.html, html)
}

func writePage(file string, write func(io.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// benchLine is the command line as it was typed, but for the token.
func benchLine(args []string) string {
	args = slices.Clone(args)
	for i, a := range args {
		name, _, joined := strings.Cut(a, "=")
		switch {
		case strings.TrimLeft(name, "-") != "token" || !strings.HasPrefix(name, "-"):
		case joined:
			args[i] = name + "=..."
		case i+1 < len(args):
			args[i+1] = "..."
		}
	}
	return shellLine("facetd", args)
}

func benchReportCommand() *command {
	return &command{
		name: "bench report", args: "FILE...", minArgs: 1, maxArgs: bench.MaxReports,
		short: "compare what bench --json wrote, on one page with plots",
		long: `The page holds everything it needs and can be read without a network. Without --html
the reports are printed one after the other as text.`,
		examples: []string{"facetd bench report one.json three.json --html both.html"},
		setup: func(fs *flag.FlagSet) action {
			html := fs.String("html", "", "write the page to this `FILE`")
			return func(_ context.Context, p *program, files []string) error {
				var all []bench.Named
				for _, name := range files {
					r, err := readReport(name)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					all = append(all, bench.Named{Name: strings.TrimSuffix(filepath.Base(name), ".json"), Report: r})
				}
				if *html != "" {
					return writePage(*html, func(w io.Writer) error { return bench.WriteHTML(w, all) })
				}
				for i, r := range all {
					if i > 0 {
						io.WriteString(p.stdout, "\n")
					}
					if err := r.WriteText(p.stdout); err != nil {
						return fmt.Errorf("write report: %w", err)
					}
				}
				return nil
			}
		},
	}
}

func readReport(name string) (*bench.Report, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bench.ReadJSON(f)
}
