package credentials

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

const (
	// DefaultPoll is how often the files are looked at, as those of tokens are.
	DefaultPoll = 2 * time.Second

	// WarnBefore is how long before the end of a certificate the log speaks of it, and
	// warnEvery how often.
	WarnBefore = 7 * 24 * time.Hour
	warnEvery  = 24 * time.Hour

	// MaxFile bounds each file. It is that of internal/certs: the others are smaller.
	MaxFile = 1 << 20
)

// Source is some files that belong together.
type Source struct {
	// Name tells what it is for, in logs and metrics: api, peer, gossip.
	Name string
	// Files are read together. Two may be the same.
	Files []string
	// Take puts what the files hold in force, in the order of Files, and tells when
	// that ends, zero for never. On an error nothing has changed. It is called by one
	// goroutine at a time and must not call the Watcher.
	Take func(contents [][]byte) (ends time.Time, err error)
}

// Options of New. The zero value is usable.
type Options struct {
	// Poll is how often the files are looked at. Default DefaultPoll.
	Poll time.Duration
	// Log is told of content that cannot be taken, and of certificates about to end.
	// Default slog.Default().
	Log *slog.Logger
	// Audit is told of what is in force from now on. Default: Log.
	Audit *slog.Logger
}

// Watcher looks after files. It has a goroutine as soon as it has a source.
type Watcher struct {
	opt Options

	mu      sync.Mutex // held while files are read and taken
	sources []*source
	closed  bool

	stop  chan struct{}
	group sync.WaitGroup
}

type source struct {
	Source
	// look is what was seen last, taken or not.
	look [sha256.Size]byte
	// unsure: it could not be taken, and was seen once. Files that belong together are
	// exchanged one after the other, so only what is still there at the next look is an
	// error.
	unsure   error
	failures int64
	ends     time.Time
	warned   time.Time
}

// New makes a Watcher without sources.
func New(opt Options) *Watcher {
	if opt.Poll <= 0 {
		opt.Poll = DefaultPoll
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Audit == nil {
		opt.Audit = opt.Log
	}
	return &Watcher{opt: opt, stop: make(chan struct{})}
}

// Add reads a source and looks after it. What cannot be taken now is an error.
func (w *Watcher) Add(s Source) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	src := &source{Source: s}
	contents, look, err := s.read()
	if err == nil {
		src.look = look
		src.ends, err = s.Take(contents)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(distinct(s.Files), ", "), err)
	}
	if len(w.sources) == 0 && !w.closed {
		w.group.Go(w.watch)
	}
	w.sources = append(w.sources, src)
	w.warn(src, time.Now())
	return nil
}

// Close ends looking. It may be called twice.
func (w *Watcher) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	w.group.Wait()
}

func (w *Watcher) watch() {
	t := time.NewTicker(w.opt.Poll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.look(false)
		case <-w.stop:
			return
		}
	}
}

// Reload reads all files now. What cannot be taken is an error at once.
func (w *Watcher) Reload() { w.look(true) }

func (w *Watcher) look(sure bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, s := range w.sources {
		w.refresh(s, sure)
		w.warn(s, now)
	}
}

// refresh takes what the files hold if it is new. w.mu is held.
func (w *Watcher) refresh(s *source, sure bool) {
	contents, look, err := s.read()
	if look == s.look {
		if s.unsure != nil {
			w.refuse(s, s.unsure)
		}
		return
	}
	s.look, s.unsure = look, nil
	var ends time.Time
	if err == nil {
		ends, err = s.Take(contents)
	}
	switch {
	case err == nil:
		s.ends, s.warned = ends, time.Time{}
		args := []any{"audit", true, "action", "change credentials", "outcome", "done", "credentials", s.Name, "files", distinct(s.Files)}
		if !ends.IsZero() {
			args = append(args, "ends", ends.UTC().Format(time.RFC3339))
		}
		w.opt.Audit.Info("credentials have changed", args...)
	case sure:
		w.refuse(s, err)
	default:
		s.unsure = err
	}
}

func (w *Watcher) refuse(s *source, err error) {
	s.unsure = nil
	s.failures++
	w.opt.Log.Error("the files cannot be used; what is in force stays", "credentials", s.Name, "files", distinct(s.Files), "error", err)
}

// warn tells that something is about to end, once a day. w.mu is held.
func (w *Watcher) warn(s *source, now time.Time) {
	left := s.ends.Sub(now)
	if s.ends.IsZero() || left > WarnBefore || now.Sub(s.warned) < warnEvery {
		return
	}
	s.warned = now
	args := []any{"credentials", s.Name, "files", distinct(s.Files), "ends", s.ends.UTC().Format(time.RFC3339)}
	if left <= 0 {
		w.opt.Log.Error("a certificate has ended: no new connection is made with it; put another into its file", args...)
		return
	}
	w.opt.Log.Warn("a certificate ends soon; put another into its file", append(args, "hours_left", int64(left.Hours()))...)
}

// State is one source, for metrics.
type State struct {
	Name     string
	Failures int64     // contents that could not be taken
	Ends     time.Time // of what is in force; zero is never
}

// States tells how the sources are, in the order they were added.
func (w *Watcher) States() []State {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]State, len(w.sources))
	for i, s := range w.sources {
		out[i] = State{s.Name, s.failures, s.ends}
	}
	return out
}

// read reads the files. look is other whenever they hold something else, or cannot be
// read for another reason.
func (s *Source) read() (contents [][]byte, look [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, name := range s.Files {
		src, ferr := disk.ReadBounded(name, MaxFile)
		if ferr != nil {
			err = ferr
			src = []byte(ferr.Error())
		}
		fmt.Fprintf(h, "%t %d\n", ferr == nil, len(src))
		h.Write(src)
		contents = append(contents, src)
	}
	return contents, [sha256.Size]byte(h.Sum(nil)), err
}

func distinct(files []string) (out []string) {
	for i, f := range files {
		if i == 0 || f != files[i-1] {
			out = append(out, f)
		}
	}
	return out
}
