// Command facetd is the whole product in one binary: the server, the SQL shell,
// operator commands and the benchmark. "facetd help" lists the commands.
//
// This is the only package that reads flags, environment, configuration files and
// signals; everything below it is configured by values.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(context.Background(), &program{
		args:    os.Args[1:],
		env:     os.LookupEnv,
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		signals: signals,
	}))
}
