package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/facetd/facetd/facet"
	"github.com/facetd/facetd/facet/pages"
	"github.com/facetd/facetd/internal/broken"
	"github.com/facetd/facetd/internal/sqlite"
)

// Imported describes a converted database: what a facet needs to begin with it.
type Imported struct {
	Pages uint32
	Sum   facet.Sum
}

// CheckImport looks an uploaded file over, as the hostile thing it may be: the
// header, every page (PRAGMA integrity_check), and a schema without reserved names
// and unsafe virtual tables. Nothing of the schema runs. What is not acceptable is
// told with CodeNotAcceptable.
//
// The file must be the caller's private copy: a database in WAL mode is switched to
// rollback mode in place, and the idempotency keys of an exported facet are
// removed, for they belong to the facet they came from (rule R48).
func CheckImport(ctx context.Context, path string, limits Limits) error {
	i, err := openImport(ctx, path, limits)
	if err != nil {
		return err
	}
	return errors.Join(i.check(), i.close())
}

// ConvertImport checks the file src and writes it as a fresh database dst, built
// page by page from its content: pages of 4 KiB, no WAL, no trace of what src had
// deleted. dst must not exist.
func ConvertImport(ctx context.Context, src, dst string, limits Limits) (Imported, error) {
	i, err := openImport(ctx, src, limits)
	if err != nil {
		return Imported{}, err
	}
	if err := errors.Join(i.convert(dst), i.close()); err != nil {
		return Imported{}, err
	}
	return sumFile(ctx, dst, &i.limits)
}

// importer is an uploaded file, open in SQLite's stock VFS.
type importer struct {
	ctx    context.Context
	cancel context.CancelFunc
	limits Limits
	conn   *sqlite.Conn
	keys   bool // it has the table of idempotency keys
}

func notAcceptable(format string, args ...any) error {
	return facet.Errorf(facet.CodeNotAcceptable, "the file cannot be imported: "+format, args...)
}

const headerLen = 100

// openImport checks the header of the file and opens it.
func openImport(ctx context.Context, path string, limits Limits) (*importer, error) {
	limits = limits.withDefaults()
	if err := registerVFS(); err != nil {
		return nil, fmt.Errorf("open import: %w", err)
	}
	if err := fixHeader(path, &limits); err != nil {
		return nil, err
	}
	i := &importer{limits: limits}
	i.ctx, i.cancel = context.WithTimeout(ctx, limits.ImportTime)
	conn, err := sqlite.Open(path, sqlite.Options{NoCreate: true, CacheSize: -8 << 10})
	if err != nil {
		ferr := i.fail(err)
		i.cancel()
		return nil, ferr
	}
	i.conn = conn
	if err := i.confine(); err != nil {
		return nil, errors.Join(i.fail(err), i.close())
	}
	return i, nil
}

// fixHeader reads the first bytes of the file and takes a database out of WAL
// mode, whose extra files were not uploaded.
func fixHeader(path string, limits *Limits) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open import: %w", err)
	}
	defer f.Close()
	var h [headerLen]byte
	if _, err := io.ReadFull(f, h[:]); err != nil {
		return notAcceptable("it is shorter than the header of an SQLite database")
	}
	if !bytes.Equal(h[:16], []byte("SQLite format 3\x00")) {
		return notAcceptable("it is not an SQLite database (or an encrypted one)")
	}
	size := int(binary.BigEndian.Uint16(h[16:]))
	if size == 1 {
		size = 65536
	}
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("stat import: %w", err)
	}
	switch {
	case size < 512 || size&(size-1) != 0:
		return notAcceptable("its page size %d is not a power of two from 512 to 65536", size)
	case st.Size()%int64(size) != 0:
		return notAcceptable("its %d bytes are not whole pages of %d bytes; was it cut short?", st.Size(), size)
	case st.Size() > 2*limits.FacetBytes+int64(size):
		return limitError(limitFacetBytes, limits.FacetBytes, "the file has %d bytes", st.Size())
	case h[18] > 2 || h[19] > 2 || h[18] == 0 || h[19] == 0:
		return notAcceptable("its format versions %d and %d are not known", h[18], h[19])
	case binary.BigEndian.Uint32(h[56:]) > 1:
		return notAcceptable("its text encoding is UTF-16; dump it and load it into a UTF-8 database first")
	}
	if h[18] == 1 && h[19] == 1 {
		return nil
	}
	if _, err := f.WriteAt([]byte{1, 1}, 18); err != nil {
		return fmt.Errorf("rewrite header of import: %w", err)
	}
	return nil
}

