package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/facetd/facetd/internal/disk"
)

// What a run has met is counted by name. These prefixes part what is printed apart.
const (
	noteFault = "fault "
	noteOp    = "op "
	noteLog   = "log "
)

// ear counts what nodes log, and hands it on.
type ear struct {
	slog.Handler
	w *world
}

var figures = regexp.MustCompile(`[0-9a-f]{16,}|[0-9]+`)

func (e *ear) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || e.Handler.Enabled(ctx, l)
}

func (e *ear) Handle(ctx context.Context, r slog.Record) error {
	what := r.Message
	if what == "facet session ended" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "reason" {
				what = "session ended: " + figures.ReplaceAllString(a.Value.String(), "N")
			}
			return true
		})
	} else if r.Level < slog.LevelWarn && !strings.HasPrefix(what, "the clock") {
		what = ""
	}
	if what != "" {
		e.w.note(noteLog + what[:min(len(what), 90)])
	}
	if e.Handler.Enabled(ctx, r.Level) {
		return e.Handler.Handle(ctx, r)
	}
	return nil
}

func (e *ear) WithAttrs(list []slog.Attr) slog.Handler { return &ear{e.Handler.WithAttrs(list), e.w} }
func (e *ear) WithGroup(name string) slog.Handler      { return &ear{e.Handler.WithGroup(name), e.w} }

// recordNames are the kinds of records of the commit log that are counted, as the
// comment of package replica has them.
var recordNames = map[byte]string{
	0x03: "snapshot installed", 0x82: "tail cut", 0x84: "tombstone written", 0x85: "carried forward", 0x86: "damage recorded",
}

// seen counts what the commit log of a machine says was done on it since it was looked
// at last. Its lock is held.
func (m *machine) seen() {
	list, err := m.disk.ReadDir(logDir)
	if err != nil {
		return // it is broken, or empty
	}
	high := m.read
	for _, e := range list {
		if !strings.HasSuffix(e.Name, ".seg") {
			continue
		}
		f, err := m.disk.OpenFile(path.Join(logDir, e.Name), os.O_RDONLY, 0)
		if err != nil {
			return
		}
		data := make([]byte, e.Size)
		_, err = f.ReadAt(data, 0)
		f.Close()
		if err != nil {
			return
		}
		high = max(high, m.count(data))
	}
	m.read = high
}

// count counts the records of a segment in batches above those read, and gives the
// highest batch. The layout is in the comment of package commitlog.
func (m *machine) count(data []byte) (high uint64) {
	for at := disk.BlockSize; at+disk.BlockSize <= len(data); at += disk.BlockSize {
		b := data[at : at+disk.BlockSize]
		if b[4] != 1 {
			continue
		}
		batch, size := binary.BigEndian.Uint64(b[8:]), int(binary.BigEndian.Uint32(b[28:]))
		if batch <= m.read || size > len(data) {
			continue
		}
		high = max(high, batch)
		records := slices.Clone(b[40:])
		for next := at + disk.BlockSize; len(records) < size && next+disk.BlockSize <= len(data) && data[next+4] == 2; next += disk.BlockSize {
			records = append(records, data[next+8:next+disk.BlockSize]...)
		}
		for r := records[:min(size, len(records))]; len(r) >= 37; {
			if name := recordNames[r[4]]; name != "" {
				m.w.note("commit log: " + name)
			}
			n := 37 + int(binary.BigEndian.Uint32(r))
			if n > len(r) {
				break
			}
			r = r[n:]
		}
	}
	return high
}

// totals are those of all runs of a test.
type totals struct {
	mu       sync.Mutex
	seeds    int
	failed   []uint64
	problems int
	virtual  time.Duration
	counts   map[string]int
	seen     map[string]int // in how many runs
}

func (t *totals) add(w *world) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts, t.seen = map[string]int{}, map[string]int{}
	}
	t.seeds++
	t.virtual += w.lasted
	if len(w.problems) > 0 {
		t.failed = append(t.failed, w.plan.seed)
		t.problems += len(w.problems)
	}
	for what, n := range w.counts {
		t.counts[what] += n
		t.seen[what]++
	}
}

// String is the summary of a long run.
func (t *totals) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%d seeds, %v of virtual time, %d problems in %d seeds\n", t.seeds, t.virtual.Round(time.Second), t.problems, len(t.failed))
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range t.counts {
			if !yield(name) {
				return
			}
		}
	})
	section := func(title string, in func(string) bool) {
		fmt.Fprintf(&b, "%s (how often, in how many seeds):\n", title)
		for _, name := range names {
			if in(name) {
				fmt.Fprintf(&b, "%10d %6d  %s\n", t.counts[name], t.seen[name], name)
			}
		}
	}
	is := func(prefix string) func(string) bool {
		return func(s string) bool { return strings.HasPrefix(s, prefix) }
	}
	section("operations", is(noteOp))
	section("faults", is(noteFault))
	section("situations", func(s string) bool {
		return !strings.HasPrefix(s, noteOp) && !strings.HasPrefix(s, noteFault) && !strings.HasPrefix(s, noteLog)
	})
	section("what nodes logged", is(noteLog))
	slices.Sort(t.failed)
	for _, seed := range t.failed {
		fmt.Fprintf(&b, "seed %d failed; again: %s\n", seed, replay(seed))
	}
	return b.String()
}

func replay(seed uint64) string {
	also := ""
	if *with != "" {
		also = fmt.Sprintf(" -sim.with=%q", *with)
	}
	return fmt.Sprintf("go test ./internal/sim -run TestSeeds -sim.first=%d -sim.seeds=1%s -count=10 -v", seed, also)
}
