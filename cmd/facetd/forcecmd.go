package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/facetd/facetd/client"
)

func facetRecoverCommand() *command {
	return facetCommand(command{
		name: "facet recover", args: "TENANT/FACET", short: "go on from the one copy that is left of a facet", maxArgs: 1,
		long: `For a facet that lost most of its copies for good and is unavailable. Makes a new
facet of the copy at one node and leads the name to it; what only the lost copies had
is lost, and "facetd facet stat" says so ever after. Lost nodes that come back change
nothing. It is refused while enough copies answer to go on without loss: start the
nodes that keep them first. --dry-run tells what there is and changes nothing. Asks
first, unless --yes is given, and may be repeated.`,
		examples: []string{"facetd facet recover --from n3 --dry-run acme/notes", "facetd facet recover --from n3 acme/notes"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Facet, []string) error {
		from := fs.String("from", "", "the `NODE` with the copy (required)")
		dry := fs.Bool("dry-run", false, "only tell what there is")
		yes := fs.Bool("yes", false, "do not ask")
		json_ := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, p *program, f *client.Facet, _ []string) error {
			if *from == "" {
				return usagef("facet recover needs --from NODE; \"facetd facet stat %s\" lists the nodes that keep it", f.Name())
			}
			if !*dry && !*yes && !isTerminal(p.stdin) {
				return usagef("there is no terminal to ask on; --dry-run shows what there is, --yes recovers without asking")
			}
			return recoverFacet(ctx, p, f, client.RecoverRequest{From: *from, DryRun: *dry}, *yes, *json_)
		}
	})
}

// recoverFacet looks first, whatever is asked for: what a person agrees to is what is
// done then, or nothing.
func recoverFacet(ctx context.Context, p *program, f *client.Facet, req client.RecoverRequest, yes, json_ bool) error {
	look, err := f.Recover(ctx, client.RecoverRequest{From: req.From, DryRun: true})
	switch {
	case err != nil:
		return err
	case look.Recovered != nil:
		fmt.Fprintf(p.stderr, "%s was recovered before; nothing is to be done\n", f.Name())
		return printInfo(p, *look.Recovered, json_)
	case json_ && req.DryRun:
		err = json.NewEncoder(p.stdout).Encode(look)
	case req.DryRun:
		err = printRecovery(p.stdout, f, look)
	case !json_:
		err = printRecovery(p.stderr, f, look)
	}
	if err != nil {
		return err
	}
	if look.Refused != "" {
		return fmt.Errorf("%s is not recovered: %s", f.Name(), look.Refused)
	}
	if req.DryRun {
		return nil
	}
	if !yes {
		fmt.Fprintf(p.stderr, "go on from this copy? Type the name %s to confirm: ", f.Name())
		answer, err := bufio.NewReader(io.LimitReader(p.stdin, 1<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return err
		}
		if strings.TrimSpace(answer) != f.Name().String() {
			return errors.New("not recovered")
		}
	}
	req.Incarnation = look.Incarnation
	done, err := f.Recover(ctx, req)
	if err != nil {
		return err
	}
	if done.Recovered == nil {
		return fmt.Errorf("%s was not recovered", f.Name())
	}
	fmt.Fprintf(p.stderr, "%s goes on from the copy of %s; look at what is in it\n", f.Name(), req.From)
	return printInfo(p, *done.Recovered, json_)
}

// printRecovery tells what there is, and what a recovery would lose.
func printRecovery(w io.Writer, f *client.Facet, r client.Recovery) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "facet\t%s\n", f.Name())
	fmt.Fprintf(t, "incarnation\t%s\n", r.Incarnation)
	if r.LastOwner != "" {
		fmt.Fprintf(t, "last owner\t%s\n", r.LastOwner)
	}
	if r.SizeBytes > 0 || r.Refused == "" {
		fmt.Fprintf(t, "copy at %s\tends at %s, %s\n", r.From, r.Position, sizeText(r.SizeBytes))
	}
	for _, c := range r.Copies {
		if c.Problem != "" {
			fmt.Fprintf(t, "%s\t%s\n", c.Node, c.Problem)
			continue
		}
		fmt.Fprintf(t, "%s\tends at %s, known to be committed up to %d, %s\n", c.Node, c.Position, c.Committed, c.Health)
	}
	if r.Refused == "" {
		fmt.Fprintf(t, "new facet\tkept by %s\n", counted(r.Replicas, "node"))
		fmt.Fprintf(t, "kept\t%s\n", keptText(r))
		fmt.Fprintf(t, "lost\twhatever was acknowledged and is only in the copies that do not answer; nobody can tell how much\n")
	}
	return t.Flush()
}

// keptText says how sure the content of the copy is.
func keptText(r client.Recovery) string {
	_, seq, ok := strings.Cut(r.Position, ".")
	switch {
	case ok && r.Committed == 0 && seq != "0":
		return "all of this copy; what of it was committed is not known, for its node was started since"
	case ok && fmt.Sprint(r.Committed) != seq:
		return fmt.Sprintf("all of this copy; what is behind %d is not known to be committed, and may be writes whose callers were told nothing", r.Committed)
	}
	return "all of this copy, which is known to be committed"
}
