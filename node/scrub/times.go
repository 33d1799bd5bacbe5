package scrub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"time"
)

// times are when each part was read last, in Unix seconds; zero was never.
type times [parts]int64

const (
	magic   = "facetscr"
	version = 1
	fileLen = len(magic) + 4 + parts*8 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// oldest is the part that was read longest ago, and when that was.
func (t *times) oldest() (part int, at time.Time) {
	for i := range t {
		if t[i] < t[part] {
			part = i
		}
	}
	return part, time.Unix(t[part], 0)
}

func (t *times) set(part int, at time.Time) { t[part] = at.Unix() }

// begin gives the parts that were never read their turns, spread over the interval, and
// believes no time to come: a clock may have been wrong.
func (t *times) begin(now time.Time, interval time.Duration) {
	for i := range t {
		if t[i] <= 0 {
			t[i] = now.Add(time.Duration(i+1)*interval/parts - interval).Unix()
		}
		t[i] = min(t[i], now.Unix())
	}
}

func (t *times) encode() []byte {
	b := append(make([]byte, 0, fileLen), magic...)
	b = binary.BigEndian.AppendUint32(b, version)
	for _, at := range t {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeTimes(b []byte) (t times, err error) {
	if len(b) != fileLen || string(b[:len(magic)]) != magic {
		return t, errors.New("no times of a scrub")
	}
	if sum := crc32.Checksum(b[:fileLen-4], castagnoli); sum != binary.BigEndian.Uint32(b[fileLen-4:]) {
		return t, errors.New("the times of the scrub fail their checksum")
	}
	if v := binary.BigEndian.Uint32(b[len(magic):]); v != version {
		return t, fmt.Errorf("times of a scrub in version %d, this program knows %d", v, version)
	}
	for i := range t {
		t[i] = int64(binary.BigEndian.Uint64(b[len(magic)+4+8*i:]))
	}
	return t, nil
}

// load reads the times of the process before.
func (s *Scrubber) load() {
	t, err := s.readFile()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("it is not known when data were scrubbed last; all of them are read within the usual time", "file", s.opts.File, "error", err)
	}
	known := t
	t.begin(time.Now(), s.interval())
	// What was made up now counts from now on: also for a node that is never up for long.
	s.times, s.saved, s.unsaved = t, time.Now(), t != known
	_, at := s.times.oldest()
	s.counts.oldest.Store(at.Unix())
}

func (s *Scrubber) readFile() (t times, err error) {
	f, err := s.opts.FS.OpenFile(s.opts.File, os.O_RDONLY, 0)
	if err != nil {
		return t, err
	}
	defer f.Close() // opened for reading: nothing can be lost by closing it
	size, err := f.Size()
	if err != nil {
		return t, err
	}
	if size != int64(fileLen) {
		return t, fmt.Errorf("it is %d bytes long, want %d", size, fileLen)
	}
	b := make([]byte, fileLen)
	if _, err := f.ReadAt(b, 0); err != nil {
		return t, err
	}
	return decodeTimes(b)
}

// save writes them. What is lost of them is read again, so an error is only told.
func (s *Scrubber) save() {
	if !s.unsaved {
		return
	}
	s.saved, s.unsaved = time.Now(), false
	if err := s.write(); err != nil {
		s.log.Warn("write when data were scrubbed", "file", s.opts.File, "error", err)
	}
}

func (s *Scrubber) write() error {
	tmp := s.opts.File + ".tmp"
	f, err := s.opts.FS.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(s.times.encode(), 0)
	if err == nil {
		err = f.Datasync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := s.opts.FS.Rename(tmp, s.opts.File); err != nil {
		return err
	}
	return s.opts.FS.SyncDir(path.Dir(s.opts.File))
}
