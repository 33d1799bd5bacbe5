package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// diskCounter reads how much a disk has been given to write, from the disk's own
// counter: all that reaches it, for whatever process, file or journal. (What a process
// is said to have written counts pages of memory, and is wrong by far.)
type diskCounter struct {
	dir  *os.File
	path string // of the disk's counters; empty where it has none
}

func openDisk(dir string) (*diskCounter, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	d := &diskCounter{dir: f}
	if number := deviceOf(dir); number != "" {
		path := "/sys/dev/block/" + number + "/stat"
		if _, err := os.Stat(path); err == nil {
			d.path = path
		}
	}
	return d, nil
}

func (d *diskCounter) close() { d.dir.Close() }

// sync has the system write what it holds back for this file system.
func (d *diskCounter) sync() error { return syncFileSystem(d.dir) }

// written is what the disk was given so far, in bytes; nil where nobody counts.
func (d *diskCounter) written() (*int64, error) {
	if d.path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(d.path)
	if err != nil {
		return nil, err
	}
	n, err := sectorsWritten(string(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	n *= 512 // whatever the disk's own sectors are
	return &n, nil
}

// sectorsWritten is the seventh of a block device's counters.
func sectorsWritten(stat string) (int64, error) {
	fields := strings.Fields(stat)
	if len(fields) < 11 {
		return 0, fmt.Errorf("%d counters of a disk, want 11 or more", len(fields))
	}
	return strconv.ParseInt(fields[6], 10, 64)
}

// idle is how many bytes a second the disk is given in a while in which nobody calls.
func (d *diskCounter) idle(ctx context.Context, wait time.Duration) (float64, error) {
	if err := d.sync(); err != nil {
		return 0, err
	}
	before, err := d.written()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if err := d.sync(); err != nil {
		return 0, err
	}
	after, err := d.written()
	if err != nil || before == nil || after == nil {
		return 0, err
	}
	return float64(*after-*before) / time.Since(began).Seconds(), nil
}