// confine prepares the connection for a file that may be made to do harm.
func (i *importer) confine() error {
	c := i.conn
	for _, s := range [...]struct {
		op sqlite.ConfigOp
		on bool
	}{
		{sqlite.ConfigDefensive, true},
		{sqlite.ConfigTrustedSchema, false},
		{sqlite.ConfigLoadExtension, false},
		{sqlite.ConfigTriggers, false},
		{sqlite.ConfigViews, false},
	} {
		if err := c.DBConfig(s.op, s.on); err != nil {
			return err
		}
	}
	for _, l := range sqliteLimits {
		c.SetLimit(l.id, l.val)
	}
	if err := c.UseLinearFunctions(); err != nil {
		return err
	}
	c.SetProgressHandler(tickOps, func() bool {
		return i.ctx.Err() != nil || c.MemoryUsed() > i.limits.MemoryBytes
	})
	return c.ExecScript([]byte("PRAGMA cell_size_check=1; PRAGMA mmap_size=0; PRAGMA temp_store=memory; PRAGMA journal_mode=memory; PRAGMA synchronous=off"))
}

func (i *importer) close() error {
	i.cancel()
	if err := i.conn.Close(); err != nil {
		return fmt.Errorf("close import: %w", err)
	}
	return nil
}

func (i *importer) fail(err error) error {
	switch code := sqlite.CodeOf(err); {
	case i.ctx.Err() != nil:
		if errors.Is(i.ctx.Err(), context.DeadlineExceeded) {
			return facet.Errorf(facet.CodeTimeout, "the check of the imported file took longer than %v", i.limits.ImportTime)
		}
		return canceledError()
	case code.Primary() == sqlite.INTERRUPT || code.Primary() == sqlite.NOMEM:
		return limitError(limitMemoryBytes, i.limits.MemoryBytes, "the imported file needs too much memory to be checked")
	case code.Primary() == sqlite.FULL:
		return &facet.Error{Code: facet.CodeDiskFull, Message: "the node has no room to convert the imported file"}
	case code != sqlite.OK:
		e, _ := errors.AsType[*sqlite.Error](err) // without the path of the server around it
		return notAcceptable("%s", clip(e.Message))
	}
	return err
}

// check looks at the schema before anything may use it, then at every page.
func (i *importer) check() error {
	if err := i.checkSchema(); err != nil {
		return err
	}
	return i.checkPages()
}

func (i *importer) checkSchema() error {
	n := 0
	return i.each("SELECT type, name, tbl_name, coalesce(sql,'') FROM sqlite_schema", func(s *sqlite.Stmt) error {
		if n++; n > maxImportObjects {
			return notAcceptable("it has more than %d tables, indexes, views and triggers", maxImportObjects)
		}
		kind, name, table, sql := s.ColumnText(0), s.ColumnText(1), s.ColumnText(2), s.ColumnText(3)
		if m := moduleOf(sql); kind == "table" && m != "" && (!modules[m] || m == "dbstat") {
			return notAcceptable("table %s uses the virtual table module %s, which facetd does not have", clip(name), clip(m))
		}
		if table == keysTable && kind == "table" {
			i.keys = true
			return nil
		}
		if isReserved(name) || isReserved(table) {
			return notAcceptable("the name of %s %s begins with %s, which belongs to facetd", kind, clip(name), reserved)
		}
		return nil
	})
}

