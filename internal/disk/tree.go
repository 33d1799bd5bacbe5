package disk

// TreeFS is an FS that can make everything in it durable with one call, which is
// cheaper than a call for each of many files.
type TreeFS interface {
	FS
	// OpenTree must be called before the writes that Sync is to cover: an error
	// the system met while writing them back in between is reported to those who
	// were there. Systems without such a call answer errors.ErrUnsupported.
	OpenTree() (Tree, error)
}

// Tree makes a whole file system durable.
type Tree interface {
	// Sync makes all content and all names durable that were written before the
	// call, by anyone in the file system.
	Sync() error
	Close() error
}

// OpenTree implements TreeFS.
func (m *Mem) OpenTree() (Tree, error) { return memTree{m}, nil }

type memTree struct{ m *Mem }

func (t memTree) Sync() error {
	return t.m.change(OpDatasync, ".", func(string) error {
		for _, op := range t.m.pending {
			op.apply(t.m.durable)
		}
		t.m.pending = nil
		for _, n := range t.m.names {
			if !n.dir {
				n.data.sync()
			}
		}
		return nil
	})
}

func (t memTree) Close() error { return nil }
