package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// completions are the scripts that ask this program what can follow. They know nothing
// themselves, so they need not be made again for another version.
var completions = map[string]string{
	"bash": `_facetd() {
    local IFS=$'\n'
    COMPREPLY=($(facetd complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _facetd facetd
`,
	"zsh": `#compdef facetd
_facetd() {
    local -a found
    found=("${(@f)$(facetd complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _facetd facetd
`,
	"fish": `function __facetd_complete
    facetd complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null
end
complete -c facetd -n 'test -n "$(__facetd_complete)"' -f -a '(__facetd_complete)'
`,
}

func completionCommand() *command {
	return &command{
		name: "completion", short: "print a script that completes commands and flags in a shell", args: "bash|zsh|fish", minArgs: 1, maxArgs: 1,
		long: `The script asks facetd itself, so it need not be made again for another version.`,
		examples: []string{
			"facetd completion bash > /etc/bash_completion.d/facetd",
			"facetd completion zsh > ~/.zfunc/_facetd",
			"facetd completion fish > ~/.config/fish/completions/facetd.fish",
		},
		setup: func(*flag.FlagSet) action {
			return func(_ context.Context, p *program, args []string) error {
				script, ok := completions[args[0]]
				if !ok {
					return usagef("completion knows bash, zsh and fish, not %q", args[0])
				}
				_, err := io.WriteString(p.stdout, script)
				return err
			}
		},
	}
}

func completeCommand() *command {
	return &command{
		name: "complete", short: "print what can follow a command line (for completion)", args: "-- WORD...", maxArgs: -1,
		long:     `The last word is the one that is being typed, perhaps empty.`,
		examples: []string{"facetd complete -- node dr", `facetd complete -- facet move --`},
		setup: func(*flag.FlagSet) action {
			return func(_ context.Context, p *program, args []string) error {
				for _, s := range complete(commands(), args) {
					fmt.Fprintln(p.stdout, s)
				}
				return nil
			}
		},
	}
}

// complete lists what the last of the words may become.
func complete(all []*command, words []string) (found []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	before, typed := words[:len(words)-1], words[len(words)-1]
	cmd, rest := find(all, before)
	if strings.HasPrefix(typed, "-") && cmd != nil {
		fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
		cmd.setup(fs)
		for _, name := range flagNames(fs) {
			found = append(found, "--"+name)
		}
		return filter(append(found, "--help"), typed)
	}
	if cmd != nil && (len(rest) > 0 || !group(all, cmd.name)) {
		return nil // its arguments are names and files
	}
	if len(before) == 0 {
		found = append(found, "help")
	}
	if len(before) > 0 && before[0] == "help" {
		before = before[1:]
	}
	for _, c := range all {
		names := strings.Fields(c.name)
		if len(names) > len(before) && slices.Equal(names[:len(before)], before) {
			found = append(found, names[len(before)])
		}
	}
	return filter(found, typed)
}

// group reports whether commands go on behind the name.
func group(all []*command, name string) bool {
	return slices.ContainsFunc(all, func(c *command) bool { return strings.HasPrefix(c.name, name+" ") })
}

// filter keeps what begins with the prefix, sorted, each once.
func filter(list []string, prefix string) []string {
	slices.Sort(list)
	list = slices.Compact(list)
	return slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, prefix) })
}

func manCommand() *command {
	return &command{
		name: "man", short: "print the manual page",
		examples: []string{"facetd man | man -l -", "facetd man > /usr/local/share/man/man1/facetd.1"},
		setup: func(*flag.FlagSet) action {
			return func(_ context.Context, p *program, _ []string) error {
				_, err := io.WriteString(p.stdout, manPage(commands()))
				return err
			}
		},
	}
}

// manPage is facetd(1) in the language of mandoc and groff (man(7)).
func manPage(all []*command) string {
	var b strings.Builder
	b.WriteString(".TH FACETD 1 \"\" \"facetd " + roff(versionText()) + "\"\n" +
		".SH NAME\nfacetd \\- a SQLite database for every tenant app, on a cluster of your own machines\n" +
		".SH SYNOPSIS\n.B facetd\n.I command\n[flags] [arguments]\n" +
		".SH DESCRIPTION\nfacetd keeps a SQLite database for each app of each tenant, made by its first use, on several machines.\n" +
		"This page tells of the commands; the documents that come with facetd tell how to run a cluster.\n" +
		".SH COMMANDS\n")
	for _, c := range all {
		fmt.Fprintf(&b, ".SS facetd %s\n%s.\n", roff(c.usage()), roff(strings.ToUpper(c.short[:1])+c.short[1:]))
		if c.long != "" {
			for part := range strings.SplitSeq(strings.TrimSpace(c.long), "\n\n") {
				b.WriteString(".PP\n" + roff(part) + "\n")
			}
		}
		fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
		c.setup(fs)
		fs.VisitAll(func(f *flag.Flag) {
			left, usage := describe(f)
			b.WriteString(".TP\n.B " + roff(left) + "\n" + roff(strings.ToUpper(usage[:1])+usage[1:]) + ".\n")
		})
		b.WriteString(".PP\nFor example:\n.PP\n.nf\n.RS 4\n")
		for _, e := range c.examples {
			b.WriteString(roff(e) + "\n")
		}
		b.WriteString(".RE\n.fi\n")
	}
	b.WriteString(".SH ENVIRONMENT\nEvery flag can be set by the environment: FACETD_SERVER is \\-\\-server, FACETD_IDLE_AFTER is \\-\\-idle\\-after.\n" +
		".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 3 no server answered.\n")
	return b.String()
}

// roff writes text so that nothing in it is taken for a request or an escape.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		l = strings.TrimRight(l, " ")
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			l = `\&` + l
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}
