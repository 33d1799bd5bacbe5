package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/facetd/facetd/client"
	"github.com/facetd/facetd/facet"
)

const (
	// lookMin and lookMax bound the pause between two looks at an operation that a
	// person waits for. The first is short, for most drains of small clusters are.
	lookMin = 50 * time.Millisecond
	lookMax = time.Second

	// besideTimeout bounds what a command asks for beside what it was asked for.
	besideTimeout = 3 * time.Second
)

// clientCommand is a command that talks to a node about the cluster.
func clientCommand(c command, run func(fs *flag.FlagSet) func(ctx context.Context, p *program, cl *client.Client, args []string) error) *command {
	c.setup = func(fs *flag.FlagSet) action {
		srv := serverFlags(fs)
		do := run(fs)
		return func(ctx context.Context, p *program, args []string) error {
			ctx, stop := p.untilSignal(ctx)
			defer stop()
			cl, err := srv.open(ctx)
			if err != nil {
				return err
			}
			defer cl.Close()
			return do(ctx, p, cl, args)
		}
	}
	return &c
}

// operation is a command that starts an operation and waits for its end.
type operation struct {
	command
	kind   string
	paced  bool   // takes --rate
	forced string // what --force does; empty where there is none
	next   string // what to do when it is done; %s is the node
}

func (o operation) build() *command {
	return clientCommand(o.command, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		req := client.OperationRequest{Kind: o.kind}
		var noWait, cancel *bool
		json_ := fs.Bool("json", false, "print the operation as JSON")
		if o.paced {
			fs.IntVar(&req.Rate, "rate", 0, "move `N` facets a second (default: the cluster's)")
			noWait = fs.Bool("no-wait", false, "start it and do not wait for its end")
			cancel = fs.Bool("cancel", false, "cancel the one that runs")
		}
		if o.forced != "" {
			fs.BoolVar(&req.Force, "force", false, o.forced)
		}
		return func(ctx context.Context, p *program, cl *client.Client, args []string) error {
			if len(args) > 0 {
				req.Node = args[0]
			}
			if cancel != nil && *cancel {
				return cancelRunning(ctx, p, cl, req)
			}
			op, err := cl.StartOperation(ctx, req)
			if err != nil {
				return err
			}
			f := follower{p: p, cl: cl, req: req, command: o.name}
			if noWait != nil && *noWait {
				if !*json_ && op.State == client.OperationRunning {
					fmt.Fprintf(p.stdout, "%s runs as %s; \"facetd operations\" shows how far it is\n", f.what(), op.ID)
					return nil
				}
			} else if op, err = f.follow(ctx, op); err != nil {
				return err
			}
			if *json_ {
				if err := json.NewEncoder(p.stdout).Encode(op); err != nil {
					return err
				}
			}
			return f.tell(op, *json_, o.next)
		}
	})
}

// follower waits for an operation and shows how far it is.
type follower struct {
	p       *program
	cl      *client.Client
	req     client.OperationRequest
	command string
}

// what names the operation: "drain of n2".
func (f *follower) what() string { return operationText(f.req.Kind, f.req.Node) }

func operationText(kind, node string) string {
	if node == "" {
		return kind
	}
	return kind + " of " + node
}

// howToCancel is the command that cancels it.
func (f *follower) howToCancel() string {
	return strings.TrimSpace("facetd " + f.command + " --cancel " + f.req.Node)
}

// follow looks at the operation until it has ended.
func (f *follower) follow(ctx context.Context, op client.Operation) (client.Operation, error) {
	line := progressLine(f.p.stderr)
	defer line.clear()
	pause := lookMin
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for op.State == client.OperationRunning {
		line.show(f.what() + ": " + progressText(op))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return op, f.left(line, op, context.Cause(ctx))
		}
		now, err := f.cl.Operation(ctx, op.ID)
		if errors.Is(err, facet.ErrNotFound) {
			// Another node leads placement now, and numbers its operations anew.
			// Starting one that runs gives that one, and one that is done ends at
			// once.
			now, err = f.cl.StartOperation(ctx, f.req)
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return op, f.left(line, op, err)
		}
		op = now
		pause = min(lookMax, 2*pause)
		timer.Reset(pause)
	}
	return op, nil
}

// left tells that the operation goes on without this command, and why.
func (f *follower) left(line *statusLine, op client.Operation, err error) error {
	line.clear()
	var sig *signalError
	if !errors.As(err, &sig) {
		return fmt.Errorf("%w; the %s goes on if it can: \"facetd operations\" shows it", err, f.what())
	}
	fmt.Fprintf(f.p.stderr, "%s goes on, %s; wait for it again with the same command, or cancel it with: %s\n", f.what(), progressText(op), f.howToCancel())
	return &toldError{err}
}

// tell tells how the operation ended.
func (f *follower) tell(op client.Operation, quiet bool, next string) error {
	switch op.State {
	case client.OperationFailed, client.OperationCanceled:
		return fmt.Errorf("%s %s, %s", f.what(), op.State, progressText(op))
	case client.OperationDone:
		if quiet {
			return nil
		}
		took := ""
		if op.Ended != nil && op.Total > 0 {
			took = fmt.Sprintf(", %v", op.Ended.Sub(op.Started).Round(time.Millisecond))
		}
		if op.Total > 0 {
			took = fmt.Sprintf(": %s%s", counted(op.Done, "facet"), took)
		}
		fmt.Fprintf(f.p.stdout, "%s done%s\n", f.what(), took)
		if op.Message != "" {
			fmt.Fprintln(f.p.stdout, op.Message)
		}
		if next != "" {
			fmt.Fprintf(f.p.stderr, next+"\n", f.req.Node)
		}
	}
	return nil
}

