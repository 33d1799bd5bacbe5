package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/facetd/facetd/cmd/facetd/internal/shell"
	"github.com/facetd/facetd/facet"
)

// program is everything a command may touch of the process it runs in.
type program struct {
	args           []string
	env            func(string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal // SIGINT and SIGTERM; nil in tests
}

// Exit codes. Scripts rely on them.
const (
	exitOK      = 0
	exitError   = 1 // the command did not do what it was asked
	exitUsage   = 2 // it was asked the wrong way
	exitConnect = 3 // no server answered
)

// usageError is a command line that makes no sense.
type usageError struct{ msg string }

func (e *usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return &usageError{msg: fmt.Sprintf(format, args...)} }

// connectError is a server that does not answer.
type connectError struct {
	server string
	err    error
}

func (e *connectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.server, e.err) }
func (e *connectError) Unwrap() error { return e.err }

// hintedError is an error with what to do about it, of a server that is there.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// toldError is an error that was shown already; only the exit code is left.
type toldError struct{ err error }

func (e *toldError) Error() string { return e.err.Error() }
func (e *toldError) Unwrap() error { return e.err }

// run runs one command line and returns the exit code.
func run(ctx context.Context, p *program) int {
	cmd, err := p.dispatch(ctx)
	if err == nil {
		return exitOK
	}
	return p.report(cmd, err)
}

// report tells about an error and chooses the exit code.
func (p *program) report(cmd *command, err error) int {
	var usage *usageError
	var connect *connectError
	var told *toldError
	var hinted *hintedError
	code := exitError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(p.stderr, "facetd: %s\n", usage.msg)
		if cmd == nil {
			fmt.Fprintln(p.stderr, `"facetd help" lists the commands`)
		} else {
			fmt.Fprintf(p.stderr, "usage: facetd %s\n\"facetd help %s\" tells more\n", cmd.usage(), cmd.name)
		}
		return exitUsage
	case errors.As(err, &connect):
		code = exitConnect
	case errors.Is(err, facet.ErrUnavailable):
		code = exitConnect
	}
	if errors.As(err, &told) {
		return code
	}
	if connect != nil {
		fmt.Fprintf(p.stderr, "facetd: %v\nhint: is a node running there? \"facetd dev\" starts one here; --server or FACETD_SERVER names another\n", err)
		return code
	}
	fmt.Fprintf(p.stderr, "facetd: %s\n", shell.Message(err))
	h := shell.Hint(err)
	if errors.As(err, &hinted) {
		h = hinted.hint
	}
	if h != "" {
		fmt.Fprintf(p.stderr, "hint: %s\n", h)
	}
	return code
}

// untilSignal is a context that ends with the first signal.
func (p *program) untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-p.signals:
			cancel(&signalError{s})
			// The second signal does not wait for anything.
			select {
			case <-p.signals:
				os.Exit(130)
			case <-done:
			}
		case <-done:
		}
	}()
	return ctx, func() {
		close(done)
		cancel(context.Canceled)
	}
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ s os.Signal }

func (e *signalError) Error() string { return "stopped by " + e.s.String() }
