package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The versions that install gets.
const (
	etcdVersion    = "v3.7.3"
	natsVersion    = "v2.15.3"
	workerdVersion = "1.20261117.1"
)

// installCommand builds or downloads the programs that can be had, into one directory.
func installCommand(ctx context.Context, args []string, progress io.Writer) error {
	fs := flag.NewFlagSet("peers install", flag.ContinueOnError)
	dir := fs.String("dir", "", "put the programs into this `DIR`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *dir == "" || fs.NArg() > 0 {
		return errors.New("install needs --dir DIR and nothing else")
	}
	bin, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	in := installer{ctx: ctx, bin: bin, progress: progress}
	err = errors.Join(in.facetd(), in.goProgram("etcd", "go.etcd.io/etcd/server/v3", etcdVersion),
		in.goProgram("nats-server", "github.com/nats-io/nats-server/v2", natsVersion), in.workerd())
	fmt.Fprintln(progress, "rqlited is not installed: the Go module proxy does not have it. Put it into --dir or PATH if you have it.")
	return err
}

type installer struct {
	ctx      context.Context
	bin      string
	progress io.Writer
}

// run runs a program in a directory.
func (in *installer) run(dir, program string, args ...string) error {
	fmt.Fprintf(in.progress, "%s %s\n", program, strings.Join(args, " "))
	cmd := exec.CommandContext(in.ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, in.progress, in.progress
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return nil
}

// scratch makes a directory for the length of a call.
func scratch(use func(dir string) error) error {
	dir, err := os.MkdirTemp("", "peers-install-*")
	if err != nil {
		return err
	}
	return errors.Join(use(dir), os.RemoveAll(dir))
}

// facetd builds facetd of the repository that this module is part of. Its version is
// the commit, so that the report has it.
func (in *installer) facetd() error {
	out, err := exec.CommandContext(in.ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/facetd/facetd").Output()
	if err != nil {
		return fmt.Errorf("find facetd's source, which needs to be run in bench/peers: %w", err)
	}
	dir := strings.TrimSpace(string(out))
	args := []string{"build", "-o", filepath.Join(in.bin, "facetd")}
	if commit, err := exec.CommandContext(in.ctx, "git", "-C", dir, "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12").Output(); err == nil {
		args = append(args, "-ldflags=-X main.version=devel-"+strings.TrimSpace(string(commit)))
	}
	return in.run(dir, "go", append(args, "./cmd/facetd")...)
}

// goProgram builds a program as a dependency of an empty module: etcd's own module has
// replacements, which go install refuses.
func (in *installer) goProgram(name, pkg, version string) error {
	return scratch(func(dir string) error {
		for _, args := range [][]string{{"mod", "init", "scratch"}, {"get", pkg + "@" + version}, {"build", "-o", filepath.Join(in.bin, name), pkg}} {
			if err := in.run(dir, "go", args...); err != nil {
				return err
			}
		}
		return nil
	})
}

// workerd downloads workerd from the npm registry.
func (in *installer) workerd() error {
	return scratch(func(dir string) error {
		// The scripts of packages are not needed: the program is in the package for
		// this kind of machine, of which npm installs one.
		if err := in.run(dir, "npm", "install", "--no-save", "--ignore-scripts", "--prefix", dir, "workerd@"+workerdVersion); err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(dir, "node_modules", "@cloudflare", "workerd-*", "bin", "workerd"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("npm installed %d programs of workerd, %v", len(found), err)
		}
		program := filepath.Join(in.bin, "workerd")
		if err := os.Remove(program); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return copyProgram(found[0], program)
	})
}

func copyProgram(from, to string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