// moduleOf finds the module in CREATE VIRTUAL TABLE name USING module(…), in
// lower case; "" for any other text.
func moduleOf(sql string) string {
	rest := []byte(sql)
	word := func() string {
		rest = skipBlank(rest, false)
		n := 0
		if len(rest) == 0 {
			return ""
		}
		if end := map[byte]byte{'"': '"', '\'': '\'', '`': '`', '[': ']'}[rest[0]]; end != 0 {
			var name []byte
			for n = 1; n < len(rest); n++ {
				if rest[n] == end {
					if n+1 < len(rest) && rest[n+1] == end && end != ']' {
						n++
					} else {
						break
					}
				}
				name = append(name, rest[n])
			}
			rest = rest[min(n+1, len(rest)):]
			return strings.ToLower(string(name))
		}
		for n < len(rest) && (rest[n] >= 0x80 || rest[n] == '_' || rest[n] == '$' || rest[n] >= '0' && rest[n] <= '9' || rest[n]|0x20 >= 'a' && rest[n]|0x20 <= 'z') {
			n++
		}
		w := strings.ToLower(string(rest[:n]))
		rest = rest[max(n, 1):]
		return w
	}
	if word() != "create" || word() != "virtual" || word() != "table" {
		return ""
	}
	// SQLite writes the text of a schema itself: CREATE VIRTUAL TABLE, then what
	// the user wrote from the name on.
	for w := word(); len(rest) > 0; w = word() {
		if w == "using" {
			return word()
		}
	}
	return "?"
}

func (i *importer) checkPages() error {
	first := ""
	err := i.each("PRAGMA integrity_check(1)", func(s *sqlite.Stmt) error {
		first = s.ColumnText(0)
		return nil
	})
	if err != nil {
		return err
	}
	if first != "ok" {
		return notAcceptable("PRAGMA integrity_check says: %s", clip(first))
	}
	return nil
}

// each runs a query and calls f for every row.
func (i *importer) each(sql string, f func(*sqlite.Stmt) error) error {
	s, _, err := i.conn.Prepare([]byte(sql))
	if err != nil {
		return i.fail(err)
	}
	for {
		more, serr := s.Step()
		if serr != nil {
			err = i.fail(serr)
			break
		}
		if !more {
			break
		}
		if err = f(s); err != nil {
			break
		}
	}
	_ = s.Finalize() // repeats the error of Step
	return err
}

func (i *importer) convert(dst string) error {
	if err := i.check(); err != nil {
		return err
	}
	if i.keys && !broken.Is(broken.CloneKeys) {
		if err := i.conn.ExecScript([]byte("DROP TABLE " + keysTable)); err != nil {
			return i.fail(err)
		}
	}
	i.conn.SetLimit(sqlite.LimitAttached, 1)
	sql := fmt.Appendf(nil, "PRAGMA page_size=%d; VACUUM INTO '%s'", pages.Size, strings.ReplaceAll(dst, "'", "''"))
	if err := i.conn.ExecScript(sql); err != nil {
		return errors.Join(i.fail(err), removeIfThere(dst))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// sumFile reads a converted file for its size and checksum.
func sumFile(ctx context.Context, path string, limits *Limits) (im Imported, err error) {
	f, err := os.Open(path)
	if err != nil {
		return im, fmt.Errorf("open converted import: %w", err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 64*pages.Size)
	var page [pages.Size]byte
	for {
		_, err := io.ReadFull(r, page[:])
		if err == io.EOF {
			break
		}
		if err != nil {
			return im, fmt.Errorf("read converted import: %w", err)
		}
		if im.Pages == 0 && (binary.BigEndian.Uint16(page[16:]) != pages.Size || page[18] != 1 || page[19] != 1) {
			return im, facet.Errorf(facet.CodeInternal, "the converted import has an unexpected header")
		}
		im.Pages++
		im.Sum = im.Sum.Add(pages.Hash(im.Pages, page[:]))
		if im.Pages > limits.quotaPages() {
			return im, limitError(limitFacetBytes, limits.FacetBytes, "the imported database is too large")
		}
		if im.Pages%4096 == 0 && ctx.Err() != nil {
			return im, canceledError()
		}
	}
	return im, nil
}
