package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/facetd/facetd/node"
)

func recoverCommand() *command {
	return &command{
		name: "recover", short: "begin anew with one survivor when most voters are lost for good",
		long: `For a cluster whose voters are gone for good, so that no leader can be elected. It
works on a data directory, and the node must not run.

  1. Stop every survivor, and look at each with --dry-run. The one to recover is the
     one whose log has the highest term, and of those the highest entry.
  2. Recover that one and start it. It is the only voter, with all that its log holds:
     what others had acknowledged and it had not heard of is lost.
  3. On every other survivor run it with --rejoin and start the node. It joins the
     first, with all the copies of facets it has.

Never recover two, and never start a lost node again with its old data directory
except after --rejoin. On a terminal it asks first, unless --yes is given.`,
		examples: []string{
			"facetd recover --data /var/lib/facetd --dry-run",
			"facetd recover --data /var/lib/facetd",
			"facetd recover --data /var/lib/facetd --rejoin",
		},
		setup: func(fs *flag.FlagSet) action {
			dir := fs.String("data", "", "data directory `DIR` of the node; needed")
			dryRun := fs.Bool("dry-run", false, "only look, and tell what would be done")
			rejoin := fs.Bool("rejoin", false, "set this node's placement log aside, so that it joins the node that was recovered")
			yes := fs.Bool("yes", false, "do not ask")
			return func(_ context.Context, p *program, _ []string) error {
				switch {
				case *dir == "":
					return usagef("recover needs --data DIR")
				case *dryRun && *rejoin:
					return usagef("--dry-run looks at what recovering would do; it does not go with --rejoin")
				case *rejoin:
					return rejoinNode(p, *dir, *yes)
				}
				r, err := node.Recover(*dir, true)
				if err != nil {
					return err
				}
				if *dryRun {
					fmt.Fprint(p.stdout, r.String())
					return nil
				}
				if !*yes && isTerminal(p.stdin) {
					fmt.Fprint(p.stdout, r.String())
					if err := confirm(p, "recover it", string(r.Log.Node)); err != nil {
						return err
					}
				}
				if r, err = node.Recover(*dir, false); err != nil {
					return err
				}
				fmt.Fprint(p.stdout, r.String())
				fmt.Fprintf(p.stderr, "start this node as usual; then, on every other survivor: facetd recover --rejoin --data DIR\n")
				return nil
			}
		},
	}
}

func rejoinNode(p *program, dir string, yes bool) error {
	if !yes && isTerminal(p.stdin) {
		if err := confirm(p, "set the placement log in "+dir+" aside", "rejoin"); err != nil {
			return err
		}
	}
	aside, err := node.Rejoin(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "the placement log is in %s now; nothing was deleted\n", aside)
	fmt.Fprintln(p.stderr, "start this node as usual, with --join naming the node that was recovered")
	return nil
}

// confirm asks a person to type a word.
func confirm(p *program, what, word string) error {
	fmt.Fprintf(p.stderr, "%s? Type %s to confirm: ", what, word)
	answer, err := bufio.NewReader(io.LimitReader(p.stdin, 1<<10)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(answer) != word {
		return errors.New("nothing was done")
	}
	return nil
}
