package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// command is one entry of the table of commands.
type command struct {
	name     string // "facet list"
	args     string // what follows the flags
	short    string // one line
	long     string // what "help" adds
	examples []string
	minArgs  int
	maxArgs  int // -1: any number
	// setup declares the flags and returns what runs the command with their values.
	setup func(fs *flag.FlagSet) action
}

type action func(ctx context.Context, p *program, args []string) error

// commands is the table, in the order help lists it.
func commands() []*command {
	return []*command{
		devCommand(), serveCommand(), sqlCommand(),
		facetListCommand(), facetStatCommand(), facetCreateCommand(), facetExportCommand(), facetImportCommand(), facetCloneCommand(), facetDeleteCommand(),
		facetMoveCommand(), facetPinCommand(), facetUnpinCommand(), facetRecoverCommand(),
		tenantStatCommand(), tenantSetCommand(), tenantFreezeCommand(), tenantUnfreezeCommand(), tenantListCommand(), tenantTopCommand(), tenantDefaultsCommand(),
		statusCommand(), doctorCommand(),
		nodeListCommand(), nodeDrainCommand(), nodeUndrainCommand(), nodeDecommissionCommand(), nodeRemoveCommand(),
		rebalanceCommand(), repairCommand(), operationsCommand(), operationsCancelCommand(), recoverCommand(),
		tokenKeygenCommand(), tokenCreateCommand(), tokenInspectCommand(),
		certCACommand(), certNodeCommand(), certClientCommand(), certInspectCommand(),
		benchCommand(), benchSweepCommand(), benchReportCommand(), versionCommand(),
		completionCommand(), completeCommand(), manCommand(),
	}
}

func (c *command) usage() string {
	s := c.name + " [flags]"
	if c.args != "" {
		s += " " + c.args
	}
	return s
}

// dispatch finds the command and runs it. The command is returned for errors.
func (p *program) dispatch(ctx context.Context) (*command, error) {
	all := commands()
	args := p.args
	if len(args) == 0 {
		p.help(p.stdout, all)
		return nil, nil
	}
	switch args[0] {
	case "help", "-h", "--help", "-help":
		return p.helpCommand(all, args[1:])
	case "--version", "-version", "-v":
		args = []string{"version"}
	}
	cmd, rest := find(all, args)
	if cmd == nil {
		return nil, p.unknown(all, args)
	}
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	do := cmd.setup(fs)
	pos, err := parse(fs, rest, p.env)
	switch {
	case errors.Is(err, flag.ErrHelp):
		cmd.help(p.stdout)
		return cmd, nil
	case err != nil:
		return cmd, err
	case len(pos) < cmd.minArgs:
		return cmd, usagef("%s needs %s", cmd.name, cmd.args)
	case cmd.maxArgs >= 0 && len(pos) > cmd.maxArgs:
		return cmd, usagef("%s does not take %q", cmd.name, pos[cmd.maxArgs])
	}
	return cmd, do(ctx, p, pos)
}

// find takes the longest name of a command from the front of args.
func find(all []*command, args []string) (*command, []string) {
	for n := min(2, len(args)); n > 0; n-- {
		name := strings.Join(args[:n], " ")
		for _, c := range all {
			if c.name == name {
				return c, args[n:]
			}
		}
	}
	return nil, nil
}

func (p *program) unknown(all []*command, args []string) error {
	name := args[0]
	var names []string
	for _, c := range all {
		first, second, _ := strings.Cut(c.name, " ")
		if first == name && second != "" {
			// A group: what is wrong is the second word.
			names = append(names, second)
		}
	}
	if len(names) > 0 {
		if len(args) == 1 {
			return usagef("%s what? There are %s", name, strings.Join(names, ", "))
		}
		return usagef("unknown command \"%s %s\"%s", name, args[1], didYouMean(args[1], names, "; there are "+strings.Join(names, ", ")))
	}
	for _, c := range all {
		first, _, _ := strings.Cut(c.name, " ")
		names = append(names, first)
	}
	return usagef("unknown command %q%s", name, didYouMean(name, append(names, "help"), ""))
}

// didYouMean suggests the nearest of names, or says otherwise.
func didYouMean(s string, names []string, otherwise string) string {
	best, at := max(2, len(s)/3)+1, ""
	for _, n := range names {
		if d := distance(strings.ToLower(s), n); d < best {
			best, at = d, n
		}
	}
	if at == "" {
		return otherwise
	}
	return fmt.Sprintf("; did you mean %q?", at)
}

// distance is how many letters have to be changed, put in, left out or exchanged
// with their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// help lists the commands.
func (p *program) help(w io.Writer, all []*command) {
	var b strings.Builder
	b.WriteString("facetd gives every tenant app its own SQLite database, on your own machines.\n\n" +
		"  facetd dev                     start a node here, for trying and developing\n" +
		"  facetd sql acme/notes          talk to a facet of it\n\nCommands:\n")
	for _, c := range all {
		fmt.Fprintf(&b, "  %-17s %s\n", c.name, c.short)
	}
	b.WriteString("\n\"facetd help COMMAND\" tells more. Every flag can be set by the environment as well:\n" +
		"--server is FACETD_SERVER, --idle-after is FACETD_IDLE_AFTER.\n\n" +
		"Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server answered.\n")
	io.WriteString(w, b.String())
}

func (p *program) helpCommand(all []*command, args []string) (*command, error) {
	if len(args) == 0 {
		p.help(p.stdout, all)
		return nil, nil
	}
	if cmd, rest := find(all, args); cmd != nil && len(rest) == 0 {
		cmd.help(p.stdout)
		return cmd, nil
	}
	// Help for a group of commands.
	var group []*command
	for _, c := range all {
		if strings.HasPrefix(c.name, args[0]+" ") && len(args) == 1 {
			group = append(group, c)
		}
	}
	if len(group) > 0 {
		for _, c := range group {
			fmt.Fprintf(p.stdout, "  %-17s %s\n", c.name, c.short)
		}
		return nil, nil
	}
	return nil, p.unknown(all, args)
}

func (c *command) help(w io.Writer) {
	var b strings.Builder
	fmt.Fprintf(&b, "facetd %s: %s\n\nusage: facetd %s\n", c.name, c.short, c.usage())
	if c.long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.long))
	}
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	c.setup(fs)
	var lines [][2]string
	fs.VisitAll(func(f *flag.Flag) {
		left, usage := describe(f)
		lines = append(lines, [2]string{left, usage})
	})
	if len(lines) > 0 {
		b.WriteString("\nflags:\n")
		widest := 0
		for _, l := range lines {
			widest = max(widest, len(l[0]))
		}
		for _, l := range lines {
			fmt.Fprintf(&b, "  %-*s  %s\n", widest, l[0], l[1])
		}
	}
	if len(c.examples) > 0 {
		b.WriteString("\nexamples:\n")
		for _, e := range c.examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	io.WriteString(w, b.String())
}

// describe is a flag with its value's name, and what it does.
func describe(f *flag.Flag) (left, usage string) {
	value, usage := flag.UnquoteUsage(f)
	left = "--" + f.Name
	if value != "" {
		left += " " + value
	}
	if d := f.DefValue; d != "" && d != "0" && d != "false" && d != "0s" {
		usage += " (default " + d + ")"
	}
	return left, usage
}

func flagNames(fs *flag.FlagSet) (names []string) {
	fs.VisitAll(func(f *flag.Flag) { names = append(names, f.Name) })
	slices.Sort(names)
	return names
}
