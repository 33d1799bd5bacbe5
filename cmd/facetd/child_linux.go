package main

import (
	"os/exec"
	"syscall"
)

// tieToParent keeps the terminal's signals from a child, and has the system kill
// it when the thread that starts it ends, as at the latest this process does.
func tieToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
