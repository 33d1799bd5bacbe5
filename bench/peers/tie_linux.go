package main

import (
	"os/exec"
	"syscall"
)

// tieToParent has the system kill a child when the thread that started it ends, and
// keeps the terminal's signals from it.
func tieToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
