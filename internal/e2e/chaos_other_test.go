//go:build unix && !linux

package e2e

import (
	"errors"
	"testing"
)

// Elsewhere than on Linux no machine can be made to fail.

type disks struct{}

func newDisks(testing.TB) (*disks, error) { return nil, errors.New("disks that break need Linux") }
func (*disks) thaw()                      {}
func (*disks) add(string) *loopDisk       { return nil }

type loopDisk struct {
	dir    string
	broken bool
}

func (*loopDisk) empty()  {}
func (*loopDisk) repair() {}

type machineClock struct{ path string }

func newMachineClock(testing.TB, string) *machineClock { return nil }
func (*machineClock) steady()                          {}

type shaper struct{}

func (*wires) unshape(int) {}

func canStarve() error { return errors.New("taking processor time away needs Linux") }
