package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
)

func TestMain(m *testing.M) {
	// The engine configures SQLite for the whole process, and must come before the
	// stock driver some tests compare with.
	if err := registerVFS(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// memFile is a database file in memory.
type memFile struct{ data []byte }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(f.data) {
		f.data = append(f.data, make([]byte, n-len(f.data))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) Truncate(n int64) error {
	if int(n) <= len(f.data) {
		f.data = f.data[:n]
	} else {
		f.data = append(f.data, make([]byte, int(n)-len(f.data))...)
	}
	return nil
}

func (f *memFile) Size() (int64, error) { return int64(len(f.data)), nil }
func (f *memFile) Datasync() error      { return nil }
func (f *memFile) Close() error         { return nil }

func newStore() *pages.Store {
	f := &memFile{}
	return pages.New(pages.Base{}, func() (pages.File, error) { return f, nil })
}

// fixture is an open facet and a replica fed only its commits.
type fixture struct {
	t       testing.TB
	db      *DB
	store   *pages.Store
	replica *pages.Store
	id      facet.Incarnation
	limits  Limits
	now     time.Time
	fail    error // what the sink answers
	commits int
	quiet   bool // do not compare pages after each commit
}

func open(t testing.TB, limits Limits) *fixture {
	f := &fixture{t: t, store: newStore(), replica: newStore(), id: facet.NewIncarnation(), limits: limits, now: time.Unix(1_800_000_000, 0)}
	f.open()
	t.Cleanup(func() {
		if err := f.db.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	db, err := Open(Options{
		ID: f.id, Epoch: 7, Store: f.store, Commits: f.commit, Limits: f.limits,
		Now: func() time.Time { return f.now },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.db = db
}

func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.db.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

func (f *fixture) commit(c *facet.Commit) error {
	if f.fail != nil {
		return f.fail
	}
	f.commits++
	if err := f.replica.Apply(c); err != nil {
		f.t.Errorf("replica: %v", err)
	}
	if !f.quiet {
		f.samePages()
	}
	return nil
}

// samePages compares the two stores page for page.
func (f *fixture) samePages() {
	f.t.Helper()
	if f.store.Position() != f.replica.Position() || f.store.Pages() != f.replica.Pages() {
		f.t.Fatalf("replica at %v with %d pages, original at %v with %d", f.replica.Position(), f.replica.Pages(), f.store.Position(), f.store.Pages())
	}
	var a, b [pages.Size]byte
	for p := range f.store.Pages() {
		if _, err := f.store.ReadAt(a[:], int64(p)*pages.Size); err != nil {
			f.t.Fatal(err)
		}
		if _, err := f.replica.ReadAt(b[:], int64(p)*pages.Size); err != nil {
			f.t.Fatal(err)
		}
		if a != b {
			f.t.Fatalf("page %d differs at %v", p+1, f.store.Position())
		}
	}
}

func step(sql string, args ...any) facet.Step {
	st := facet.Step{SQL: []byte(sql), NArgs: len(args)}
	for _, a := range args {
		switch a := a.(type) {
		case nil:
			st.Args = facet.AppendNull(st.Args)
		case int:
			st.Args = facet.AppendInt(st.Args, int64(a))
		case float64:
			st.Args = facet.AppendFloat(st.Args, a)
		case string:
			st.Args = facet.AppendText(st.Args, a)
		case []byte:
			st.Args = facet.AppendBlob(st.Args, a)
		default:
			panic(fmt.Sprintf("argument %T", a))
		}
	}
	return st
}

func script(sql string) facet.Step { return facet.Step{SQL: []byte(sql), Kind: facet.StepScript} }

// run executes a request and renders its result, one line per item.
func (f *fixture) run(req *facet.Request) (string, error) {
	f.t.Helper()
	var resp facet.Response
	err := f.db.Run(req, &resp)
	if f.db.broken == nil {
		if resp.Position != f.store.Position() {
			f.t.Errorf("answered at %v, store at %v", resp.Position, f.store.Position())
		}
		if !f.db.InTx() && f.store.Staged() {
			f.t.Error("a stage is left outside a transaction")
		}
	}
	if err != nil {
		var fe *facet.Error
		if !errors.As(err, &fe) && !errors.Is(err, ErrClosed) {
			f.t.Errorf("error %T is not a facet.Error: %v", err, err)
		}
		if len(resp.Result) > 0 {
			f.t.Error("an error and a result")
		}
	}
	return render(f.t, resp.Result), err
}

func render(t testing.TB, res facet.Result) string {
	t.Helper()
	var b strings.Builder
	for len(res) > 0 {
		it, rest, err := res.Next()
		if err != nil {
			t.Fatal(err)
		}
		res = rest
		switch it.Kind {
		case facet.ItemColumns:
			cols, err := facet.DecodeColumns(it.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range cols {
				fmt.Fprintf(&b, "[%s:%s]", c.Name, c.DeclType)
			}
		case facet.ItemRow:
			b.WriteString(renderValues(t, facet.Values(it.Body)))
		case facet.ItemDone:
			d, err := facet.DecodeDone(it.Body)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "done changes=%d rows=%d", d.Changes, d.RowsOut)
			if d.Transaction {
				b.WriteString(" tx")
			}
		case facet.ItemError:
			e, err := facet.DecodeError(it.Body)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "error %v", e)
		case facet.ItemSkipped:
			b.WriteString("skipped")
		case facet.ItemDescribe:
			d, err := facet.DecodeDescription(it.Body)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "describe %+v", d)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func renderValues(t testing.TB, v facet.Values) string {
	vals, err := v.Decode(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for i, v := range vals {
		if i > 0 {
			b.WriteByte('|')
		}
		switch v.Type {
		case facet.Null:
			b.WriteString("NULL")
		case facet.Integer:
			fmt.Fprint(&b, v.Int)
		case facet.Float:
			fmt.Fprintf(&b, "%g", v.Float)
		case facet.Text:
			fmt.Fprintf(&b, "%q", v.Bytes)
		case facet.Blob:
			fmt.Fprintf(&b, "x'%x'", v.Bytes)
		}
	}
	return b.String()
}

// must runs steps and fails the test on any error.
func (f *fixture) must(steps ...facet.Step) string {
	f.t.Helper()
	out, err := f.run(&facet.Request{Steps: steps})
	if err != nil {
		f.t.Fatal(err)
	}
	if strings.Contains(out, "error ") {
		f.t.Fatalf("%s", out)
	}
	return out
}

// mustFail runs one atomic statement and returns its error.
func (f *fixture) mustFail(steps ...facet.Step) *facet.Error {
	f.t.Helper()
	out, err := f.run(&facet.Request{Atomic: true, Steps: steps})
	if err == nil {
		f.t.Fatalf("no error from %s: %s", steps[0].SQL, out)
	}
	var fe *facet.Error
	if !errors.As(err, &fe) {
		f.t.Fatal(err)
	}
	return fe
}

// rows are the rows of a query, one line each.
func (f *fixture) rows(sql string, args ...any) string {
	f.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(f.must(step(sql, args...))) {
		if !strings.HasPrefix(line, "[") && !strings.HasPrefix(line, "done ") {
			b.WriteString(line)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (f *fixture) want(sql, want string) {
	f.t.Helper()
	if got := f.rows(sql); got != want {
		f.t.Fatalf("%s: got %s, want %s", sql, got, want)
	}
}
