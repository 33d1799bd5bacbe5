package node

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/facetd/facetd/internal/disk"
)

// A node that comes back has to find the others. Those that lost sight of it look for
// it, but who was away for a moment is lost to nobody: they go on to see it, and it
// sees nobody until one of them happens to swap states with it, every half minute with
// one of all. So it remembers where the others were. The file is a hint: it may be
// missing, old or damaged.
const (
	knownFile = "gossip.known" // an address and port on each line
	maxKnown  = 64             // of them
	maxLine   = 64             // bytes
)

// known reads where members were when this node ran last. What cannot be read is left
// out.
func (n *Node) known() []netip.AddrPort {
	fsys := n.cfg.Platform.FS
	size, err := fsys.Stat(knownFile)
	if err != nil || size > maxKnown*maxLine {
		return nil
	}
	f, err := fsys.OpenFile(knownFile, os.O_RDONLY, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	raw := make([]byte, size)
	if _, err := f.ReadAt(raw, 0); err != nil {
		return nil
	}
	var list []netip.AddrPort
	for line := range bytes.Lines(raw) {
		if a, err := netip.ParseAddrPort(string(bytes.TrimSpace(line))); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// remember writes down where the others are, if that changed since last was written. A
// node that sees nobody keeps what it knew.
func (n *Node) remember(last []netip.AddrPort) []netip.AddrPort {
	now := n.gossip.Others()
	now = now[:min(len(now), maxKnown)]
	if len(now) == 0 || slices.Equal(now, last) {
		return last
	}
	var b bytes.Buffer
	for _, a := range now {
		fmt.Fprintln(&b, a)
	}
	if err := replaceFile(n.cfg.Platform.FS, knownFile, b.Bytes()); err != nil && n.ctx.Err() == nil {
		n.log.Debug("remember where the others are", "error", err)
	}
	return now // also after an error: it is tried again when they change
}

// replaceFile replaces a file of the root so that after a crash the old or the new
// content is there.
func replaceFile(fsys disk.FS, name string, content []byte) error {
	tmp := name + ".tmp"
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(".")
}
