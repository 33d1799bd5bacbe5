package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// tieToParent has the system kill a child when the thread that started it ends, and
// keeps the terminal's signals from it.
func tieToParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func syncFileSystem(dir *os.File) error { return unix.Syncfs(int(dir.Fd())) }

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// deviceOf is the number, MAJOR:MINOR, of the device that holds a directory.
func deviceOf(dir string) string {
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
}
