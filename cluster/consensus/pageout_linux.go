package consensus

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// pageOut takes the pages of a mapped file out of this process's memory. bbolt does
// not tell where it maps its file, so the mapping is looked up; it may be another by
// the time it is given back, which MADV_PAGEOUT does not mind: whatever is there stays
// what it is. (MADV_DONTNEED would throw away what is only in memory.)
func pageOut(file string) {
	file, err := filepath.Abs(file)
	if err != nil {
		return
	}
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return
	}
	defer maps.Close()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		if !strings.HasSuffix(lines.Text(), " "+file) {
			continue
		}
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); n == 2 {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_PAGEOUT) // Linux 5.4
		}
	}
}
