package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the system kill the child when this test dies, paused
// children too.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