// progressText is how far an operation is, in a few words.
func progressText(op client.Operation) string {
	s := fmt.Sprintf("%d of %s", op.Done, counted(op.Total, "facet"))
	if op.Total == 0 {
		s = "no facets"
	}
	if op.Failed > 0 {
		s += fmt.Sprintf(", %d to be tried again", op.Failed)
	}
	if op.State == client.OperationRunning && op.Rate > 0 {
		s += fmt.Sprintf(", at most %d/s", op.Rate)
	}
	if op.Message != "" {
		s += "; " + op.Message
	}
	return s
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// cancelRunning cancels the operation of that kind on that node, if one runs.
func cancelRunning(ctx context.Context, p *program, cl *client.Client, req client.OperationRequest) error {
	list, err := cl.Operations(ctx)
	if err != nil {
		return err
	}
	what := operationText(req.Kind, req.Node)
	for _, op := range list {
		if op.Kind == req.Kind && op.Node == req.Node && op.State == client.OperationRunning {
			return cancelOperation(ctx, p, cl, op)
		}
	}
	fmt.Fprintf(p.stderr, "there is no %s to cancel\n", what)
	return nil
}

func cancelOperation(ctx context.Context, p *program, cl *client.Client, op client.Operation) error {
	if err := cl.CancelOperation(ctx, op.ID); err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "canceled %s\n", operationText(op.Kind, op.Node))
	if op.Kind == "drain" || op.Kind == "decommission" {
		fmt.Fprintf(p.stderr, "%s is active again; what was moved stays where it is now\n", op.Node)
	}
	return nil
}

// statusLine is a line on a terminal that is written over and over. It shows
// nothing where nobody looks.
type statusLine struct{ w io.Writer }

func progressLine(w io.Writer) *statusLine {
	if !isTerminal(w) {
		w = nil
	}
	return &statusLine{w}
}

func (l *statusLine) show(text string) {
	if l.w == nil {
		return
	}
	if width := terminalWidth(l.w); width > 1 && len([]rune(text)) >= width {
		text = string([]rune(text)[:width-1])
	}
	fmt.Fprintf(l.w, "\r\x1b[K%s", text)
}

func (l *statusLine) clear() {
	if l.w != nil {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

func rebalanceCommand() *command {
	return operation{kind: "rebalance", paced: true, command: command{
		name: "rebalance", short: "spread facets over the nodes",
		long: `Moves owners and copies of facets so that every node has its share, and no more of
them than it must; pinned facets keep their owner. To be run after nodes were added.
It waits for the end; Ctrl-C stops waiting and leaves it running.`,
		examples: []string{"facetd rebalance", "facetd rebalance --rate 20 --no-wait", "facetd rebalance --cancel"},
	}}.build()
}

func repairCommand() *command {
	return operation{kind: "repair", paced: true, command: command{
		name: "repair", short: "make missing copies of facets",
		long: `Makes copies of every facet that has fewer than it should on nodes that live, without
waiting until a node that is gone has been gone for long. It waits for the end;
Ctrl-C stops waiting and leaves it running.`,
		examples: []string{"facetd repair", "facetd repair --rate 20 --no-wait", "facetd repair --cancel"},
	}}.build()
}

func operationsCommand() *command {
	return clientCommand(command{
		name: "operations", short: "list the operations on nodes and facets",
		long:     "Those that run and the last that ended, newest first. \"facetd operations cancel ID\"\ncancels one.",
		examples: []string{"facetd operations", "facetd operations --json", "facetd operations cancel op-7"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		json_ := fs.Bool("json", false, "print one JSON object a line")
		return func(ctx context.Context, p *program, cl *client.Client, _ []string) error {
			list, err := cl.Operations(ctx)
			if err != nil {
				return err
			}
			if *json_ {
				enc := json.NewEncoder(p.stdout)
				for _, op := range list {
					if err := enc.Encode(op); err != nil {
						return err
					}
				}
				return nil
			}
			if len(list) == 0 {
				fmt.Fprintln(p.stderr, "no operations")
				return nil
			}
			return printOperations(p.stdout, list)
		}
	})
}

func printOperations(w io.Writer, list []client.Operation) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "OPERATION\tKIND\tNODE\tSTATE\tSTARTED\tPROGRESS")
	for _, op := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", op.ID, op.Kind, dash(op.Node), op.State, op.Started.Format(time.RFC3339), progressText(op))
	}
	return t.Flush()
}

// dash stands where a table has nothing.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func operationsCancelCommand() *command {
	return clientCommand(command{
		name: "operations cancel", args: "ID", short: "cancel an operation", minArgs: 1, maxArgs: 1,
		long:     "What it did stays done. A node that was being drained or decommissioned is active\nagain. An operation that has ended is left alone.",
		examples: []string{"facetd operations cancel op-7"},
	}, func(fs *flag.FlagSet) func(context.Context, *program, *client.Client, []string) error {
		return func(ctx context.Context, p *program, cl *client.Client, args []string) error {
			op, err := cl.Operation(ctx, args[0])
			if err != nil {
				return err
			}
			if op.State != client.OperationRunning {
				fmt.Fprintf(p.stderr, "%s is %s already\n", op.ID, op.State)
				return nil
			}
			return cancelOperation(ctx, p, cl, op)
		}
	})
}
