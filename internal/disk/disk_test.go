package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestConformance holds every FS to the contract of the interfaces.
func TestConformance(t *testing.T) {
	t.Run("os", func(t *testing.T) { conform(t, OS(t.TempDir())) })
	t.Run("mem", func(t *testing.T) { conform(t, NewMem()) })
}

func conform(t *testing.T, fsys FS) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("got error %v, want %v", err, want)
		}
	}
	open := func(name string, flag int) File {
		t.Helper()
		f, err := fsys.OpenFile(name, flag, 0o600)
		must(err)
		return f
	}

	must(MkdirAllSync(fsys, "a/b", 0o700))
	must(fsys.MkdirAll("a/b", 0o700))
	_, err := fsys.OpenFile("a/b/x", os.O_RDWR, 0)
	is(err, fs.ErrNotExist)
	_, err = fsys.OpenFile("nowhere/x", os.O_RDWR|os.O_CREATE, 0o600)
	is(err, fs.ErrNotExist)
	for _, name := range []string{"../x", "/x", "a/../../x", ""} {
		if _, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600); err == nil {
			t.Fatalf("name %q was accepted", name)
		}
	}

	f := open("a/b/x", os.O_RDWR|os.O_CREATE|os.O_EXCL)
	_, err = fsys.OpenFile("a/b/x", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	is(err, fs.ErrExist)
	n, err := f.WriteAt([]byte("hello"), 6000)
	must(err)
	if size, err := f.Size(); n != 5 || err != nil || size != 6005 {
		t.Fatalf("wrote %d, size %d, %v", n, size, err)
	}
	buf := make([]byte, 8)
	if n, err := f.ReadAt(buf, 5998); n != 7 || err != io.EOF || string(buf[:7]) != "\x00\x00hello" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	if n, err := f.ReadAt(buf, 7000); n != 0 || err != io.EOF {
		t.Fatalf("read behind the end: %d, %v", n, err)
	}
	must(f.Truncate(6002))
	must(f.Truncate(6010))
	if _, err := f.ReadAt(buf, 6000); err != nil || string(buf) != "he\x00\x00\x00\x00\x00\x00" {
		t.Fatalf("read after shrinking and growing %q, %v", buf, err)
	}
	must(f.Allocate(3 * BlockSize))
	must(f.Allocate(BlockSize)) // never shrinks
	if size, err := fsys.Stat("a/b/x"); err != nil || size != 3*BlockSize {
		t.Fatalf("size %d, %v", size, err)
	}
	must(f.Datasync())

	r := open("a/b/x", os.O_RDONLY)
	if _, err := r.WriteAt(buf, 0); err == nil {
		t.Fatal("write to a file opened for reading")
	}
	must(r.Close())
	d := open("a/b/x", os.O_RDONLY|Direct)
	block := AlignedBuffer(2 * BlockSize)
	if n, err := d.ReadAt(block, BlockSize); n != len(block) || err != nil || !bytes.Contains(block, []byte("\x00he\x00")) {
		t.Fatalf("direct read %d, %v", n, err)
	}
	if n, err := d.ReadAt(block, 2*BlockSize); n != BlockSize || err != io.EOF {
		t.Fatalf("direct read at the end %d, %v", n, err)
	}
	must(d.Close())
	_, err = fsys.OpenFile("a/b/x", os.O_RDWR|Direct, 0)
	if err == nil {
		t.Fatal("direct access for writing")
	}

	must(fsys.Rename("a/b/x", "a/y"))
	must(fsys.SyncDir("a/b"))
	must(fsys.SyncDir("a"))
	is(fsys.Rename("a/b/x", "a/z"), fs.ErrNotExist)
	if _, err := f.WriteAt([]byte("!"), 0); err != nil { // a handle follows the file
		t.Fatal(err)
	}
	z := open("a/z", os.O_RDWR|os.O_CREATE)
	must(z.Close())
	must(fsys.Rename("a/y", "a/z")) // replaces
	entries, err := fsys.ReadDir("a")
	must(err)
	if !slices.Equal(entries, []Entry{{Name: "b", Dir: true}, {Name: "z", Size: 3 * BlockSize}}) {
		t.Fatalf("entries %v", entries)
	}
	if err := fsys.Remove("a"); err == nil {
		t.Fatal("removed a directory that is not empty")
	}
	must(fsys.Remove("a/z"))
	is(fsys.Remove("a/z"), fs.ErrNotExist)
	if _, err := f.ReadAt(buf[:1], 0); err != nil || buf[0] != '!' { // and outlives its name
		t.Fatalf("read of a removed file %q, %v", buf[:1], err)
	}
	must(f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("second close: %v", err)
	}
	must(fsys.Remove("a/b"))
	_, err = fsys.ReadDir("a/b")
	is(err, fs.ErrNotExist)
	is(fsys.SyncDir("a/b"), fs.ErrNotExist)
	if free, err := fsys.Free(); err != nil || free <= 0 {
		t.Fatalf("free %d, %v", free, err)
	}
	tr := open("a/t", os.O_RDWR|os.O_CREATE)
	_, err = tr.WriteAt([]byte("old"), 0)
	must(err)
	must(tr.Close())
	tr = open("a/t", os.O_RDWR|os.O_TRUNC)
	if size, err := tr.Size(); size != 0 || err != nil {
		t.Fatalf("size after O_TRUNC %d, %v", size, err)
	}
	must(tr.Close())
}

