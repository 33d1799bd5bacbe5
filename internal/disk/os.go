package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// OS returns the FS rooted at the directory dir, which must exist when the FS
// is used.
func OS(dir string) FS { return osFS{dir} }

type osFS struct{ root string }

func (o osFS) path(op, name string) (string, error) {
	if err := checkName(op, name); err != nil {
		return "", err
	}
	return filepath.Join(o.root, name), nil
}

func (o osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	p, err := o.path("open", name)
	if err != nil {
		return nil, err
	}
	if flag&Direct == 0 {
		f, err := os.OpenFile(p, flag, perm)
		if err != nil {
			return nil, err
		}
		return osFile{f}, nil
	}
	flag &^= Direct
	if flag != os.O_RDONLY {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("direct access is for reading only")}
	}
	f, err := openDirect(p)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		f, err = os.Open(p)
	}
	if err != nil {
		return nil, err
	}
	// Also where direct reads work: a later buffered read must not find pages
	// that a failed write-back left behind.
	if err := dropCache(f); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "drop cached pages of", Path: name, Err: err}, f.Close())
	}
	return osFile{f}, nil
}

func (o osFS) Rename(oldName, newName string) error {
	from, err := o.path("rename", oldName)
	if err != nil {
		return err
	}
	to, err := o.path("rename", newName)
	if err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (o osFS) Remove(name string) error {
	p, err := o.path("remove", name)
	if err != nil {
		return err
	}
	return os.Remove(p)
}

func (o osFS) ReadDir(name string) ([]Entry, error) {
	p, err := o.path("readdir", name)
	if err != nil {
		return nil, err
	}
	list, err := os.ReadDir(p)
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(list))
	for _, d := range list {
		e := Entry{Name: d.Name(), Dir: d.IsDir()}
		if !e.Dir {
			info, err := d.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed since the listing
			}
			if err != nil {
				return nil, err
			}
			e.Size = info.Size()
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (o osFS) MkdirAll(name string, perm fs.FileMode) error {
	p, err := o.path("mkdir", name)
	if err != nil {
		return err
	}
	return os.MkdirAll(p, perm)
}

func (o osFS) SyncDir(name string) error {
	p, err := o.path("syncdir", name)
	if err != nil {
		return err
	}
	d, err := os.Open(p)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (o osFS) Stat(name string) (int64, error) {
	p, err := o.path("stat", name)
	if err != nil {
		return 0, err
	}
	info, err := os.Stat(p)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (o osFS) Free() (int64, error) { return freeBytes(o.root) }

type osFile struct{ f *os.File }

func (f osFile) ReadAt(p []byte, off int64) (int, error)  { return f.f.ReadAt(p, off) }
func (f osFile) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }
func (f osFile) Truncate(size int64) error                { return f.f.Truncate(size) }
func (f osFile) Close() error                             { return f.f.Close() }

func (f osFile) Size() (int64, error) {
	info, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Allocate(size int64) error {
	if err := allocate(f.f, size); err != nil {
		return &fs.PathError{Op: "allocate", Path: f.f.Name(), Err: err}
	}
	return nil
}

func (f osFile) Datasync() error {
	if err := datasync(f.f); err != nil {
		return &fs.PathError{Op: "datasync", Path: f.f.Name(), Err: err}
	}
	return nil
}
