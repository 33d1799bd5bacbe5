package disk

import (
	"errors"
	"path"
	"time"
)

// Op is a set of operations, for faults and observers.
type Op uint16

const (
	OpOpen Op = 1 << iota // of a file that exists
	OpCreate
	OpRead
	OpWrite
	OpAllocate
	OpTruncate
	OpDatasync
	OpRename
	OpRemove
	OpMkdir
	OpSyncDir
	OpReadDir
	OpStat
	OpFree

	// OpChanges are the operations after which a crash may find another state:
	// those Mem counts.
	OpChanges = OpCreate | OpWrite | OpAllocate | OpTruncate | OpDatasync | OpRename | OpRemove | OpMkdir | OpSyncDir
)

var opNames = map[Op]string{
	OpOpen: "open", OpCreate: "create", OpRead: "read", OpWrite: "write", OpAllocate: "allocate",
	OpTruncate: "truncate", OpDatasync: "datasync", OpRename: "rename", OpRemove: "remove",
	OpMkdir: "mkdir", OpSyncDir: "syncdir", OpReadDir: "readdir", OpStat: "stat", OpFree: "statfs",
}

func (o Op) String() string {
	if s, ok := opNames[o]; ok {
		return s
	}
	return "operations"
}

// ErrCrashed is what every operation on a crashed Mem returns.
var ErrCrashed = errors.New("disk has crashed")

// Fault makes matching operations fail or slow. An operation that fails with an
// injected error changes nothing, but a failed Datasync forgets its bytes: they
// stay readable from the cache, and no later Datasync makes them durable.
type Fault struct {
	Ops  Op
	Path string // pattern of package path; without a slash it is matched with the last element; "" matches all
	// Err is returned, wrapped with operation and path; nil only slows.
	Err   error
	Delay time.Duration // slept before the operation, without any lock
	After int           // matching operations that pass first
	Times int           // how many operations it hits; 0 means every one from then on
}

type armedFault struct {
	Fault
	seen int
}

func (f *armedFault) matches(op Op, name string) bool {
	if f.Ops&op == 0 {
		return false
	}
	if f.Path != "" {
		full, _ := path.Match(f.Path, name)
		base, _ := path.Match(f.Path, path.Base(name))
		if !full && !base {
			return false
		}
	}
	f.seen++
	return f.seen > f.After && (f.Times == 0 || f.seen <= f.After+f.Times)
}
