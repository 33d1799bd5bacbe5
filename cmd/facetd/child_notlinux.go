//go:build !linux

package main

import "os/exec"

// tieToParent keeps the terminal's signals from a child. That the child ends with
// this process is left to its standard input here.
func tieToParent(cmd *exec.Cmd) { ownGroup(cmd) }
