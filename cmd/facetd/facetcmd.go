package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

// facetJSON is a facet as --json prints it: the names of the HTTP API.
type facetJSON struct {
	Tenant    string   `json:"tenant"`
	Facet     string   `json:"facet"`
	Owner     string   `json:"owner"`
	OwnerURL  string   `json:"owner_url"`
	Epoch     uint64   `json:"epoch"`
	Replicas  []string `json:"replicas"`
	State     string   `json:"state"`
	SizeBytes *int64   `json:"size_bytes"` // null where it is not known
	Active    bool     `json:"active"`
	Pinned    bool     `json:"pinned"`
	ID        string   `json:"incarnation"`

	Lineage *client.Lineage `json:"lineage,omitempty"`
}

func asJSON(i client.Info) facetJSON {
	j := facetJSON{
		Tenant: string(i.Name.Tenant), Facet: i.Name.Facet, Owner: i.Owner, OwnerURL: i.OwnerURL,
		Epoch: uint64(i.Epoch), Replicas: i.Replicas, State: i.State, Active: i.Active, Pinned: i.Pinned, ID: i.Incarnation,
		Lineage: i.Lineage,
	}
	if i.SizeBytes >= 0 {
		j.SizeBytes = &i.SizeBytes
	}
	return j
}

func sizeText(n int64) string {
	if n < 0 {
		return "?"
	}
	return bytesText(n)
}

func openText(active bool) string {
	if active {
		return "open"
	}
	return "hibernating"
}

// facetCommand is a command about one facet: the first argument is its name.
func facetCommand(c command, run func(fs *flag.FlagSet) func(ctx context.Context, p *program, f *client.Facet, args []string) error) *command {
	c.minArgs = max(c.minArgs, 1)
	c.setup = func(fs *flag.FlagSet) action {
		srv := serverFlags(fs)
		do := run(fs)
		return func(ctx context.Context, p *program, args []string) error {
			ctx, stop := p.untilSignal(ctx)
			defer stop()
			cl, f, err := srv.facet(ctx, args[0])
			if err != nil {
				return err
			}
			defer cl.Close()
			return do(ctx, p, f, args[1:])
		}
	}
	return &c
}

func printInfo(p *program, i client.Info, json_ bool) error {
	if json_ {
		return json.NewEncoder(p.stdout).Encode(asJSON(i))
	}
	t := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	writeInfo(t, i)
	return t.Flush()
}

// writeInfo writes the lines of a facet to a table.
func writeInfo(t io.Writer, i client.Info) {
	fmt.Fprintf(t, "facet\t%s\n", i.Name)
	fmt.Fprintf(t, "state\t%s, %s\n", i.State, openText(i.Active))
	fmt.Fprintf(t, "size\t%s\n", sizeText(i.SizeBytes))
	owner := i.Owner
	if i.OwnerURL != "" {
		owner += " at " + i.OwnerURL
	}
	if i.Pinned {
		owner += ", pinned"
	}
	fmt.Fprintf(t, "owner\t%s\n", owner)
	fmt.Fprintf(t, "replicas\t%s\n", replicasText(i))
	fmt.Fprintf(t, "epoch\t%v\n", i.Epoch)
	if l := i.Lineage; l != nil {
		how := "made of"
		if l.Lossy {
			how = "LOSSY, recovered from one copy of"
		}
		fmt.Fprintf(t, "lineage\t%s %s at %s\n", how, l.Source, l.Position)
	}
}

