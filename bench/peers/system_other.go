//go:build !linux

package main

import (
	"os"
	"os/exec"
)

// tieToParent does nothing where the system cannot.
func tieToParent(*exec.Cmd) {}

func syncFileSystem(*os.File) error { return nil }

func datasync(f *os.File) error { return f.Sync() }

// deviceOf is empty: only Linux counts what a disk is given where a program can read it.
func deviceOf(string) string { return "" }
