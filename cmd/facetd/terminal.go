package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/peterh/liner"

	"github.com/facetd/facetd/cmd/facetd/internal/shell"
)

// isTerminal reports whether a stream of the program is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// lineEditor is liner as the shell sees it.
type lineEditor struct {
	*liner.State
	history string // file, empty for none
}

// newLineEditor takes the terminal over. Nothing else may read from it until
// close.
func newLineEditor(env func(string) (string, bool)) *lineEditor {
	ed := &lineEditor{State: liner.NewLiner(), history: historyFile(env)}
	ed.SetCtrlCAborts(true)
	ed.SetMultiLineMode(true)
	if f, err := os.Open(ed.history); err == nil {
		ed.ReadHistory(f) // what cannot be read is not worth an error
		f.Close()
	}
	return ed
}

// Prompt implements shell.Editor.
func (e *lineEditor) Prompt(prompt string) (string, error) {
	line, err := e.State.Prompt(prompt)
	if errors.Is(err, liner.ErrPromptAborted) {
		return "", shell.ErrAborted
	}
	return line, err
}

// Remember implements shell.Editor.
func (e *lineEditor) Remember(statement string) { e.AppendHistory(statement) }

// close gives the terminal back and keeps the history, for the user's eyes only.
func (e *lineEditor) close() error {
	err := e.State.Close()
	if e.history == "" {
		return err
	}
	save := func() error {
		if err := os.MkdirAll(filepath.Dir(e.history), 0o700); err != nil {
			return err
		}
		f, err := os.OpenFile(e.history, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = e.WriteHistory(f)
		return errors.Join(err, f.Close())
	}
	if serr := save(); serr != nil {
		err = errors.Join(err, fmt.Errorf("keep history: %w", serr))
	}
	return err
}

// historyFile is where the shell's history lives.
func historyFile(env func(string) (string, bool)) string {
	if f, ok := env("FACETD_HISTORY"); ok {
		return f
	}
	if dir, ok := env("XDG_STATE_HOME"); ok && dir != "" {
		return filepath.Join(dir, "facetd", "history")
	}
	if home, ok := env("HOME"); ok && home != "" {
		return filepath.Join(home, ".local", "state", "facetd", "history")
	}
	return ""
}

// meter shows on a terminal how far a copy has come.
type meter struct {
	w     io.Writer
	what  string
	total int64 // 0: not known
	begin time.Time

	mu    sync.Mutex // net/http reads a body in a goroutine of its own
	n     int64
	shown time.Time
	over  bool
}

// newMeter makes a meter, or one that shows nothing where nobody looks.
func newMeter(w io.Writer, what string, total int64) *meter {
	m := &meter{what: what, total: total, begin: time.Now()}
	if isTerminal(w) {
		m.w = w
	}
	return m
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += int64(n)
	if now := time.Now(); m.w != nil && !m.over && now.Sub(m.shown) > 100*time.Millisecond {
		m.shown = now
		of := ""
		if m.total > 0 {
			of = fmt.Sprintf(" of %s (%d%%)", bytesText(m.total), 100*m.n/m.total)
		}
		rate := float64(m.n) / max(now.Sub(m.begin).Seconds(), 0.001)
		fmt.Fprintf(m.w, "\r\x1b[K%s: %s%s, %s/s", m.what, bytesText(m.n), of, bytesText(int64(rate)))
	}
}

// wait says that everything was sent and the answer is not there yet.
func (m *meter) wait() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w != nil && !m.over {
		fmt.Fprintf(m.w, "\r\x1b[K%s: %s sent; the node checks the file", m.what, bytesText(m.n))
	}
}

func (m *meter) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.w != nil {
		fmt.Fprint(m.w, "\r\x1b[K")
	}
}

// writer and reader count what goes through them.
func (m *meter) writer(w io.Writer) io.Writer { return meteredWriter{m, w} }
func (m *meter) reader(r io.Reader) io.Reader { return meteredReader{m, r} }

type meteredWriter struct {
	m *meter
	w io.Writer
}

func (c meteredWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.m.add(n)
	return n, err
}

type meteredReader struct {
	m *meter
	r io.Reader
}

func (c meteredReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.m.add(n)
	if err == io.EOF {
		c.m.wait()
	}
	return n, err
}

func bytesText(n int64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