func facetListCommand() *command {
	return &command{
		name: "facet list", args: "TENANT", short: "list the facets of a tenant",
		examples: []string{"facetd facet list acme", "facetd facet list --json --limit 10 acme"},
		minArgs:  1, maxArgs: 1,
		setup: func(fs *flag.FlagSet) action {
			srv := serverFlags(fs)
			json_ := fs.Bool("json", false, "print one JSON object a line")
			after := fs.String("after", "", "begin after the facet of this `NAME`")
			limit := fs.Int("limit", 0, "print `N` at most (default all)")
			return func(ctx context.Context, p *program, args []string) error {
				tenant, err := facet.ParseTenant(args[0])
				if err != nil {
					return usagef("%s", strings.TrimPrefix(err.Error(), "bad_request: "))
				}
				if *limit < 0 {
					return usagef("--limit is negative")
				}
				ctx, stop := p.untilSignal(ctx)
				defer stop()
				c, err := srv.open(ctx)
				if err != nil {
					return err
				}
				defer c.Close()
				return listFacets(ctx, p, c, tenant, *after, *limit, *json_)
			}
		},
	}
}

// listFacets prints facets as they come: there may be many.
func listFacets(ctx context.Context, p *program, c *client.Client, tenant facet.Tenant, after string, limit int, json_ bool) error {
	w := bufio.NewWriter(p.stdout)
	defer w.Flush()
	n := 0
	for info, err := range c.List(ctx, tenant, after) {
		if err != nil {
			return err
		}
		if json_ {
			b, err := json.Marshal(asJSON(info))
			if err != nil {
				return err
			}
			w.Write(append(b, '\n'))
		} else {
			if n == 0 {
				fmt.Fprintf(w, "%-32s %10s  %-12s %-12s %s\n", "FACET", "SIZE", "STATE", "", "OWNER")
			}
			fmt.Fprintf(w, "%-32s %10s  %-12s %-12s %s\n", info.Name.Facet, sizeText(info.SizeBytes), info.State, openText(info.Active), info.Owner)
		}
		if n++; n == limit {
			break
		}
	}
	if n == 0 && !json_ {
		fmt.Fprintf(p.stderr, "tenant %s has no facets here\n", tenant)
	}
	return w.Flush()
}

func facetCreateCommand() *command {
	return facetCommand(command{
		name: "facet create", args: "TENANT/FACET", short: "make an empty facet", maxArgs: 1,
		long:     "Seldom needed: the first write makes a facet. One that exists stays as it is.",
		examples: []string{"facetd facet create acme/notes"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, f *client.Facet, _ []string) error {
			info, err := f.Create(ctx)
			if err != nil {
				return err
			}
			return printInfo(p, info, *json_)
		}
	})
}

