package doctor

import "golang.org/x/sys/unix"

// unfit are file systems that do not keep what is synced, or keep no locks.
var unfit = map[int64]string{
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "NFS",
	unix.SMB_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.FUSE_SUPER_MAGIC: "FUSE",
}

func system(dir string) (s System) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		s.FileSystem = unfit[int64(fs.Type)]
		s.Free, s.Total = fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize)
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		s.MaxFiles = limit.Max // Go raises its own to this
	}
	var t unix.Timex
	if state, err := unix.Adjtimex(&t); err != nil {
		s.ClockUnknown = true
	} else {
		s.ClockSynced = state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
	}
	return s
}
