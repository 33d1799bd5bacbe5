//go:build !unix

package main

import "os/exec"

// ownGroup keeps the terminal's signals from a child; here it cannot.
func ownGroup(*exec.Cmd) {}