func facetExportCommand() *command {
	return facetCommand(command{
		name: "facet export", args: "TENANT/FACET FILE", short: "write a facet to a SQLite file", minArgs: 2, maxArgs: 2,
		long: `Writes the facet as it is at one moment, without stopping writers. FILE "-" is
standard output. A file that is there is not overwritten without --force; it is
replaced only when the export is complete.`,
		examples: []string{"facetd facet export acme/notes notes.sqlite", "facetd facet export acme/notes - | gzip > notes.sqlite.gz"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		force := fs.Bool("force", false, "overwrite the file")
		return func(ctx context.Context, p *program, f *client.Facet, args []string) error {
			total := int64(0)
			if info, err := f.Stat(ctx); err != nil {
				return err
			} else if info.SizeBytes > 0 {
				total = info.SizeBytes
			}
			m := newMeter(p.stderr, "export "+f.Name().String(), total)
			defer m.done()
			if args[0] == "-" {
				if isTerminal(p.stdout) {
					return usagef("a database does not belong on a terminal; name a file or use a pipe")
				}
				_, err := f.Export(ctx, m.writer(p.stdout))
				return err
			}
			n, err := exportTo(ctx, f, args[0], *force, m)
			if err != nil {
				return err
			}
			m.done()
			fmt.Fprintf(p.stderr, "exported %s to %s, %s\n", f.Name(), args[0], bytesText(n))
			return nil
		}
	})
}

// exportTo writes a file beside its final name and renames it when it is whole and
// on disk.
func exportTo(ctx context.Context, f *client.Facet, name string, force bool, m *meter) (n int64, err error) {
	if !force {
		if _, err := os.Lstat(name); err == nil {
			return 0, fmt.Errorf("%s is there already; --force overwrites it", name)
		}
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".partial-*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if n, err = f.Export(ctx, m.writer(tmp)); err != nil {
		return n, err
	}
	if err = tmp.Chmod(0o644); err != nil {
		return n, err
	}
	if err = tmp.Sync(); err != nil {
		return n, err
	}
	if err = tmp.Close(); err != nil {
		return n, err
	}
	return n, os.Rename(tmp.Name(), name)
}

func facetImportCommand() *command {
	return facetCommand(command{
		name: "facet import", args: "TENANT/FACET FILE", short: "make a facet from a SQLite file", minArgs: 2, maxArgs: 2,
		long: `The node checks the file before the facet exists; one that SQLite finds unsound is
refused. FILE "-" is standard input. The file must not be in use: take a copy of a
live database with "sqlite3 live.db '.backup copy.db'" first.`,
		examples: []string{"facetd facet import acme/notes notes.sqlite", "facetd facet import --replace acme/notes - < notes.sqlite"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		replace := fs.Bool("replace", false, "exchange a facet that exists, as a whole")
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, f *client.Facet, args []string) error {
			in, size, closeIn, err := openInput(p, args[0])
			if err != nil {
				return err
			}
			defer closeIn()
			if wal, err := os.Stat(args[0] + "-wal"); err == nil && wal.Size() > 0 {
				return fmt.Errorf("%s-wal holds changes that are not in %s; close the program that uses it, or take a copy with: sqlite3 %s '.backup copy.db'", args[0], args[0], args[0])
			}
			m := newMeter(p.stderr, "import "+f.Name().String(), size)
			defer m.done()
			info, err := f.Import(ctx, m.reader(in), *replace)
			m.done()
			if errors.Is(err, facet.ErrExists) {
				return fmt.Errorf("facet %s exists already; --replace exchanges all that is in it", f.Name())
			}
			if err != nil {
				return err
			}
			return printInfo(p, info, *json_)
		}
	})
}

func facetCloneCommand() *command {
	return facetCommand(command{
		name: "facet clone", args: "TENANT/FACET TENANT/FACET", short: "make a facet with what another one holds", minArgs: 2, maxArgs: 2,
		long: `The first is read as it is at one moment, without stopping writers; the second is
made, of the same tenant or another, and is a facet of its own from then on.`,
		examples: []string{"facetd facet clone acme/notes acme/notes-test"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, f *client.Facet, args []string) error {
			info, err := f.Clone(ctx, args[0])
			if err != nil {
				return err
			}
			return printInfo(p, info, *json_)
		}
	})
}

func facetDeleteCommand() *command {
	return facetCommand(command{
		name: "facet delete", args: "TENANT/FACET", short: "delete a facet", maxArgs: 1,
		long:     "Asks first, unless --yes is given. The name is free again at once.",
		examples: []string{"facetd facet delete acme/notes", "facetd facet delete --yes acme/notes"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		yes := fs.Bool("yes", false, "do not ask")
		return func(ctx context.Context, p *program, f *client.Facet, _ []string) error {
			if !*yes {
				if !isTerminal(p.stdin) {
					return usagef("there is no terminal to ask on; --yes deletes without asking")
				}
				info, err := f.Stat(ctx)
				if err != nil {
					return err
				}
				fmt.Fprintf(p.stderr, "delete %s, %s? Type its name to confirm: ", f.Name(), sizeText(info.SizeBytes))
				answer, err := bufio.NewReader(io.LimitReader(p.stdin, 1<<10)).ReadString('\n')
				if err != nil && err != io.EOF {
					return err
				}
				if strings.TrimSpace(answer) != f.Name().String() {
					return errors.New("not deleted")
				}
			}
			if err := f.Delete(ctx); err != nil {
				return err
			}
			fmt.Fprintf(p.stderr, "deleted %s\n", f.Name())
			return nil
		}
	})
}