func write(t *testing.T, fsys FS, name string, off int64, s string, sync bool) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := f.Datasync(); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, fsys FS, name string, flag int) string {
	t.Helper()
	f, err := fsys.OpenFile(name, flag, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := AlignedBuffer(2 * BlockSize)
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func TestMemKeepsOnlySyncedBytes(t *testing.T) {
	m := NewMem()
	write(t, m, "f", 0, "synced", true)
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	write(t, m, "f", 0, "unsynced and longer", false)
	write(t, m, "g", 0, "synced, but its name is not", true)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3 { // an image leaves the disk as it is
		im := m.Image(rng, LoseAll)
		if f, g := read(t, im, "f", os.O_RDONLY), read(t, im, "g", os.O_RDONLY); f != "synced" || g != "(none)" {
			t.Fatalf("after losing all: f = %q, g = %q", f, g)
		}
		im = m.Image(rng, KeepAll)
		if f, g := read(t, im, "f", os.O_RDONLY), read(t, im, "g", os.O_RDONLY); f != "unsynced and longer" || g == "(none)" {
			t.Fatalf("after keeping all: f = %q, g = %q", f, g)
		}
		// What a crash left is durable.
		if f := read(t, im.Crash(rng, LoseAll), "f", os.O_RDONLY); f != "unsynced and longer" {
			t.Fatalf("second crash took %q", f)
		}
	}
	// A killed process loses nothing, but what it did not sync still may go.
	k := m.Restart()
	if _, err := m.Stat("f"); !errors.Is(err, ErrCrashed) {
		t.Fatalf("the old disk still answers: %v", err)
	}
	if f := read(t, k, "f", os.O_RDONLY); f != "unsynced and longer" {
		t.Fatalf("after a kill f = %q", f)
	}
	if f := read(t, k.Crash(rng, LoseAll), "f", os.O_RDONLY); f != "synced" {
		t.Fatalf("after a kill and a power cut f = %q", f)
	}
}

// TestMemTears draws crashes until every outcome that the model promises has
// been seen, and none that it excludes.
func TestMemTears(t *testing.T) {
	m := NewMem()
	old, now := bytes.Repeat([]byte("o"), BlockSize+SectorSize), bytes.Repeat([]byte("n"), BlockSize+SectorSize)
	write(t, m, "f", 0, string(old), true)
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	write(t, m, "f", 0, string(now), false)
	for loss, kinds := range map[Loss]string{LoseAll: "o", KeepAll: "n", KeepSome: "on", Tear: "on", TearGarbage: "on?"} {
		rng := rand.New(rand.NewPCG(uint64(loss), 7))
		seen, mixedBlock := map[byte]bool{}, false
		for range 200 {
			data := read(t, m.Image(rng, loss), "f", os.O_RDONLY)
			if len(data) != len(old) {
				t.Fatalf("loss %d: %d bytes", loss, len(data))
			}
			for s := 0; s < len(data); s += SectorSize {
				sector := data[s : s+SectorSize]
				k := sector[0]
				if sector != string(old[:SectorSize]) && sector != string(now[:SectorSize]) {
					k = '?'
				}
				seen[k] = true
				mixedBlock = mixedBlock || s < BlockSize && sector[0] != data[0]
			}
		}
		for _, k := range []byte("on?") {
			if want := bytes.IndexByte([]byte(kinds), k) >= 0; seen[k] != want {
				t.Errorf("loss %d: sector kind %q seen %v, want %v", loss, k, seen[k], want)
			}
		}
		if want := loss == Tear || loss == TearGarbage; mixedBlock != want {
			t.Errorf("loss %d: block torn inside: %v", loss, mixedBlock)
		}
	}
}

func TestMemRenameIsAtomic(t *testing.T) {
	m := NewMem()
	write(t, m, "f", 0, "old", true)
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	write(t, m, "tmp", 0, "new", true)
	if err := m.Rename("tmp", "f"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	seen := map[string]bool{}
	for range 100 {
		im := m.Image(rng, LossAny)
		seen[read(t, im, "f", os.O_RDONLY)] = true
	}
	if len(seen) != 2 || !seen["old"] || !seen["new"] {
		t.Fatalf("f after crashes: %v", seen)
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	if f := read(t, m.Crash(rng, LoseAll), "f", os.O_RDONLY); f != "new" {
		t.Fatalf("f = %q after the directory was synced", f)
	}
}

func TestMemDirectoriesNeedSync(t *testing.T) {
	m := NewMem()
	if err := m.MkdirAll("a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, m, "a/b/f", 0, "x", true)
	if err := m.SyncDir("a/b"); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	if f := read(t, m.Image(rng, LoseAll), "a/b/f", os.O_RDONLY); f != "(none)" {
		t.Fatalf("file %q survived its directory", f)
	}
	if err := MkdirAllSync(m, "a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if f := read(t, m.Image(rng, LoseAll), "a/b/f", os.O_RDONLY); f != "x" {
		t.Fatalf("f = %q", f)
	}
}

// TestMemFailedSync: after a failed fsync reads show the bytes, the device has
// the old ones, and a later fsync that succeeds does not help.
func TestMemFailedSync(t *testing.T) {
	m := NewMem()
	write(t, m, "f", 0, "old", true)
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	f, err := m.OpenFile("f", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.Inject(Fault{Ops: OpDatasync, Path: "f", Err: syscall.EIO, Times: 1})
	if _, err := f.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v", err)
	}
	if err := f.Datasync(); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	if got := read(t, m, "f", os.O_RDONLY); got != "new" {
		t.Fatalf("cached read %q", got)
	}
	if got := read(t, m.Image(rng, LoseAll), "f", os.O_RDONLY); got != "old" {
		t.Fatalf("after the crash %q", got)
	}
	if got := read(t, m, "f", os.O_RDONLY|Direct); got != "old" {
		t.Fatalf("direct read %q", got)
	}
}

func TestMemFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMem()
		f, err := m.OpenFile("log.seg", os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		remove := m.Inject(Fault{Ops: OpWrite | OpTruncate, Path: "*.seg", Err: syscall.EIO, After: 1, Times: 2})
		slow := m.Inject(Fault{Ops: OpDatasync, Delay: 3 * time.Second})
		for i, want := range []error{nil, syscall.EIO, syscall.EIO, nil} {
			if _, err := f.WriteAt([]byte("x"), int64(i)); !errors.Is(err, want) {
				t.Fatalf("write %d: %v, want %v", i, err, want)
			}
		}
		start := time.Now()
		if err := f.Datasync(); err != nil || time.Since(start) != 3*time.Second {
			t.Fatalf("slow sync took %v, %v", time.Since(start), err)
		}
		remove()
		slow()
		if got := read(t, m, "log.seg", os.O_RDONLY); got != "x\x00\x00x" {
			t.Fatalf("content %q", got)
		}

		m.SetQuota(10)
		if _, err := f.WriteAt(make([]byte, 11), 0); !IsFull(err) {
			t.Fatalf("write over the quota: %v", err)
		}
		if err := f.Allocate(10); err != nil {
			t.Fatal(err)
		}
		if free, err := m.Free(); free != 0 || err != nil {
			t.Fatalf("free %d, %v", free, err)
		}
		if err := m.Rename("log.seg", "other"); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(4); err != nil {
			t.Fatal(err)
		}
		if free, _ := m.Free(); free != 6 {
			t.Fatalf("free %d after truncating, want 6", free)
		}
		if err := m.Remove("other"); err != nil || m.Used() != 0 {
			t.Fatalf("used %d, %v", m.Used(), err)
		}
	})
}

// TestMemCrashAt: the disk dies at exactly the operation asked for, and the
// operation in flight may or may not have happened.
func TestMemCrashAt(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(40) {
		m := NewMem()
		write(t, m, "f", 0, "1", true)
		if err := m.SyncDir("."); err != nil {
			t.Fatal(err)
		}
		f, err := m.OpenFile("f", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		m.CrashAt(2)
		before := m.Ops()
		if _, err := f.WriteAt([]byte("2"), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Datasync(); !errors.Is(err, ErrCrashed) || !m.Crashed() || m.Ops() != before+2 {
			t.Fatalf("the second operation: %v", err)
		}
		if _, err := m.Stat("f"); !errors.Is(err, ErrCrashed) {
			t.Fatalf("an operation after the crash: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		seen[read(t, m.Crash(rand.New(rand.NewPCG(seed, 1)), LossAny), "f", os.O_RDONLY)] = true
	}
	if !seen["1"] || !seen["2"] {
		t.Fatalf("content after the crashes: %v", seen)
	}
}

func TestMemObserveAndCorrupt(t *testing.T) {
	m := NewMem()
	var ops []string
	m.Observe(func(op Op, name string) { ops = append(ops, op.String()+" "+name) })
	write(t, m, "f", 0, "abc", true)
	m.Observe(nil)
	if want := []string{"create f", "write f", "datasync f"}; !slices.Equal(ops, want) {
		t.Fatalf("operations %q, want %q", ops, want)
	}
	if err := m.Corrupt("f", func(data []byte) { data[1] ^= 0x20 }); err != nil {
		t.Fatal(err)
	}
	if got := read(t, m, "f", os.O_RDONLY); got != "aBc" {
		t.Fatalf("content %q", got)
	}
	if err := m.Corrupt("g", func([]byte) {}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestMemAgainstModel compares a Mem without crashes with plain byte slices.
func TestMemAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	m := NewMem()
	f, err := m.OpenFile("f", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var model []byte
	for i := range 2000 {
		off, n := rng.IntN(5*BlockSize), 1+rng.IntN(2*BlockSize)
		switch rng.IntN(6) {
		case 0, 1, 2:
			p := make([]byte, n)
			for j := range p {
				p[j] = byte(i)
			}
			if _, err := f.WriteAt(p, int64(off)); err != nil {
				t.Fatal(err)
			}
			if off+n > len(model) {
				model = append(model, make([]byte, off+n-len(model))...)
			}
			copy(model[off:], p)
		case 3:
			if err := f.Truncate(int64(off)); err != nil {
				t.Fatal(err)
			}
			if off <= len(model) {
				model = model[:off:off]
			} else {
				model = append(model, make([]byte, off-len(model))...)
			}
		case 4:
			if err := f.Datasync(); err != nil {
				t.Fatal(err)
			}
		case 5: // what all crashes of a synced file agree on
			if err := f.Datasync(); err != nil {
				t.Fatal(err)
			}
			if err := m.SyncDir("."); err != nil {
				t.Fatal(err)
			}
			im := m.Image(rng, LossAny)
			if size, err := im.Stat("f"); err != nil || size != int64(len(model)) {
				t.Fatalf("step %d: image has %d bytes, %v, want %d", i, size, err, len(model))
			}
		}
		got := make([]byte, len(model)+1)
		k, err := f.ReadAt(got, 0)
		if err != io.EOF || !bytes.Equal(got[:k], model) {
			t.Fatalf("step %d: content differs from the model (%d and %d bytes, %v)", i, k, len(model), err)
		}
	}
}
